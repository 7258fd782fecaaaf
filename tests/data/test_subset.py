"""Train is cut down to the images that a list names, and to no others."""

from __future__ import annotations

import hashlib

import pytest

from bob.data.sources import load_dataset
from bob.errors import UserError
from bob.task_cards import DataSpec


@pytest.fixture
def load(tmp_path, write_images):
    """Open a folder of 2 x 5 training images, cut down to the given lines."""

    def make(*lines: str, **keys):
        write_images(
            tmp_path / "set", *(f"{s}/{c}/{c}_{n}.png" for s in ("train", "test") for c in "ab" for n in range(5))
        )
        (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
        return load_dataset(DataSpec(source="folder:set", subset=keys.pop("subset", "list.txt"), **keys), tmp_path)

    return make


def test_by_name_and_by_its_end(load) -> None:
    dataset = load("train/a/a_3.png", "b/b_0.png", "", "a_1.png", "b_4.png", val_fraction=0.5)
    names = sorted(dataset.splits["train"].names + dataset.splits["val"].names)
    assert names == ["train/a/a_1.png", "train/a/a_3.png", "train/b/b_0.png", "train/b/b_4.png"]
    assert len(dataset.splits["test"]) == 10
    assert "train: 4 images of a list" in str(dataset.facts["splits"])


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["a_0.png", "_1.png"], "line 2: '_1.png' names no training image"),
        (["test/a/a_0.png"], "line 1: 'test/a/a_0.png' names no training image"),
        (["a_0.png", "train/a/a_0.png"], "line 2: 'train/a/a_0.png' is on line 1 already"),
        ([""], "is empty"),
    ],
)
def test_lines_that_are_wrong(load, lines, problem) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        load(*lines)
    assert "list.txt" in str(caught.value)


def test_a_name_of_several_images(tmp_path, write_images) -> None:
    write_images(tmp_path / "set", *(f"{c}/{n}.png" for c in "ab" for n in range(5)))
    (tmp_path / "list.txt").write_text("0.png\n")
    with pytest.raises(UserError, match="names 2 training images"):
        load_dataset(DataSpec(source="folder:set", subset="list.txt"), tmp_path)


def test_the_checksum(load) -> None:
    lines = ("a_0.png", "a_1.png", "b_0.png", "b_1.png")
    right = hashlib.sha256(("\n".join(lines) + "\n").encode()).hexdigest()
    assert len(load(*lines, subset_sha256=right).splits["train"]) == 2
    with pytest.raises(UserError, match="its SHA-256 differs"):
        load(*lines, subset_sha256="0" * 64)


def test_a_list_that_cannot_be_had(load, bob_home, no_network) -> None:
    with pytest.raises(UserError, match=r"Cannot read the list .*nowhere.txt: No such file"):
        load(subset="nowhere.txt")
    with pytest.raises(UserError, match="not at an https address"):
        load(subset="http://example.org/list.txt")
    with pytest.raises(UserError, match=r"list.txt cannot be downloaded .*Put it at") as caught:
        load(subset="https://example.org/list.txt")
    path = str(caught.value).partition("Put it at ")[2].partition(" yourself")[0]
    (bob_home / "lists").mkdir(exist_ok=True)
    with open(path, "w") as file:
        file.write("a_0.png\na_1.png\nb_0.png\nb_1.png\n")
    assert len(load(subset="https://example.org/list.txt").splits["train"]) == 2
