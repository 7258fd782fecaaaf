"""Whatever splits a source has, a task gets train, val and test, and the record says where they came from."""

from __future__ import annotations

import numpy as np
import pytest

from bob.cards import DataSpec
from bob.data import orl_faces, shapes, sources
from bob.data.base import Dataset, Split
from bob.data.sources import load_dataset
from bob.errors import UserError


@pytest.fixture
def load(tmp_path, write_images):
    """Open a folder made of the given splits (`all` for class folders alone), ten images of two classes in each."""

    def make(*splits: str, **options) -> Dataset:
        for split in splits:
            folder = "" if split == "all" else f"{split}/"
            write_images(tmp_path, *(f"{folder}{name}/{number:02d}.png" for name in "ab" for number in range(10)))
        return load_dataset(DataSpec(source=f"folder:{tmp_path}", **options))

    return make


def sizes(dataset: Dataset) -> dict[str, int]:
    return {name: len(split) for name, split in dataset.splits.items()}


def folders(split: Split) -> set[str]:
    return {name.split("/")[0] for name in split.names}


def assert_disjoint(dataset: Dataset) -> None:
    names = [name for split in dataset.splits.values() for name in split.names]
    assert len(names) == len(set(names))


def test_train_val_test_stay_as_they_are(load) -> None:
    dataset = load("train", "val", "test")
    assert sizes(dataset) == {"train": 20, "val": 20, "test": 20}
    assert {name: folders(split) for name, split in dataset.splits.items()} == {
        n: {n} for n in ("train", "val", "test")
    }
    assert dataset.facts["splits"] == "test: the source's own; train: the source's own; val: the source's own"
    assert len(dataset.image_sets()) == 3


def test_val_is_cut_from_train_where_there_is_none(load) -> None:
    dataset = load("train", "test")
    assert sizes(dataset) == {"train": 16, "val": 4, "test": 20}
    assert folders(dataset.splits["val"]) == {"train"}
    assert np.bincount(dataset.splits["val"].labels).tolist() == [2, 2]
    assert dataset.facts["splits"] == "test: the source's own; train: the source's own; val: 20% of train, stratified"
    assert_disjoint(dataset)


def test_val_becomes_test_where_there_is_no_test(load) -> None:
    dataset = load("train", "valid")
    assert sizes(dataset) == {"train": 16, "val": 4, "test": 20}
    assert folders(dataset.splits["test"]) == {"valid"}
    assert folders(dataset.splits["val"]) == {"train"}
    assert dataset.facts["splits"] == "train: the source's own; test: the source's val; val: 20% of train, stratified"
    assert_disjoint(dataset)


def test_both_are_cut_from_a_lone_train(load) -> None:
    dataset = load("train", test_fraction=0.5, val_fraction=0.4)
    assert sizes(dataset) == {"train": 6, "val": 4, "test": 10}
    expected = "train: the source's own; test: 50% of train, stratified; val: 40% of the rest, stratified"
    assert dataset.facts["splits"] == expected
    assert_disjoint(dataset)


def test_both_are_cut_from_class_folders(load) -> None:
    dataset = load("all", test_fraction=0.3, val_fraction=0.2)
    assert sizes(dataset) == {"train": 12, "val": 2, "test": 6}
    assert dataset.facts["splits"] == "test: 30% of all images, stratified; val: 20% of the rest, stratified"
    assert len(dataset.image_sets()) == 1
    assert_disjoint(dataset)


def test_the_cut_belongs_to_the_seed(load) -> None:
    first, again, other = load("all"), load("all"), load("all", split_seed=1)
    for name in ("train", "val", "test"):
        assert first.splits[name].checksum() == again.splits[name].checksum()
        assert first.splits[name].checksum() != other.splits[name].checksum()
    assert (first.facts["split_seed"], other.facts["split_seed"]) == (0, 1)


def test_a_checksum_covers_positions_and_labels(memory_images) -> None:
    images = memory_images(6)
    split = Split(images, np.array([0, 2, 4]))
    first = split.checksum()
    assert split.names == ["memory/0", "memory/2", "memory/4"]
    assert Split(images, np.array([0, 2, 4], dtype=np.int32)).checksum() == first
    assert Split(images, np.array([2, 0, 4])).checksum() != first
    images.labels = 1 - images.labels
    assert split.checksum() != first


@pytest.mark.parametrize("splits", [("val", "test"), ("val",), ("test",)])
def test_no_train(load, splits) -> None:
    with pytest.raises(UserError, match="no train split, only") as caught:
        load(*splits)
    for split in splits:
        assert split in str(caught.value)


def test_a_class_too_small_to_cut(load, tmp_path, write_images) -> None:
    write_images(tmp_path, "rare/1.png")
    with pytest.raises(UserError, match="Class 'rare' has only 1 image"):
        load("all")
    write_images(tmp_path, "rare/2.png")  # one for test leaves one for train and val
    with pytest.raises(UserError, match="Class 'rare' has only 1 image"):
        load("all")
    write_images(tmp_path, "rare/3.png")
    assert sizes(load("all")) == {"train": 13, "val": 5, "test": 5}


def test_an_empty_split(load, memory_images, monkeypatch) -> None:
    pools = {"train": memory_images(8), "test": memory_images(0)}
    monkeypatch.setattr(sources, "_open", lambda source, root: (("a", "b"), pools))
    with pytest.raises(UserError, match="The split 'test' of folder:x is empty"):
        load_dataset(DataSpec(source="folder:x"))


@pytest.mark.parametrize(
    ("source", "hint"),
    [("shape", "shapes"), ("orl_face", "orl_faces"), ("torchvison:MNIST", "torchvision:"), ("x", "Use one of")],
)
def test_an_unknown_source(source, hint) -> None:
    with pytest.raises(UserError, match=f"Unknown data source '{source}'.*{hint}"):
        load_dataset(DataSpec(source=source))


def test_built_in_sources(monkeypatch, memory_images) -> None:
    made = Dataset("shapes", ("a", "b"), {})
    monkeypatch.setattr(shapes, "load_shapes", lambda: made)
    assert load_dataset(DataSpec(source="shapes")) is made
    pools = {name: memory_images(4) for name in ("train", "val", "test")}
    monkeypatch.setattr(orl_faces, "load_orl_faces", lambda: (("a", "b"), pools))
    assert load_dataset(DataSpec(source="orl_faces")).splits["val"].images is pools["val"]
