"""Tiny images with a class for each pixel, and networks to learn them."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pytest
import torch

from bob.backbones.base import Backbone
from bob.data.base import Dataset, ImageSet, Split
from bob.data.objects import IGNORE, PredictedMasks
from bob.engines.dense_recipe import SegmentationRecipe, View

CLASSES = ("ground", "red", "green", "blue")


class Squares(ImageSet):
    """Images of different sizes, each with a coloured square of one of three classes on grey noise.

    Pixels at the square's edge are to be ignored.
    """

    target_kind: ClassVar[Literal["detection", "segmentation"] | None] = "segmentation"

    def __init__(self, count: int, salt: int = 0, sizes: tuple[tuple[int, int], ...] = ((40, 52), (48, 40))) -> None:
        self.names = [f"squares/{salt}/{i}" for i in range(count)]
        self.labels = np.stack([np.isin(np.arange(4), [0, 1 + i % 3]) for i in range(count)]).astype(np.int64)
        self.salt, self.sizes = salt, sizes

    def read(self, index: int) -> torch.Tensor:
        rng = np.random.default_rng([self.salt, index])
        height, width = self.sizes[index % len(self.sizes)]
        image = rng.integers(90, 140, size=(3, height, width))
        top, left = self._place(index)
        image[:, top : top + 20, left : left + 20] -= 60
        image[index % 3, top : top + 20, left : left + 20] += 150
        return torch.from_numpy(image.astype(np.uint8))

    def target(self, index: int) -> np.ndarray:
        classes = np.zeros(self.sizes[index % len(self.sizes)], dtype=np.int16)
        top, left = self._place(index)
        classes[top - 1 : top + 21, left - 1 : left + 21] = IGNORE
        classes[top : top + 20, left : left + 20] = 1 + index % 3
        return classes

    def fingerprint(self) -> str:
        return f"squares-{len(self)}-{self.salt}"

    def _place(self, index: int) -> tuple[int, int]:
        top, left = np.random.default_rng([self.salt, index, 1]).integers(2, 18, size=2)
        return int(top), int(left)


@pytest.fixture
def squares() -> Dataset:
    """12 images to train on, and 6 of each of the others."""
    counts = {"train": 12, "val": 6, "test": 6}
    splits = {name: Split(Squares(n, salt), np.arange(n)) for salt, (name, n) in enumerate(counts.items())}
    return Dataset("squares", CLASSES, splits)


@pytest.fixture
def recipe() -> SegmentationRecipe:
    """Two epochs of three updates of two parts."""
    return SegmentationRecipe(
        "tiny",
        lr=1e-3,
        layer_decay=None,
        epochs=2,
        schedule="poly",
        warmup_epochs=0,
        warmup_steps=2,
        warmup_lr=1e-6,
        min_lr=0.0,
        batch_size=4,
        micro_batch=2,
        drop_path=0.0,
        augmentation=None,
        view=View(short=48, long=96, scale=(0.8, 1.4), crop=(64, 64), color_jitter=0.2),
        decoder_width=16,
    )


@pytest.fixture
def backbone(open_tiny) -> Backbone:
    """A small ResNet with random weights, and statistics of BatchNorm that are not those of a new one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        opened = open_tiny("test_resnet", 64)
    for module in opened.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += 0.01
    return opened


@pytest.fixture
def accuracy():
    """Share of the pixels that count that are right."""

    def compute(masks: PredictedMasks, split: Split) -> float:
        pairs = [(mask, split.target(i)) for i, mask in enumerate(masks)]
        right = sum(int((mask == target)[target != IGNORE].sum()) for mask, target in pairs)
        return right / sum(int((target != IGNORE).sum()) for _, target in pairs)

    return compute
