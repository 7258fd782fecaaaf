"""The scenes as files say exactly what the scenes are, are made again when damaged, and are read like any data."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from bob.data import scene_files, scenes
from bob.data.coco import load_coco
from bob.data.scene_files import MASK_CLASSES, export_scenes, load_shapes_detection
from bob.data.scenes import CLASSES, load_scenes
from bob.data.voc import load_voc
from bob.errors import UserError
from bob.task_cards import DataSpec

SPEC = DataSpec(source="shapes_detection")


@pytest.fixture
def few(bob_home, monkeypatch):
    """Five scenes instead of 700."""
    monkeypatch.setattr(scenes, "SPLITS", {"train": 2, "val": 1, "test": 2})
    return load_scenes()


def test_as_the_scenes_are(few) -> None:
    classes, pools = load_shapes_detection(SPEC)
    assert classes == CLASSES
    assert {split: len(pool) for split, pool in pools.items()} == {"train": 2, "val": 1, "test": 2}
    for split, images in pools.items():
        assert images.names[0] == f"{split}/00000.png"
        for index in range(len(images)):
            rows, target = few[split].objects_of(index), images.target(index)
            assert np.array_equal(images.read(index), few[split].read(index))
            assert np.array_equal(target.boxes, rows[["x0", "y0", "x1", "y1"]])
            assert [classes[label] for label in target.labels] == rows["class"].tolist()
            assert np.array_equal(target.areas, rows["visible_area"])
            numbers = rows["instance"].to_numpy()[:, None, None]
            assert np.array_equal(target.masks(), few[split].instances[index] == numbers)
    ids = np.concatenate([pool.image_ids for pool in pools.values()])
    objects = [number for pool in pools.values() for i in range(len(pool)) for number in pool.target(i).ids]
    assert len(set(ids.tolist())) == 5
    assert len(set(objects)) == len(objects)
    assert min(objects) == 1


def test_mask_files(few) -> None:
    folder = scene_files.scene_files()
    assert ("background", *CLASSES) == MASK_CLASSES
    with Image.open(folder / "masks/test/00001.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), few["test"].semantic(1))


def test_written_once_and_again_when_damaged(few) -> None:
    folder = scene_files.scene_files()
    victim = folder / "images/train/00001.png"
    good, made = victim.read_bytes(), os.stat(folder).st_ino
    assert scene_files.scene_files() == folder
    assert os.stat(folder).st_ino == made
    for damage in (lambda: victim.write_bytes(good[:-1]), victim.unlink, lambda: (folder / "more.txt").write_text("x")):
        damage()
        assert scene_files.scene_files() == folder
        assert victim.read_bytes() == good
        assert not (folder / "more.txt").exists()
    assert [path.name for path in folder.parent.glob("*scene_files*")] == [folder.name]  # nothing is left beside


def test_a_place_that_cannot_be_written(few, monkeypatch) -> None:
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scene_files, "_write_coco", full)
    with pytest.raises(UserError, match="No space left on device"):
        scene_files.scene_files()
    assert not list((scene_files.places.home() / "rendered").glob("*scene_files*"))


def test_export_coco(few, tmp_path) -> None:
    source = export_scenes("coco", tmp_path / "out")
    prefix, _, name = source.partition(":")
    assert prefix == "coco"
    classes, pools = load_coco(name, tmp_path / "elsewhere", DataSpec(source=source))
    built_in = load_shapes_detection(SPEC)[1]
    assert pools["test"].target(1).rles == built_in["test"].target(1).rles
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["annotations", "images"]
    document = json.loads((tmp_path / "out/annotations/val.json").read_text())
    assert [entry["name"] for entry in document["categories"]] == list(classes) == list(CLASSES)


def test_export_voc(few, tmp_path) -> None:
    classes, pools = load_voc(str(tmp_path / "out"), tmp_path, DataSpec(source=export_scenes("voc", tmp_path / "out")))
    built_in_classes, built_in = load_shapes_detection(SPEC)
    for split, images in pools.items():
        for index in range(len(images)):
            one, other = images.target(index), built_in[split].target(index)
            assert np.array_equal(one.boxes, other.boxes)
            assert [classes[label] for label in one.labels] == [built_in_classes[label] for label in other.labels]
            shift = images.read(index).float() - built_in[split].read(index).float()
            assert shift.abs().mean() < 4
    with Image.open(tmp_path / "out/SegmentationClass/test_00000.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[: 3 * 4] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        assert np.array_equal(np.asarray(image), few["test"].semantic(0))


def test_export_masks(few, tmp_path) -> None:
    source = export_scenes("masks", tmp_path / "out")
    assert source == f"masks:{tmp_path}/out/images/{{split}}:{tmp_path}/out/masks/{{split}}"
    assert (tmp_path / "out/classes.txt").read_text().split() == list(MASK_CLASSES)
    with Image.open(tmp_path / "out/masks/val/00000.png") as image:
        assert np.array_equal(np.asarray(image), few["val"].semantic(0))


def test_export_into_an_empty_folder(few, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    export_scenes("masks", tmp_path / "out")
    assert (tmp_path / "out/masks/train/00000.png").is_file()


def test_export_refused(few, tmp_path, monkeypatch) -> None:
    with pytest.raises(UserError, match="no format 'yolo'"):
        export_scenes("yolo", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        export_scenes("coco", tmp_path / "out")
    with pytest.raises(UserError, match="not empty"):
        export_scenes("coco", tmp_path / "out/mine.txt")
    with pytest.raises(UserError, match="Cannot write"):
        export_scenes("coco", tmp_path / "out/mine.txt/deeper")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
