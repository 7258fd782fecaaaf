"""Tiny images with rectangles to find, and a recipe for a tiny detector."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pytest
import torch

from bob.data.base import Dataset, ImageSet, Split
from bob.data.objects import Objects, encode_masks
from bob.engines import detection
from bob.engines.dense_recipe import DetectionRecipe, View

COLOURS = torch.tensor([[230, 40, 40], [40, 60, 230]], dtype=torch.uint8)


class Blocks(ImageSet):
    """Red and blue rectangles on grey noise, 72 x 96 pixels; every fourth image, or each, shows none."""

    target_kind: ClassVar[Literal["detection", "segmentation"] | None] = "detection"
    federated = False

    def __init__(self, count: int, has_masks: bool = True, empty: bool = False, salt: int = 0) -> None:
        self.has_masks, self.empty, self.salt = has_masks, empty, salt
        self.names = [f"blocks/{i}" for i in range(count)]
        self.labels = np.stack([np.isin([0, 1], self.target(i).labels).astype(np.int64) for i in range(count)])

    def read(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(index + 1000 * self.salt)
        image = torch.randint(90, 140, (3, 72, 96), generator=generator, dtype=torch.uint8)
        target = self.target(index)
        for mask, label in zip(self._masks(target.boxes), target.labels, strict=True):
            image[:, torch.from_numpy(mask)] = COLOURS[label][:, None]
        return image

    def target(self, index: int) -> Objects:
        rng = np.random.default_rng([index, self.salt])
        count = 0 if self.empty or index % 4 == 3 else 2
        starts = np.stack([rng.uniform(2, 20, count) + [0, 48][:count], rng.uniform(2, 40, count)], axis=1).round()
        boxes = np.concatenate([starts, starts + rng.uniform(18, 26, (count, 2)).round()], axis=1)
        return Objects(
            boxes=boxes,
            labels=(index + np.arange(count)) % 2,
            ids=np.arange(count),
            areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
            crowd=np.zeros(count, dtype=bool),
            size=(72, 96),
            rles=encode_masks(self._masks(boxes)) if self.has_masks else None,
        )

    def fingerprint(self) -> str:
        return f"blocks-{len(self)}-{self.has_masks}-{self.empty}-{self.salt}"

    def annotations_sha256(self) -> str:
        return self.fingerprint()

    def _masks(self, boxes: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[:72, :96]
        edges = (boxes[:, k, None, None] for k in range(4))
        left, top, right, bottom = edges
        return (x >= left) & (x < right) & (y >= top) & (y < bottom)


@pytest.fixture
def make_blocks():
    """Make a data set of `Blocks`."""

    def make(count: int = 4, **options) -> Dataset:
        sets = {"train": Blocks(count, **options), "val": Blocks(4, **options, salt=1)}
        return Dataset("blocks", ("red", "blue"), {k: Split(v, np.arange(len(v))) for k, v in sets.items()})

    return make


@pytest.fixture
def recipe() -> DetectionRecipe:
    """Two epochs of two updates of a tiny detector."""
    return DetectionRecipe(
        "tiny",
        lr=1e-3,
        layer_decay=None,
        epochs=2,
        warmup_epochs=0,
        batch_size=4,
        drop_path=0.0,
        augmentation=None,
        view=View(short=72, long=96, scale=(0.8, 1.0), crop=None),
        fpn_width=16,
        box_width=32,
        mask_width=8,
        anchor_size=8.0,
        proposals=40,
        roi_samples=32,
        detections=10,
    )


@pytest.fixture
def train(on_cpu, tmp_path, make_blocks):
    """Train a detector on blocks."""

    def run(backbone, recipe, dataset=None, **options):
        defaults = {"how": on_cpu, "folder": tmp_path / "runs", "seed": 0}
        return detection.train(backbone, dataset or make_blocks(8), recipe, **{**defaults, **options})

    return run
