"""A test split made of several sets."""

import numpy as np
import pytest

from bob.data.base import Split
from bob.data.other_sets import CLEAN, PartedDataset, Relabelled, with_parts
from bob.data.shapes import load_shapes


def _parted(shared: bool = False) -> PartedDataset:
    dataset = load_shapes()
    if shared:  # as a folder that train and test are cut from
        images = dataset.splits["train"].images
        own = {"train": np.arange(10), "val": np.arange(10, 15), "test": np.arange(20, 40)}
        dataset = type(dataset)("s", dataset.classes, {name: Split(images, rows) for name, rows in own.items()})
    other = load_shapes(seed=1).splits["val"]
    half = Split(Relabelled(other.images, np.zeros(len(other), dtype=np.int64)), np.arange(100, 200))
    return with_parts(dataset, [("all", other, {}), ("half", half, {"near": True})])


def test_own_images_come_first() -> None:
    dataset = _parted()
    assert [(part.name, len(part)) for part in dataset.parts] == [(CLEAN, 600), ("all", 200), ("half", 100)]
    test = dataset.splits["test"]
    assert len(test) == 900
    own, other = load_shapes().splits["test"], load_shapes(seed=1).splits["val"]
    assert test.names[:600] == own.names
    rows = dataset.parts[2].rows
    assert test.names[rows] == other.names[100:]
    assert not test.labels[rows].any()
    assert np.array_equal(test.labels[dataset.parts[1].rows], other.labels)
    position = int(test.indices[rows.start])
    assert np.array_equal(test.images.read(position), other.images.read(100))


def test_sets_are_stored_apart_and_once() -> None:
    prints = {images.fingerprint() for images in _parted().image_sets()}
    alone = {images.fingerprint() for images in load_shapes().image_sets()}
    assert alone < prints
    assert len(prints) == len(alone) + 1  # the relabelled set has the other's images


def test_identity_names_the_sets() -> None:
    assert _parted().identity()["sets"][2] == {"name": "half", "n": 100, "near": True}


def test_sealed() -> None:
    sealed = _parted().sealed()
    with pytest.raises(RuntimeError, match="sealed"):
        _ = sealed.splits["test"].labels
    assert isinstance(sealed, PartedDataset)
    assert len(sealed.splits["train"].labels) == 800


def test_sealed_in_a_set_shared_with_train() -> None:
    dataset = _parted(shared=True)
    sealed = dataset.sealed()
    assert np.array_equal(sealed.splits["train"].labels, dataset.splits["train"].labels)
    assert not set(sealed.splits["train"].images.labels[20:40]) & set(range(10))
