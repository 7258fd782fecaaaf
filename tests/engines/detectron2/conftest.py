"""Scenes of coloured rectangles, and small detectors for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.data.base import Dataset, ImageSet, Split
from bob.data.objects import Objects, encode_masks
from bob.engines.dense_recipe import DetectionRecipe, View
from bob.features.extract import Extraction


class Blocks(ImageSet):
    """Noise with up to three rectangles, red, green or blue; image 3 has none, and the first of image 1 is a crowd."""

    target_kind = "detection"
    federated = False

    def __init__(self, count: int, salt: int = 0, has_masks: bool = True) -> None:
        self.has_masks, self.salt = has_masks, salt
        self.names = [f"blocks/{salt}/{i}" for i in range(count)]
        self.image_ids = np.arange(count) + 100
        self.category_ids = np.array([1, 2, 5])
        self.labels = np.zeros((count, 3), np.int64)
        for index in range(count):
            self.labels[index, self.target(index).labels] = 1

    def size(self, index: int) -> tuple[int, int]:
        return (96, 120) if index % 2 else (104, 88)

    def target(self, index: int) -> Objects:
        rng = np.random.default_rng([self.salt, index])
        height, width = self.size(index)
        count = 0 if index == 3 else int(rng.integers(1, 4))
        boxes, labels, masks = np.zeros((count, 4)), np.zeros(count, np.int64), np.zeros((count, height, width), bool)
        for place in range(count):
            tall, wide = rng.integers(24, 44, size=2)
            left = place * width // 3 + int(rng.integers(0, max(1, width // 3 - 10)))
            top = int(rng.integers(0, height - tall))
            box = left, top, min(left + wide, width), top + tall
            boxes[place], labels[place] = box, rng.integers(3)
            masks[place, box[1] : box[3], box[0] : box[2]] = True
        return Objects(
            boxes=boxes,
            labels=labels,
            ids=np.arange(count) + 10 * index,
            areas=masks.sum(axis=(1, 2)).astype(float),
            crowd=np.array([index == 1 and place == 0 for place in range(count)], bool).reshape(count),
            size=(height, width),
            rles=encode_masks(masks) if self.has_masks else None,
        )

    def read(self, index: int) -> torch.Tensor:
        noise = np.random.default_rng([self.salt, index, 1]).integers(60, 120, size=(3, *self.size(index)))
        objects = self.target(index)
        for box, label in zip(objects.boxes.astype(int), objects.labels, strict=True):
            noise[:, box[1] : box[3], box[0] : box[2]] //= 2
            noise[label, box[1] : box[3], box[0] : box[2]] = 230
        return torch.from_numpy(noise.astype(np.uint8))

    def fingerprint(self) -> str:
        return f"blocks-{len(self)}-{self.salt}"

    def annotations_sha256(self) -> str:
        return f"blocks-{len(self)}-{self.salt}-{self.has_masks}"


class Sealed(Blocks):
    """Images whose objects nobody may ask for but to draw them."""

    drawing = False

    def target(self, index: int) -> Objects:
        if not self.drawing:
            raise RuntimeError("sealed")
        return super().target(index)

    def __init__(self, count: int, salt: int) -> None:
        self.drawing = True
        super().__init__(count, salt)
        self.drawing = False

    def read(self, index: int) -> torch.Tensor:
        self.drawing = True
        image = super().read(index)
        self.drawing = False
        return image


def make_blocks(has_masks: bool = True) -> Dataset:
    """12 images to train on, 4 to validate, and sealed ones."""
    splits = {"train": Split(Blocks(12, has_masks=has_masks), np.arange(12)), "val": Split(Blocks(4, 1), np.arange(4))}
    splits["test"] = Split(Sealed(3, 2), np.arange(3))
    return Dataset("blocks", ("red", "green", "blue"), splits)


def open_random(name: str, size: int = 64) -> Backbone:
    """Open a timm model with random weights that pass for a checkpoint's."""
    torch.manual_seed(0)
    card = resolve_backbone(f"timm:{name}", {})
    override = card.preprocess.model_copy(update={"size": (size, size), "crop_fraction": 1.0})
    card = card.model_copy(update={"preprocess": override})
    weights = card.weights.model_copy(update={"pretrained": False})
    opened = open_backbone(card.model_copy(update={"weights": weights}))
    opened.card = card
    return opened


@pytest.fixture
def blocks() -> Dataset:
    """See `make_blocks`."""
    return make_blocks()


@pytest.fixture
def boxes_alone() -> Dataset:
    """Without masks."""
    return make_blocks(has_masks=False)


@pytest.fixture
def open_tiny():
    """See `open_random`."""
    return open_random


def make_recipe() -> DetectionRecipe:
    """Two epochs of three updates of two parts, with large-scale jittering."""
    view = View(short=96, long=128, scale=(0.6, 1.4), crop=(96, 96), color_jitter=0.2)
    return DetectionRecipe(
        "tiny_detection",
        lr=1e-3,
        layer_decay=None,
        epochs=2,
        schedule="multistep",
        milestones=(0.75,),
        warmup_epochs=0,
        warmup_steps=2,
        warmup_lr=1e-5,
        batch_size=4,
        micro_batch=2,
        drop_path=0.1,
        augmentation=None,
        view=view,
        fpn_width=32,
        box_width=32,
        mask_width=16,
        anchor_size=8.0,
        proposals=100,
        roi_samples=32,
        detections=20,
    )


@pytest.fixture
def recipe() -> DetectionRecipe:
    """See `make_recipe`."""
    return make_recipe()


@pytest.fixture
def on_cpu() -> Extraction:
    return Extraction(torch.device("cpu"), workers=0)


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory):
    """A detector that has seen the blocks sixty times in about their own size, the blocks, and the losses."""
    from bob.engines.detectron2 import train as train_detector

    losses: list[float] = []
    dataset, recipe = make_blocks(), make_recipe()
    view = replace(recipe.view, scale=(0.9, 1.1), crop=(128, 128), color_jitter=0.0)
    longer = replace(recipe, epochs=60, lr=2e-3, view=view, drop_path=0.0)
    with one_thread():
        trained = train_detector(
            open_random("mobilenetv3_small_050"),
            dataset,
            longer,
            how=Extraction(torch.device("cpu"), workers=0),
            folder=tmp_path_factory.mktemp("learnt"),
            seed=0,
            progress=lambda update: losses.append(update.loss),
        )
    return trained, dataset, losses


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep within one core; weights are compared bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOB_HOME", str(tmp_path / "home"))
    with one_thread():
        yield


@pytest.fixture
def train(blocks, on_cpu, tmp_path):
    """Train on the blocks."""
    from bob.engines.detectron2 import train as train_detector

    def run(backbone, recipe, dataset=blocks, **options):
        options = {"how": on_cpu, "folder": tmp_path / "runs", "seed": 0, **options}
        return train_detector(backbone, dataset, recipe, **options)

    return run
