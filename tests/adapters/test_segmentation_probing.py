"""Both protocols on stored maps choose on validation alone, test once, and predict every pixel of an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bob.adapters.modifiers import Shots
from bob.adapters.segmentation_probing import KNN, LINEAR, DenseProbing
from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.cards import BackboneCard, Weights
from bob.data.base import Dataset, ImageSet, Split
from bob.errors import UserError
from bob.features.extract import Extraction, fill_stores, open_store
from bob.features.reading import Reading
from bob.task_cards import DataSpec, TaskCard

TASK = TaskCard(name="toy", adapter="segmentation", data=DataSpec(source="shapes_segmentation"))
HOW = Extraction(torch.device("cpu"), workers=0)
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], dtype=np.uint8)
CLASSES = ("red", "green", "blue")
BOTH = pytest.mark.parametrize("protocol", [LINEAR, KNN], ids=lambda protocol: protocol.name)


class Mosaics(ImageSet):
    """Images of 4 x 6 coloured squares, of different sizes; class maps say the colour."""

    target_kind = "segmentation"

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.cells = rng.integers(3, size=(count, 4, 6)).astype(np.int16)
        self.labels = np.stack([(self.cells == c).any((1, 2)) for c in range(3)], axis=1).astype(np.int64)
        self.names = [f"mosaic/{seed}/{i}" for i in range(count)]
        self.hidden: set[int] = set()

    def target(self, index: int) -> np.ndarray:
        if index in self.hidden:
            raise AssertionError("Nobody may look at this one.")
        edge = 8 + 4 * (index % 3)
        return self.cells[index].repeat(edge, 0).repeat(edge, 1)

    def read(self, index: int) -> torch.Tensor:
        edge = 8 + 4 * (index % 3)
        return torch.from_numpy(COLOURS[self.cells[index].repeat(edge, 0).repeat(edge, 1)].transpose(2, 0, 1).copy())

    def fingerprint(self) -> str:
        return f"{self.cells.sum()}-{len(self)}"


class Averaged(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


class Mosaic(Backbone):
    """A backbone whose map is the image itself, 16 times smaller."""

    def __init__(self) -> None:
        card = BackboneCard(name="mosaic", weights=Weights(source="custom", model="tests:mosaic"))
        super().__init__(card, Averaged(), Preprocess(size=(64, 96)), code={})

    @property
    def strides(self) -> list[int]:
        return [16]

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.avg_pool2d(images, 16, ceil_mode=True)]


class PixelAccuracy:
    """Stands for the adapter."""

    def scores(self, dataset: Dataset, split: str, predicted: Any) -> dict[str, float]:
        return {"miou": accuracy(dataset.splits[split], predicted)}

    def best(self, tried: Any, prefix: str = "val_") -> Any:
        return max(tried, key=lambda entry: entry[prefix + "miou"])


class Given:
    """What a run is given, with features stored on disk."""

    task, adapter, how = TASK, PixelAccuracy(), HOW

    def __init__(self, backbone: Backbone, dataset: Dataset, reading: Reading) -> None:
        self.backbone, self.dataset = backbone, dataset.sealed("test")
        self._stores: dict[int, Any] = {}
        self._sets = {name: split.images for name, split in dataset.splits.items()}
        for images in dataset.image_sets():
            store = open_store(backbone, {"model": "x"}, images, HOW, reading)
            fill_stores({reading: store}, backbone, images, HOW)
            self._stores[id(images)] = store.read()

    def stored(self, split: str, reading: Reading) -> np.ndarray:
        return self._stores[id(self._sets[split])]


def accuracy(split: Split, predicted: Any) -> float:
    return float(np.mean([(predicted[i] == split.target(i)).mean() for i in range(len(split))]))


@pytest.fixture(autouse=True)
def _home(home):
    """No store of another test."""


@pytest.fixture
def dataset() -> Dataset:
    pool, test = Mosaics(40, seed=0), Mosaics(7, seed=1)
    order = np.random.default_rng(0).permutation(40)
    splits = {"train": Split(pool, order[:28]), "val": Split(pool, order[28:]), "test": Split(test, np.arange(7))}
    return Dataset("mosaics", CLASSES, splits)


@BOTH
def test_colours_are_recovered(protocol, dataset):
    given = Given(Mosaic(), dataset, protocol.reading)
    outcome = protocol.run(given, seed=0)
    test = dataset.splits["test"]
    assert [mask.shape for mask in outcome.predicted] == [test.target(i).shape for i in range(7)]
    assert [mask.shape for mask in outcome.predicted][:2] == [(32, 48), (48, 72)]
    # At the corners interpolation rounds the squares off; their middles are exact.
    assert accuracy(test, outcome.predicted) > 0.93
    edges = [8 + 4 * (i % 3) for i in range(7)]
    for mask, cells, edge in zip(outcome.predicted, test.images.cells, edges, strict=True):
        np.testing.assert_array_equal(mask[edge // 2 :: edge, edge // 2 :: edge], cells)
    assert outcome.width == 3 and outcome.chosen in protocol.grid and len(outcome.grid) == len(protocol.grid)
    assert outcome.notes[-1] == "images of 64 x 96 px, 4 x 6 positions"
    assert set(outcome.seconds) == {"choose", "fit", "predict"}


@BOTH
def test_test_targets_are_not_looked_at(protocol, dataset):
    test = dataset.splits["test"].images
    given = Given(Mosaic(), dataset, protocol.reading)
    test.hidden = set(range(7))
    assert len(protocol.run(given, seed=0).predicted) == 7


@BOTH
def test_the_same_seed_gives_the_same(protocol, dataset):
    short = replace(protocol, grid=protocol.grid[:2])
    first, again = (short.run(Given(Mosaic(), dataset, short.reading), seed=1) for _ in range(2))
    assert first.chosen == again.chosen and first.grid == again.grid
    for one, other in zip(first.predicted, again.predicted, strict=True):
        np.testing.assert_array_equal(one, other)


@BOTH
def test_one_point_is_not_chosen(protocol, dataset):
    alone = replace(protocol, grid=protocol.grid[:1])
    outcome = alone.run(Given(Mosaic(), dataset, alone.reading), seed=0)
    assert outcome.chosen == protocol.grid[0] and outcome.grid == []


@BOTH
@pytest.mark.parametrize("name", ["timm:test_vit.random", "timm:mobilenetv3_small_050.random"])
def test_real_networks(protocol, name, dataset):
    backbone, short = (
        open_backbone(resolve_backbone(name, {})),
        replace(protocol, grid=protocol.grid[:3], size=(64, 96)),
    )
    outcome = short.run(Given(backbone, dataset, short.reading), seed=0)
    assert accuracy(dataset.splits["test"], outcome.predicted) > 0.5  # of three colours


def test_a_large_grid_is_averaged_and_said_to_be(dataset):
    large = replace(LINEAR, grid=LINEAR.grid[:1], size=(640, 960))
    outcome = large.run(Given(Mosaic(), dataset, large.reading), seed=0)
    assert outcome.notes[-1] == "images of 640 x 960 px, 26 x 39 positions averaged from 40 x 60 (at most 1024)"
    assert accuracy(dataset.splits["test"], outcome.predicted) > 0.9


@BOTH
def test_size_is_a_setting(protocol):
    assert protocol.configured({"lr": "1"}, None, None) == protocol
    assert protocol.configured({"probe_size": "448"}, None, None).size == (448, 448)
    asked: DenseProbing = protocol.configured({"probe_size": "512/1024"}, None, None)
    assert asked.reading == Reading("maps", size=(512, 1024))
    assert asked.as_dict()["reading"]["size"] == [512, 1024]
    assert protocol.as_dict()["reading"]["size"] is None
    for wrong in ("0", "x", "448x448", "-3", "448/"):
        with pytest.raises(UserError, match="is no probe_size"):
            protocol.configured({"probe_size": wrong}, None, None)


@BOTH
def test_what_does_not_suit(protocol, dataset):
    with pytest.raises(UserError, match="no draws of a few images"):
        protocol.with_shots(Shots(per_class=5))
    with pytest.raises(UserError, match="one class only"):
        protocol.require(TASK, replace(dataset, classes=("red",)))
    protocol.require(TASK, dataset)
