"""Small backbones and image sets for the tests of extraction and store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard, Weights
from bob.data.base import ImageSet
from bob.features.extract import Extraction

SIZES = ((9, 7), (5, 12), (8, 8), (30, 21))


class MemoryImages(ImageSet):
    """Random images of different sizes, made when they are read; `reads` keeps the order of reading."""

    def __init__(self, count: int) -> None:
        self.labels = np.arange(count) % 2
        self.names = [f"memory/{i}" for i in range(count)]
        self.reads: list[int] = []

    def read(self, index: int) -> torch.Tensor:
        self.reads.append(index)
        generator = torch.Generator().manual_seed(index)
        return torch.randint(256, (3, *SIZES[index % len(SIZES)]), dtype=torch.uint8, generator=generator)

    def fingerprint(self) -> str:
        return f"memory-{len(self)}"


@pytest.fixture
def memory_images():
    """The class of images in memory."""
    return MemoryImages


@pytest.fixture
def make_backbone():
    """Give a module the interface, with 8 x 8 pixels of input unless said otherwise."""

    def make(module: nn.Module, size: int = 8, name: str = "tiny") -> Backbone:
        card = BackboneCard(name=name, weights=Weights(source="custom", model="tests:make"))
        return Backbone(card, module, Preprocess(size=(size, size), crop_mode="squash", crop_fraction=1.0), code={})

    return make


@pytest.fixture
def small_module():
    """Convolution, batch normalisation and pooling, with fixed weights: (B, 3, H, W) -> (B, 5)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        nn.init.uniform_(module[1].weight)
        nn.init.uniform_(module[1].running_mean)
    return module


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch) -> Path:
    """An empty `$BOB_HOME`, apart from `tmp_path`."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("BOB_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def _one_thread():
    """Keep within one core; features are compared bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_shards(monkeypatch) -> int:
    """Let a shard have 8 rows."""
    monkeypatch.setattr("bob.features.store.SHARD_ROWS", 8)
    return 8


@pytest.fixture
def on_cpu():
    """How to extract on the CPU, in this process unless said otherwise."""

    def how(**options) -> Extraction:
        return Extraction(torch.device("cpu"), **{"workers": 0, **options})

    return how
