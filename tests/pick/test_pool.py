"""Nested sets of images: stratified, the same for the same seed, never of the test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bob.data.base import Dataset
from bob.data.files import FileImages
from bob.data.shapes import load_shapes
from bob.data.sources import load_dataset
from bob.pick.pool import Pool, some_of
from bob.task_cards import DataSpec


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """320 images, of which 60% + 15% are learnt from: 120 of one class, 60 of each of two others."""
    for name, count in (("ant", 160), ("bee", 80), ("cat", 80)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (4, 4), (number, len(name), ord(name[0]))).save(tmp_path / name / f"{number:03d}.png")
    return load_dataset(DataSpec(source=f"folder:{tmp_path}"))


def test_levels_are_nested_and_stratified(dataset: Dataset) -> None:
    pool = Pool(dataset, seed=0)
    assert len(pool) == 240
    assert pool.sizes == [320, 80]
    small = pool.labels[pool.rows(1)]
    assert np.bincount(small).tolist() == [40, 20, 20]
    assert set(pool.rows(1)) < set(pool.rows(0))


def test_no_test_image_is_learnt_from(dataset: Dataset) -> None:
    names = [name for part in Pool(dataset, seed=0).parts for name in part.images.names]
    assert len(names) == 80
    assert not set(names) & set(dataset.splits["test"].names)


def test_the_seed_draws(dataset: Dataset) -> None:
    same = Pool(dataset, seed=3).levels
    assert np.array_equal(Pool(dataset, seed=3).levels, same)
    assert not np.array_equal(Pool(dataset, seed=4).levels, same)


def test_parts_hold_their_images(dataset: Dataset) -> None:
    pool = Pool(dataset, seed=0)
    for part in pool.parts:
        assert np.array_equal(part.images.labels, pool.labels[part.rows])
        assert part.images.names == [part.owner.names[i] for i in part.positions]
        assert part.images.read(3).equal(part.owner.read(int(part.positions[3])))


def test_a_large_class_shares_with_a_small_one(tmp_path: Path) -> None:
    images = FileImages(tmp_path, [f"{i}.png" for i in range(203)], np.array([0] * 200 + [1] * 3))
    from bob.data.base import Split

    dataset = Dataset(
        "d", ("a", "b"), {"train": Split(images, np.arange(200)), "val": Split(images, np.arange(200, 203))}
    )
    pool = Pool(dataset, seed=0)
    # A third of three is one, which would be alone when it is left out.
    assert np.bincount(pool.labels[pool.rows(1)]).tolist() == [67, 2]


def test_data_without_files(home: Path) -> None:
    dataset = load_shapes()
    pool = Pool(dataset, seed=0)
    assert pool.sizes == [1600, 340, 120]
    part = pool.parts[0]
    assert part.images.fingerprint() != part.owner.fingerprint()
    assert part.images.read(0).equal(part.owner.read(int(part.positions[0])))


def test_the_content_of_files_is_what_counts(dataset: Dataset) -> None:
    images = dataset.splits["train"].images
    before = some_of(images, np.array([1, 2])).fingerprint()
    assert some_of(images, np.array([2, 1])).fingerprint() != before
    assert isinstance(images, FileImages)
    Image.new("RGB", (4, 4), (9, 9, 9)).save(images.root / images.names[2])
    assert some_of(images, np.array([1, 2])).fingerprint() != before
