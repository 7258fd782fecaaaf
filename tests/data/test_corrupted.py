"""Corruptions are the library's, the same at every reading, and change what is stored under."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bob.data import corrupted
from bob.data.base import Split
from bob.data.corrupted import EXTRA, FIFTEEN, CorruptedImages
from bob.data.loader import load_batches
from bob.errors import UserError

library = pytest.importorskip("imagecorruptions")


@pytest.fixture
def split(memory_images) -> Split:
    return Split(memory_images(6, sizes=((40, 37), (33, 64))), np.array([4, 1, 2]))


def test_the_names_are_the_librarys() -> None:
    assert list(FIFTEEN) == library.get_corruption_names("common")
    assert sorted(EXTRA) == sorted(library.get_corruption_names("validation"))


@pytest.mark.parametrize("name", [*FIFTEEN, *EXTRA])
def test_every_corruption(name, split) -> None:
    images = CorruptedImages(split, name, 3)
    read = [images.read(index) for index in range(3)]
    for pixels, place in zip(read, split.indices, strict=True):
        clean = split.images.read(int(place))
        assert pixels.shape == clean.shape and pixels.dtype == torch.uint8
        assert not torch.equal(pixels, clean)
    before = np.random.get_state()[1].copy()
    again = CorruptedImages(split, name, 3)
    assert all(torch.equal(again.read(index), read[index]) for index in (2, 0, 1))
    assert np.array_equal(np.random.get_state()[1], before)  # numpy's own generator is as it was


def test_it_is_the_librarys(split) -> None:
    clean = split.images.read(4).permute(1, 2, 0).numpy()
    expected = library.corrupt(np.ascontiguousarray(clean), severity=2, corruption_name="contrast")
    assert np.array_equal(CorruptedImages(split, "contrast", 2).read(0).permute(1, 2, 0).numpy(), expected)


def test_chance_is_each_images_own(split) -> None:
    same = Split(split.images, np.array([4, 4, 1]))
    noisy = CorruptedImages(same, "gaussian_noise", 1)
    assert torch.equal(noisy.read(0), noisy.read(1))  # one position, one noise
    assert not torch.equal(noisy.read(0), CorruptedImages(same, "gaussian_noise", 1, seed=1).read(0))
    difference = noisy.read(0).int() - split.images.read(4).int()
    other = noisy.read(2).int() - split.images.read(1).int()
    assert difference.shape != other.shape or not torch.equal(difference, other)


def test_workers_read_the_same(split) -> None:
    images = CorruptedImages(split, "shot_noise", 5)
    batches = load_batches(images, [[0], [1, 2]], lambda pixels: pixels[:, :33, :33], workers=2)
    read = torch.cat([batch.images for batch in batches])
    assert torch.equal(read, torch.stack([images.read(index)[:, :33, :33] for index in range(3)]))


def test_fingerprints_differ(split) -> None:
    kinds = [
        CorruptedImages(split, "fog", 1),
        CorruptedImages(split, "fog", 2),
        CorruptedImages(split, "snow", 1),
        CorruptedImages(split, "fog", 1, seed=1),
        CorruptedImages(split, "fog", 1, published=True),
        CorruptedImages(Split(split.images, np.array([4, 1])), "fog", 1),
    ]
    assert len({images.fingerprint() for images in kinds} | {split.images.fingerprint()}) == 7
    assert CorruptedImages(split, "fog", 1).fingerprint() == kinds[0].fingerprint()


def test_published_images_have_224_pixels(split) -> None:
    images = CorruptedImages(split, "brightness", 1, published=True)
    assert [tuple(images.read(index).shape) for index in range(3)] == [(3, 224, 224)] * 3


def test_labels_and_names_are_the_clean_ones(split) -> None:
    images = CorruptedImages(split, "fog", 1)
    assert images.labels.tolist() == split.labels.tolist() and images.names == split.names and len(images) == 3


def test_wrong_input(split, memory_images, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"no corruption 'gausian_noise'\. Did you mean: gaussian_noise"):
        CorruptedImages(split, "gausian_noise", 1)
    with pytest.raises(ValueError, match="`severity`"):
        CorruptedImages(split, "fog", 6)
    small = CorruptedImages(Split(memory_images(3), np.arange(3)), "fog", 1)
    with pytest.raises(UserError, match="memory/1 has 12 x 5 pixels, too few for the corruption 'fog'"):
        small.read(1)


def test_without_the_library(split, monkeypatch) -> None:
    monkeypatch.setattr(corrupted.importlib.util, "find_spec", lambda name: None)

    def missing(name):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr("bob.extras.importlib.import_module", missing)
    with pytest.raises(UserError, match="imagecorruptions is not installed"):
        CorruptedImages(split, "fog", 1)
