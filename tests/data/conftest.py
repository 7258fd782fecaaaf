"""Images and folders of images for the tests of data sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bob.data.base import ImageSet


class MemoryImages(ImageSet):
    """Random images of different sizes, kept in memory."""

    def __init__(self, count: int, sizes=((9, 7), (5, 12), (8, 8))) -> None:
        generator = torch.Generator().manual_seed(0)
        shapes = [(3, *sizes[i % len(sizes)]) for i in range(count)]
        self.pixels = [torch.randint(256, s, dtype=torch.uint8, generator=generator) for s in shapes]
        self.labels = np.arange(count) % 2
        self.names = [f"memory/{i}" for i in range(count)]

    def read(self, index: int) -> torch.Tensor:
        return self.pixels[index]

    def fingerprint(self) -> str:
        return f"memory-{len(self)}"


@pytest.fixture
def memory_images():
    """The class of images in memory."""
    return MemoryImages


@pytest.fixture
def bob_home(tmp_path_factory, monkeypatch) -> Path:
    """An empty `$BOB_HOME`, apart from `tmp_path`."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("BOB_HOME", str(home))
    monkeypatch.delenv("BOB_DATA", raising=False)
    return home


@pytest.fixture
def photograph():
    """Make a smooth random picture, as a PIL image."""

    def make(seed: int = 0, size: tuple[int, int] = (61, 43), mode: str = "RGB") -> Image.Image:
        rng = np.random.default_rng(seed)
        bands = len(Image.new(mode, (1, 1)).getbands())
        coarse = rng.integers(0, 256, (8, 10, bands), dtype=np.uint8)
        return Image.fromarray(coarse[..., 0] if bands == 1 else coarse, mode).resize(size, Image.Resampling.BICUBIC)

    return make


@pytest.fixture
def write_images(photograph):
    """Write small images at the given paths below a root."""

    def write(root: Path, *paths: str) -> Path:
        for number, path in enumerate(paths):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            photograph(number, (8, 6)).save(root / path)
        return root

    return write


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Let every look-up of a host fail, as without a network."""

    def fail(*args, **kwargs):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", fail)
