"""Whatever splits a source has, a task gets train, val and test, and the record says where they came from."""

from __future__ import annotations

import numpy as np
import pytest

from bob.data import orl_faces, shapes, sources
from bob.data.base import Dataset, Split
from bob.data.sources import load_dataset, load_task
from bob.errors import UserError
from bob.task_cards import DataSpec, TaskCard


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
    monkeypatch.setattr(sources, "open_pools", lambda *arguments: (("a", "b"), pools))
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
    made = Dataset("shapes", ("a", "b"), {name: Split(memory_images(4), np.arange(4)) for name in ("train", "test")})
    monkeypatch.setattr(shapes, "load_shapes", lambda: made)
    assert load_dataset(DataSpec(source="shapes")) is made
    pools = {name: memory_images(4) for name in ("train", "val", "test")}
    monkeypatch.setattr(orl_faces, "load_orl_faces", lambda: (("a", "b"), pools))
    assert load_dataset(DataSpec(source="orl_faces")).splits["val"].images is pools["val"]


# What a card may say of the splits


def test_a_card_names_the_splits_of_the_source(load) -> None:
    dataset = load("train", "val", "test", splits={"train": "train+val", "test": "test"})
    assert sizes(dataset) == {"train": 32, "val": 8, "test": 20}
    assert folders(dataset.splits["train"]) == {"train", "val"}
    assert dataset.facts["splits"] == (
        "train: the source's train+val; test: the source's test; val: 20% of train, stratified"
    )
    assert_disjoint(dataset)


def test_joined_splits_read_their_own_images(load) -> None:
    joined = load("train", "val", "test", splits={"train": "train+val", "test": "test"}).splits["train"].images
    own = load("train", "val", "test").splits
    assert (joined.read(0) == own["train"].images.read(0)).all()
    assert (joined.read(20) == own["val"].images.read(0)).all()
    assert (joined.read(39) == own["val"].images.read(19)).all()
    assert joined.names[19:21] == [own["train"].names[19], own["val"].names[0]]
    assert len(joined.fingerprint()) == 64


def test_a_split_that_the_source_does_not_have(load) -> None:
    with pytest.raises(UserError, match=r"has no split 'tests', only .*Did you mean: test"):
        load("train", "test", splits={"train": "train", "test": "tests"})


def test_counts_of_each_class(load) -> None:
    dataset = load("all", train_count=6, val_count=2)
    assert sizes(dataset) == {"train": 8, "val": 4, "test": 8}
    assert dataset.class_counts()["train"].tolist() == [4, 4]
    assert (
        dataset.facts["splits"]
        == "train: 6 of each class of all images; test: the others; val: 2 of each class of these"
    )
    assert_disjoint(dataset)
    few = load("all", train_count=5, test_count=3)
    assert sizes(few) == {"train": 8, "val": 2, "test": 6}
    assert few.facts["splits"].startswith(
        "train: 5 of each class of all images; test: at most 3 of each class of the others of all images"
    )
    assert_disjoint(few)


def test_a_count_where_the_source_has_a_test(load) -> None:
    dataset = load("train", "test", train_count=5, val_count=1)
    assert sizes(dataset) == {"train": 8, "val": 2, "test": 20}
    assert sizes(load("train", "test", train_count=10))["test"] == 20


def test_counts_instead_of_fractions(load) -> None:
    assert sizes(load("all", test_count=4, val_count=1)) == {"train": 10, "val": 2, "test": 8}


def test_a_count_that_a_class_does_not_have(load) -> None:
    with pytest.raises(UserError, match="Class 'a' has only 10 images to cut a split from, not 11"):
        load("all", train_count=10)


def test_expected_numbers(load) -> None:
    assert sizes(load("train", "test", expect={"train": 16, "test": 20}, classes=2))
    with pytest.raises(UserError) as caught:
        load("train", "test", expect={"train": 17, "val": 4, "test": 21}, classes=3, layout="train/ and test/.")
    assert str(caught.value).count("\n") == 0
    for part in ("16 images in train instead of 17", "20 images in test instead of 21", "2 classes instead of 3"):
        assert part in str(caught.value)
    assert "images in val" not in str(caught.value)
    assert str(caught.value).endswith("Expected there: train/ and test/.")


def test_numbers_can_be_looked_at_without_the_check(tmp_path, load) -> None:
    load("train", "test")
    spec = DataSpec(source=f"folder:{tmp_path}", expect={"train": 1})
    assert len(load_dataset(spec, check=False).splits["train"]) == 16


def test_a_relative_folder_is_below_the_data_root(tmp_path, write_images) -> None:
    write_images(tmp_path / "root/pets", *(f"{name}/{n}.png" for name in "ab" for n in range(4)))
    spec = DataSpec(source="folder:pets", layout="CLASS/*.png, from somewhere.")
    assert len(load_dataset(spec, tmp_path / "root").splits["train"]) == 4
    with pytest.raises(UserError, match=r"no folder .*elsewhere/pets.*Expected there: CLASS/\*\.png, from somewhere\."):
        load_dataset(spec, tmp_path / "elsewhere")


def test_a_long_layout_is_not_in_the_line(tmp_path) -> None:
    spec = DataSpec(source="folder:pets", layout="CLASS/*.png. " * 30)
    with pytest.raises(UserError, match=r"no folder .*pets\..*`bob show TASK` says what is expected there") as caught:
        load_dataset(spec, tmp_path)
    assert len(str(caught.value)) < 400


# Tasks


def task(tmp_path, **keys) -> TaskCard:
    return TaskCard(**{"name": "t", "adapter": "classification", "data": {"source": f"folder:{tmp_path}"}, **keys})


def test_readable_class_names(load, tmp_path) -> None:
    load("all")
    assert load_task(task(tmp_path, class_names=["an ant", "a bee"])).classes == ("an ant", "a bee")
    assert load_task(task(tmp_path)).classes == ("a", "b")
    with pytest.raises(UserError, match=r"'t' has 3 class_names, but .* has 2 classes"):
        load_task(task(tmp_path, class_names=["x", "y", "z"]))
    with pytest.raises(UserError, match="'t' has 1000 class_names"):
        load_task(task(tmp_path, class_names="imagenet"))


def test_one_label_or_several(load, tmp_path) -> None:
    load("all")
    with pytest.raises(UserError, match=r'has one class for each image.*adapter = "classification"'):
        load_task(task(tmp_path, adapter="multilabel"))
    rows = [f"a/{n:02d}.png,{label}" for n, label in enumerate(["x", "x|y", "y", "", "x"] * 2)]
    (tmp_path / "manifest.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=r'has several labels for each image.*adapter = "multilabel"'):
        load_task(task(tmp_path))
    dataset = load_task(task(tmp_path, adapter="multilabel"))
    assert dataset.multilabel and dataset.classes == ("x", "y")
    assert sizes(dataset) == {"train": 5, "val": 2, "test": 3}
    assert dataset.facts["splits"] == "test: 25% of all images, at random; val: 20% of the rest, at random"
    assert_disjoint(dataset)
    with pytest.raises(UserError, match="cannot be cut by a count of each class"):
        load_task(task(tmp_path, adapter="multilabel", data={"source": f"folder:{tmp_path}", "val_count": 1}))


def test_a_label_without_a_training_image(tmp_path, write_images) -> None:
    write_images(tmp_path, *(f"{n}.png" for n in range(4)))
    rows = ["0.png,x,train", "1.png,,val", "2.png,x|y,test", "3.png,x,train"]
    (tmp_path / "m.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=r"Class 'y' is in the split 'test' of .* but not in train"):
        load_dataset(DataSpec(source=f"folder:{tmp_path}/m.csv"))


def test_a_class_that_train_lacks(tmp_path, write_images) -> None:
    write_images(tmp_path, *(f"train/{c}/{n}.png" for c in "ab" for n in range(4)), "test/a/5.png", "test/c/6.png")
    source = f"folder:{tmp_path}"
    with pytest.raises(UserError, match="Class 'c' is in the split 'test'"):
        load_dataset(DataSpec(source=source))
    for dataset in (
        load_dataset(DataSpec(source=source, unseen_classes=True)),
        load_dataset(DataSpec(source=source), check=False),
    ):
        assert dataset.class_counts()["train"].tolist() == [3, 3, 0]
        assert dataset.class_counts()["test"].tolist() == [1, 0, 1]
