"""Every layout of a folder of images is read alike, and what is ambiguous or wrong is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bob.data.folder import load_folder
from bob.data.sources import load_dataset
from bob.errors import UserError
from bob.task_cards import DataSpec


def listed(path: Path) -> dict[str, dict[str, str]]:
    """What is read: split -> path -> class."""
    classes, pools = load_folder(path)
    return {
        split: {name: classes[label] for name, label in zip(images.names, images.labels, strict=True)}
        for split, images in pools.items()
    }


def refused(path: Path) -> str:
    """The one line with which a path is refused."""
    with pytest.raises(UserError) as caught:
        load_folder(path)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


# Class folders


def test_class_folders(tmp_path, write_images) -> None:
    write_images(tmp_path, "dog/b.png", "cat/2.png", "cat/10.JPG", "dog/deep/er/a.jpeg")
    assert listed(tmp_path) == {
        "all": {"cat/10.JPG": "cat", "cat/2.png": "cat", "dog/b.png": "dog", "dog/deep/er/a.jpeg": "dog"}
    }
    classes, pools = load_folder(tmp_path)
    assert classes == ("cat", "dog")
    assert pools["all"].labels.dtype == np.int64
    assert list(pools["all"].names) == ["cat/10.JPG", "cat/2.png", "dog/b.png", "dog/deep/er/a.jpeg"]
    assert pools["all"].read(0).shape == (3, 6, 8)


def test_hidden_things_and_other_files_are_no_images(tmp_path, write_images) -> None:
    write_images(tmp_path, "cat/1.png", "dog/2.png", "cat/._1.png", "cat/.thumbs/3.png", ".git/4.png", "5.png")
    for other in ("cat/Thumbs.db", "cat/notes.txt", "dog/.DS_Store", "labels.csv", "dog/noending"):
        (tmp_path / other).write_text("x")
    assert listed(tmp_path) == {"all": {"cat/1.png": "cat", "dog/2.png": "dog"}}


def test_spaces_and_other_alphabets(tmp_path, write_images, bob_home) -> None:
    root = write_images(tmp_path / "my photos – été", "größe 1/ä b.png", "猫/一.png", "猫/🐈 2.png")
    assert listed(root)["all"] == {"größe 1/ä b.png": "größe 1", "猫/一.png": "猫", "猫/🐈 2.png": "猫"}
    images = load_folder(root)[1]["all"]
    assert len(images.fingerprint()) == 64
    assert images.read(2).shape == (3, 6, 8)


@pytest.mark.parametrize("name", [b"cat/\xe9.png", b"caf\xe9/1.png"])
def test_a_name_that_is_not_utf8_is_refused(tmp_path, write_images, name) -> None:
    write_images(tmp_path, "cat/1.png", "dog/2.png")
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(os.fsdecode(path)).write_bytes((tmp_path / "cat/1.png").read_bytes())
    message = refused(tmp_path)
    assert "not UTF-8" in message
    message.encode()  # can be printed


def test_links_to_images_and_folders(tmp_path, write_images) -> None:
    elsewhere = write_images(tmp_path / "elsewhere", "1.png", "deep/2.png", "many/3.png")
    root = write_images(tmp_path / "root", "cat/0.png")
    (root / "cat/1.png").symlink_to(elsewhere / "1.png")
    (root / "cat/more").symlink_to(elsewhere / "many")
    (root / "dog").symlink_to(elsewhere / "deep")
    assert listed(root)["all"] == {
        "cat/0.png": "cat",
        "cat/1.png": "cat",
        "cat/more/3.png": "cat",
        "dog/2.png": "dog",
    }


def test_a_link_to_a_folder_above_is_not_followed_round(tmp_path, write_images) -> None:
    write_images(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "cat/again").symlink_to(tmp_path / "cat")
    (tmp_path / "dog/up").symlink_to(tmp_path / "dog")
    assert listed(tmp_path)["all"] == {"cat/1.png": "cat", "dog/2.png": "dog"}


def test_a_broken_link_is_not_silently_left_out(tmp_path, write_images, bob_home) -> None:
    write_images(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "dog/3.png").symlink_to(tmp_path / "nowhere.png")
    images = load_folder(tmp_path)[1]["all"]
    with pytest.raises(UserError, match=r"dog/3\.png"):
        images.fingerprint()


def test_home_and_relative_paths(tmp_path, write_images, monkeypatch) -> None:
    write_images(tmp_path / "photos", "cat/1.png", "dog/2.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert listed(Path("~/photos")) == listed(Path("photos")) == listed(tmp_path / "photos")
    images = load_folder(Path("photos"))[1]["all"]
    monkeypatch.chdir("/")
    assert images.read(0).shape == (3, 6, 8)


def test_no_folder(tmp_path, write_images) -> None:
    assert f"no folder {tmp_path / 'nowhere'}" in refused(tmp_path / "nowhere")
    write_images(tmp_path, "1.png")
    assert "1.png" in refused(tmp_path / "1.png")


def test_no_classes(tmp_path, write_images) -> None:
    assert f"{tmp_path} has no class folders" in refused(tmp_path)
    write_images(tmp_path, "1.png", "2.png")
    assert f"{tmp_path} has no class folders" in refused(tmp_path)


@pytest.mark.parametrize("content", [None, "notes.txt", ".hidden.png", ".hidden/1.png"])
def test_an_empty_class_is_named(tmp_path, write_images, content) -> None:
    write_images(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "eel").mkdir()
    if content:
        (tmp_path / "eel" / content).parent.mkdir(exist_ok=True)
        (tmp_path / "eel" / content).write_bytes(b"x")
    assert f"The class folder {tmp_path / 'eel'} has no images" in refused(tmp_path)


def test_one_class_is_refused_by_the_source(tmp_path, write_images) -> None:
    write_images(tmp_path, "cat/1.png", "cat/2.png")
    with pytest.raises(UserError, match="has only one class, 'cat'"):
        load_dataset(DataSpec(source=f"folder:{tmp_path}"))


def test_a_folder_that_cannot_be_listed(tmp_path, write_images, monkeypatch) -> None:
    write_images(tmp_path, "cat/1.png", "cat/locked/2.png", "dog/3.png")
    locked = [str(tmp_path / "cat/locked")]
    scandir, iterdir = os.scandir, Path.iterdir

    def guarded(real):
        def list_it(path):
            if str(path) in locked:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        return list_it

    monkeypatch.setattr(os, "scandir", guarded(scandir))
    monkeypatch.setattr(Path, "iterdir", guarded(iterdir))
    assert f"Cannot list {tmp_path / 'cat/locked'}: Permission denied" in refused(tmp_path)
    locked[0] = str(tmp_path)
    assert f"Cannot list {tmp_path}: Permission denied" in refused(tmp_path)


# Splits of class folders


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "Testing")])
def test_split_folders(tmp_path, write_images, train, val, test) -> None:
    write_images(tmp_path, *(f"{split}/{name}/1.png" for split in (train, val, test) for name in ("dog", "cat")))
    assert listed(tmp_path) == {
        "train": {f"{train}/cat/1.png": "cat", f"{train}/dog/1.png": "dog"},
        "val": {f"{val}/cat/1.png": "cat", f"{val}/dog/1.png": "dog"},
        "test": {f"{test}/cat/1.png": "cat", f"{test}/dog/1.png": "dog"},
    }


def test_two_folders_for_one_split(tmp_path, write_images) -> None:
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png")
    assert "two folders for the split 'val'" in refused(tmp_path)


def test_splits_beside_other_folders_are_no_classes(tmp_path, write_images) -> None:
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "extra/a/1.png")
    message = refused(tmp_path)
    assert "'extra'" in message
    assert "split folders" in message


def test_one_class_may_have_the_name_of_a_split(tmp_path, write_images) -> None:
    write_images(tmp_path, "bus/1.png", "train/2.png")
    assert listed(tmp_path) == {"all": {"bus/1.png": "bus", "train/2.png": "train"}}


def test_a_split_without_class_folders(tmp_path, write_images) -> None:
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png")
    assert f"{tmp_path / 'test'} has no class folders" in refused(tmp_path)


def test_an_empty_class_of_one_split_is_named(tmp_path, write_images) -> None:
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png")
    (tmp_path / "test/b").mkdir()
    assert f"The class folder {tmp_path / 'test/b'} has no images" in refused(tmp_path)


def test_test_may_lack_a_class_of_train(tmp_path, write_images) -> None:
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "test/a/2.png", "test/c/2.png")
    assert listed(tmp_path)["test"] == {"test/a/2.png": "a", "test/c/2.png": "c"}


def test_test_may_have_no_class_that_train_lacks(tmp_path, write_images) -> None:
    paths = [f"train/{name}/{number}.png" for name in "ab" for number in range(3)]
    write_images(tmp_path, *paths, "test/a/1.png", "test/zebra/1.png")
    with pytest.raises(UserError, match=r"Class 'zebra' is in the split 'test' .* but not in train"):
        load_dataset(DataSpec(source=f"folder:{tmp_path}"))


# Manifests


@pytest.fixture
def manifest(tmp_path, write_images):
    """Write a CSV beside three images."""
    write_images(tmp_path, "1.png", "2.png", "sub dir/3, or ä.png")

    def write(text: str, name: str = "photos.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_manifest(manifest) -> None:
    path = manifest('path,label\n1.png,dog\n2.png,cat\n"sub dir/3, or ä.png",dog\n')
    assert listed(path) == {"all": {"1.png": "dog", "2.png": "cat", "sub dir/3, or ä.png": "dog"}}
    assert load_folder(path)[0] == ("cat", "dog")
    assert load_folder(path)[1]["all"].read(2).shape == (3, 6, 8)


def test_manifest_with_splits_and_other_columns(manifest) -> None:
    path = manifest("split,who,label,path\nTrain,me,dog,1.png\nvalid,you,cat,2.png\ntest ,,dog,sub dir/../1.png\n")
    with pytest.raises(UserError, match=r"line 4: .* is on line 2 already"):
        load_folder(path)
    path = manifest("split,who,label,path\nTrain,me,dog,1.png\nvalid,you,cat,2.png\n")
    assert listed(path) == {"train": {"1.png": "dog"}, "val": {"2.png": "cat"}}


def test_manifest_in_a_folder(manifest, tmp_path) -> None:
    manifest("path,label\n1.png,dog\n2.png,cat\n", name="manifest.csv")
    assert listed(tmp_path) == {"all": {"1.png": "dog", "2.png": "cat"}}


@pytest.mark.parametrize(
    "text",
    [
        "path,label\r\n1.png,dog\r\n2.png,cat\r\n",
        "\ufeffpath,label\n1.png,dog\n2.png,cat\n",
        "path,label\n\n1.png,dog\n\n2.png,cat\n\n\n",
        "path, label\n1.png, dog\n2.png ,cat \n",
        "path,label,split\n1.png,dog,\n2.png,cat,\n",
        '"path","label"\n"1.png","dog"\n"2.png","cat"',
    ],
)
def test_manifest_variants(manifest, text) -> None:
    assert listed(manifest(text)) == {"all": {"1.png": "dog", "2.png": "cat"}}


def test_manifest_labels_are_text(manifest) -> None:
    assert load_folder(manifest("path,label\n1.png,007\n2.png,NA\n"))[0] == ("007", "NA")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Cannot read"),
        ("path,label\n", "has no rows"),
        ("path,label\n\n\n", "has no rows"),
        ("file,label\n1.png,dog\n", "has no column 'path'"),
        ("path,class\n1.png,dog\n", "has no column 'label'"),
        ("path;label\n1.png;dog\n", "has no column 'path'"),
        ("path,label\n1.png,dog\nnowhere.png,cat\n", "line 3: there is no file"),
        ("path,label\n\n\n1.png,dog\nnowhere.png,cat\n", "line 5: there is no file"),
        ("path,label\n,dog\n", "line 2: there is no file"),
        ("path,label\nsub dir,dog\n", "line 2: there is no file"),
        ("path,label\n1.png,dog\n2.png\n", "line 3: 2.png has no label"),
        ("path,label\n1.png,dog\n2.png, \n", "line 3: 2.png has no label"),
        ("path,label\n1.png,dog\n2.png,cat\n1.png,dog\n", "line 4: 1.png is on line 2 already"),
        ("path,label\n1.png,dog\n./1.png,cat\n", "line 3: ./1.png is on line 2 already"),
        ("path,label,split\n1.png,dog,train\n2.png,cat,dev\n", "line 3: unknown split 'dev'"),
        ("path,label,split\n1.png,dog,train\n2.png,cat\n", "line 3: unknown split ''"),
        ("path,label\n1.png,dog\nsub dir/3, or ä.png,dog\n", "Expected 2 fields in line 3, saw 3"),
        ("path,label\nsub dir/3, or ä.png,dog\n", "more values in a line than columns"),
    ],
)
def test_manifest_mistakes_are_told_with_their_line(manifest, text, expected) -> None:
    path = manifest(text)
    message = refused(path)
    assert expected in message
    assert str(path) in message


def test_manifest_that_cannot_be_read(manifest, tmp_path) -> None:
    assert "There is no file" in refused(tmp_path / "nowhere.csv")
    assert "can't decode" in refused(manifest("path,label\n1.png,été\n", encoding="latin-1"))
    (tmp_path / "folder.csv").mkdir()
    assert "Is a directory" in refused(tmp_path / "folder.csv")
