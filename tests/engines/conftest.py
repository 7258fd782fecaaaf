"""Tiny networks and images for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.data.base import Dataset, ImageSet, Split
from bob.engines import fine_tune
from bob.engines.recipe import Recipe
from bob.features.extract import Extraction


class Colours(ImageSet):
    """Noise of 32 x 32 pixels around one colour for each of three classes."""

    def __init__(self, count: int, salt: int = 0) -> None:
        self.labels = np.arange(count) % 3
        self.names = [f"colours/{i}" for i in range(count)]
        self.salt = salt

    def read(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(index + 1000 * self.salt)
        noise = torch.randn(3, 32, 32, generator=generator) * 60 + 100
        noise[index % 3] += 60
        return noise.clamp(0, 255).to(torch.uint8)

    def fingerprint(self) -> str:
        return f"colours-{len(self)}-{self.salt}"


class Sealed(Colours):
    """Images whose labels nobody may ask for."""

    @property
    def labels(self) -> np.ndarray:
        raise RuntimeError("sealed")

    @labels.setter
    def labels(self, value: np.ndarray) -> None:
        pass


def make_colours() -> Dataset:
    """48 images to train on, 18 to validate, and sealed ones."""
    train, val = Colours(48), Colours(18, salt=1)
    splits = {"train": Split(train, np.arange(48)), "val": Split(val, np.arange(18))}
    splits["test"] = Split(Sealed(6, salt=2), np.arange(6))
    return Dataset("colours", ("red", "green", "blue"), splits)


def open_test_model(name: str = "test_resnet", size: int = 32) -> Backbone:
    """Open one of timm's test models with random weights that pass for a checkpoint's."""
    card = resolve_backbone(f"timm:{name}", {})
    override = card.preprocess.model_copy(update={"size": (size, size), "crop_fraction": 1.0})
    card = card.model_copy(update={"preprocess": override})
    weights = card.weights.model_copy(update={"pretrained": False})
    opened = open_backbone(card.model_copy(update={"weights": weights}))
    opened.card = card
    return opened


@pytest.fixture
def colours() -> Dataset:
    """See `make_colours`."""
    return make_colours()


@pytest.fixture
def open_tiny():
    """See `open_test_model`."""
    return open_test_model


@pytest.fixture
def on_cpu() -> Extraction:
    return Extraction(torch.device("cpu"), workers=0)


@pytest.fixture
def recipe() -> Recipe:
    """Two epochs of three updates, without augmentation."""
    return Recipe(
        "tiny", lr=1e-3, epochs=2, warmup_epochs=1, batch_size=16, drop_path=0.0, layer_decay=0.9, augmentation=None
    )


@pytest.fixture
def train(colours, on_cpu, tmp_path):
    """Fine-tune on the colours."""

    def run(backbone, recipe, **options):
        return fine_tune.train(
            backbone, colours, recipe, **{"how": on_cpu, "folder": tmp_path / "runs", "seed": 0, **options}
        )

    return run


@pytest.fixture
def same():
    """Whether two modules hold the same tensors, bit by bit."""

    def compare(a: nn.Module, b: nn.Module) -> bool:
        pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
        return all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)

    return compare


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Keep within one core; weights are compared bit by bit."""
    monkeypatch.setenv("BOB_HOME", str(tmp_path / "home"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
