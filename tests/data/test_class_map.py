"""Classes of other sets find the task's by name, folder, position, file or ObjectNet's mappings; others are named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bob.data.base import Split
from bob.data.class_map import OwnClasses, match_classes
from bob.errors import UserError

OWN = ("tench, Tinca tinca", "goldfish", "great white shark")


@pytest.fixture
def own(memory_images) -> OwnClasses:
    """Three classes whose images lie in folders called by WordNet's ids."""
    images = memory_images(6)
    images.labels = np.array([0, 0, 1, 1, 2, 2])
    images.names = [f"train/n0000000{label}/{i}.jpg" for i, label in enumerate(images.labels)]
    return OwnClasses(OWN, Split(images, np.arange(6)))


def test_by_name_and_by_folder(own, tmp_path) -> None:
    assert match_classes("", ["great white shark", "goldfish"], own, tmp_path, "s") == [(2,), (1,)]
    assert match_classes("", ["n00000002", "n00000000"], own, tmp_path, "s") == [(2,), (0,)]


def test_folders_that_hold_several_classes_are_no_names(memory_images) -> None:
    images = memory_images(4)
    images.names = [f"train/{i}.jpg" for i in range(4)]
    assert OwnClasses(("a", "b"), Split(images, np.arange(4))).find("train") is None


def test_index(own, tmp_path) -> None:
    assert match_classes("index", ["0", "2"], own, tmp_path, "s") == [(0,), (2,)]


def test_a_file(own, tmp_path) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"fish": ["goldfish", "n00000000"], "shark": 2, "car": []}))
    assert match_classes("map.json", ["shark", "fish", "car"], own, tmp_path, "s") == [(2,), (0, 1), ()]


@pytest.mark.parametrize(
    ("given", "classes", "said"),
    [
        ("", ["goldfish", "gold fish", "tench"], "without a counterpart in the task: gold fish, tench. Did you mean"),
        ("", ["x1", "x2", "x3", "x4", "x5", "x6", "x7"], "x1, x2, x3, x4, x5 and 2 more. Give the set a class_map"),
        ("", ["goldfish"], "fewer than two"),
        ("index", ["0", "3"], "counterpart in the task: 3. With class_map = 'index' they are called 0 to 2"),
        ("index", ["0", "n1"], "n1"),
        ("focus", ["car", "dog"], "FOCUS says, but the task has 3 classes"),
        ("nowhere.json", ["a"], "Cannot read the class map"),
        ({"a": "goldfish", "b": "n00000009"}, ["a", "b"], "maps 'b' to 'n00000009', which is no class of the task"),
        ({"a": 3}, ["a"], "maps 'a' to '3'"),
        ({"a": 1.5}, ["a"], "maps 'a' to 1.5"),
        ({"a": "goldfish"}, ["a", "b"], "counterpart in the task: b. Add them to"),
        ({"a": 0, "b": 1, "c": 2}, ["a", "b"], "maps the class 'c', which the set 's' does not have"),
        ({"a": [0, 1], "b": [1, 2]}, ["a", "b"], "'a' and 'b' both stand for 'goldfish'"),
        (["a"], ["a"], "is no class map"),
        ("{", ["a"], "is no JSON"),
    ],
)
def test_what_does_not_match_is_named(given, classes, said, own, tmp_path) -> None:
    if not isinstance(given, str) or given == "{":
        (tmp_path / "map.json").write_text(given if given == "{" else json.dumps(given))
        given = "map.json"
    with pytest.raises(UserError) as caught:
        match_classes(given, classes, own, tmp_path, "s")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def imagenet(memory_images) -> OwnClasses:
    return OwnClasses([f"c{i}" for i in range(1000)], Split(memory_images(2), np.arange(2)))


@pytest.fixture
def mappings(tmp_path):
    """ObjectNet's four files: ImageNet's own order is the reverse of the labels'."""
    folder = tmp_path / "mappings"
    folder.mkdir()
    words = [f"word {999 - i}, other" for i in range(1000)]
    (folder / "imagenet_to_label_2012_v2").write_text("\n".join(words) + "\n")
    (folder / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps({str(i): 999 - i for i in range(1000)}))
    labels = {"air_freshener": "Air freshener", "alarm_clock": "Alarm clock", "backpack": "Backpack"}
    (folder / "folder_to_objectnet_label.json").write_text(json.dumps(labels))
    shown = {"Alarm clock": "word 530, other; word 409, other", "Backpack": "word 414, other"}
    (folder / "objectnet_to_imagenet_1k.json").write_text(json.dumps(shown))
    return folder


def test_objectnet(imagenet, mappings, tmp_path) -> None:
    found = match_classes("mappings", ["air_freshener", "alarm_clock", "backpack"], imagenet, tmp_path, "o")
    assert found == [(), (409, 530), (414,)]


def test_objectnet_that_is_not_whole(imagenet, mappings, tmp_path, own) -> None:
    with pytest.raises(UserError, match=r"counterpart in the task: teapot\."):
        match_classes("mappings", ["alarm_clock", "teapot"], imagenet, tmp_path, "o")
    with pytest.raises(UserError, match="ObjectNet says, but the task has 3 classes"):
        match_classes("mappings", ["alarm_clock"], own, tmp_path, "o")
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps({"Backpack": "word 1000"}))
    with pytest.raises(UserError, match="'word 1000', which is no class of ImageNet"):
        match_classes("mappings", ["backpack"], imagenet, tmp_path, "o")
    (mappings / "imagenet_to_label_2012_v2").unlink()
    with pytest.raises(UserError, match=r"There is no .*imagenet_to_label_2012_v2"):
        match_classes("mappings", ["backpack"], imagenet, tmp_path, "o")


def test_focus(imagenet, tmp_path) -> None:
    truck, bird, dog = match_classes("focus", ["truck", "bird", "dog"], imagenet, tmp_path, "f")
    assert truck[:2] == (407, 555) and 17 in bird and 97 in bird and len(dog) == 121
    with pytest.raises(UserError, match="counterpart in the task: tractor"):
        match_classes("focus", ["car", "tractor"], imagenet, tmp_path, "f")
