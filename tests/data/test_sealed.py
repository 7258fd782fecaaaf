"""Sealed labels cannot be had by any way that an adapter has; everything else goes on working."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from bob.data.base import Dataset, Split
from bob.data.sealed import SEALED

INDICES = {"train": [0, 2, 4], "val": [1], "test": [3, 5]}


@pytest.fixture
def dataset(memory_images) -> Dataset:
    """Six images of two classes and two groups, all splits in one set."""
    images = memory_images(6)
    images.groups, images.group_names = np.array([0, 1, 1, 0, 0, 1]), ("g", "h")
    splits = {name: Split(images, np.array(indices)) for name, indices in INDICES.items()}
    return Dataset("x", ("a", "b"), splits, {"seed": 1}, ("g", "h"))


@pytest.mark.parametrize("what", ["labels", "groups"])
def test_sealed_labels_are_refused(dataset, what) -> None:
    test = dataset.sealed().splits["test"]
    for holder in (test, test.images):
        with pytest.raises(RuntimeError, match=f"The {what} of 'test' are sealed"):
            getattr(holder, what)
    with pytest.raises(RuntimeError, match="sealed"):
        test.checksum()


def test_everything_else_stays(dataset, memory_images) -> None:
    sealed = dataset.sealed()
    test, plain = sealed.splits["test"], dataset.splits["test"]
    assert len(test) == 2 and len(test.images) == 6
    assert test.indices.tolist() == [3, 5] and test.names == plain.names
    assert (test.images.read(3) == plain.images.read(3)).all()
    assert test.images.fingerprint() == plain.images.fingerprint()
    assert (sealed.classes, sealed.facts, sealed.groups) == (dataset.classes, dataset.facts, dataset.groups)
    assert list(sealed.splits) == list(dataset.splits)
    assert plain.labels.tolist() == [1, 1], "the data set itself is not sealed"


def test_other_splits_keep_their_labels_but_not_those_of_the_test(dataset) -> None:
    sealed = dataset.sealed()
    for name in ("train", "val"):
        split = sealed.splits[name]
        assert split.labels.tolist() == dataset.splits[name].labels.tolist()
        assert split.groups.tolist() == dataset.splits[name].groups.tolist()
        assert split.checksum() == dataset.splits[name].checksum()
        assert split.images.labels.tolist() == [0, 1, 0, SEALED, 0, SEALED]
        assert split.images.groups.tolist() == [0, 1, 1, SEALED, 0, SEALED]
    assert sealed.splits["train"].images is sealed.splits["val"].images
    assert dataset.splits["train"].images.labels.tolist() == [0, 1] * 3
    with pytest.raises(IndexError):
        np.eye(2)[sealed.splits["train"].images.labels]


def test_a_set_of_its_own_leaves_the_others_alone(memory_images) -> None:
    splits = {name: Split(memory_images(4), np.arange(4)) for name in INDICES}
    sealed = Dataset("x", ("a", "b"), splits).sealed()
    assert sealed.splits["train"].images is splits["train"].images
    assert sealed.splits["test"].images is not splits["test"].images


def test_several_labels_are_sealed_as_well(dataset) -> None:
    images = dataset.splits["train"].images
    images.labels = np.eye(6, dtype=np.int64)
    sealed = dataset.sealed()
    assert (sealed.splits["train"].images.labels[[3, 5]] == SEALED).all()
    with pytest.raises(RuntimeError, match="sealed"):
        _ = sealed.splits["test"].labels


def test_a_sealed_split_goes_to_worker_processes(dataset) -> None:
    images = pickle.loads(pickle.dumps(dataset.sealed().splits["test"].images))
    assert images.read(1).shape == dataset.splits["test"].images.read(1).shape


def test_another_split_can_be_sealed(dataset) -> None:
    with pytest.raises(RuntimeError, match="'val' are sealed"):
        _ = dataset.sealed("val").splits["val"].labels


def test_groups_have_a_checksum_of_their_own(dataset, memory_images) -> None:
    split = dataset.splits["train"]
    before, groups = split.checksum(), split.groups_checksum()
    split.images.groups = 1 - split.images.groups
    assert split.checksum() == before and split.groups_checksum() != groups
    assert Split(memory_images(2), np.arange(2)).groups_checksum() is None


def test_what_is_where_is_sealed(dataset) -> None:
    images = dataset.splits["train"].images
    images.target = lambda index: np.full((2, 2), index)
    images.size = lambda index: (2, 2)
    images.image_ids = np.arange(6)
    sealed = dataset.sealed()
    for position in range(2):
        with pytest.raises(RuntimeError, match="The annotations of 'test' are sealed"):
            sealed.splits["test"].target(position)
    with pytest.raises(RuntimeError, match="The annotations of 'test' are sealed"):
        sealed.splits["train"].images.target(3)
    assert sealed.splits["train"].target(1)[0, 0] == 2 and sealed.splits["test"].images.size(3) == (2, 2)
    assert sealed.splits["test"].images.image_ids.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(AttributeError):
        sealed.splits["test"].images.objects  # noqa: B018
