"""COCO's panoptic PNGs as class maps: a case by hand, and everything that may be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from bob.data.objects import IGNORE
from bob.data.panoptic import load_panoptic
from bob.errors import UserError
from bob.task_cards import DataSpec

# Category ids out of order, a thing twice, a crowd, and ids that need all three channels.
CATEGORIES = [{"id": 92, "name": "banner", "isthing": 0}, {"id": 3, "name": "car", "isthing": 1}]
IDS = np.array([[0, 7, 7, 3226956], [0, 300, 300, 3226956], [5, 5, 5, 5], [5, 5, 5, 5]])
SEGMENTS = [
    {"id": 7, "category_id": 3, "iscrowd": 0},
    {"id": 300, "category_id": 3, "iscrowd": 1},
    {"id": 3226956, "category_id": 92, "iscrowd": 0},
    {"id": 5, "category_id": 92, "iscrowd": 0},
]
TARGET = [[IGNORE, 0, 0, 1], [IGNORE, 0, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


def save_ids(path, ids):
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(path)


@pytest.fixture
def coco(tmp_path, bob_home, photograph):
    """Two splits of two images; gives a function that changes the JSON of one and opens both."""
    for split in ("train2017", "val2017"):
        for name in (split, f"annotations/panoptic_{split}"):
            (tmp_path / name).mkdir(parents=True)
        content = {"images": [], "annotations": [], "categories": CATEGORIES}
        for number in (1, 2):
            photograph(number, (4, 4)).save(tmp_path / split / f"{number:012d}.jpg")
            save_ids(tmp_path / f"annotations/panoptic_{split}/{number:012d}.png", IDS if number == 1 else IDS.T)
            content["images"].append({"id": number, "file_name": f"{number:012d}.jpg", "height": 4, "width": 4})
            annotation = {"image_id": number, "file_name": f"{number:012d}.png", "segments_info": SEGMENTS}
            content["annotations"].append(annotation)
        (tmp_path / f"annotations/panoptic_{split}.json").write_text(json.dumps(content))

    def open_(change=None, **spec):
        path = tmp_path / "annotations/panoptic_val2017.json"
        content = json.loads(path.read_text())
        if change is not None:
            change(content)
            path.write_text(json.dumps(content))
        source = "{split}:annotations/panoptic_{split}:annotations/panoptic_{split}.json"
        spec = {"splits": {"train": "train2017", "test": "val2017"}, **spec}
        return load_panoptic(source, tmp_path, DataSpec(source=f"panoptic:{source}", **spec))

    return open_


def told(pools, tmp_path):
    return [str(p).replace(f"{tmp_path}/annotations/panoptic_", "") for pool in pools.values() for p in pool.problems]


def test_by_hand(coco):
    classes, pools = coco()
    assert classes == ("car", "banner")
    assert list(pools) == ["train2017", "val2017"]
    images = pools["val2017"]
    assert images.names == ["val2017/000000000001.jpg", "val2017/000000000002.jpg"]
    np.testing.assert_array_equal(images.target(0), TARGET)
    np.testing.assert_array_equal(images.target(1), np.transpose(TARGET))
    assert images.target(0).dtype == np.int16
    np.testing.assert_array_equal(images.labels, [[1, 1], [1, 1]])
    np.testing.assert_array_equal(images.pixels(0), [4, 10, 2])


def test_splits_on_disk(coco):
    assert list(coco(splits={})[1]) == ["train", "val"]


def test_the_checksum_is_of_categories_too(coco):
    first = coco()[1]["val2017"].annotations_sha256()
    assert coco()[1]["val2017"].annotations_sha256() == first
    change = lambda content: content["annotations"][0]["segments_info"][0].update(category_id=92)  # noqa: E731
    assert coco(change)[1]["val2017"].annotations_sha256() != first


def test_every_bad_annotation_is_found(coco, tmp_path):
    for number, name in enumerate(("segments", "category", "twice", "size", "mode", "no png", "no image"), start=3):
        for split in ("val2017",):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / split / f"{number:012d}.jpg")
            ids = IDS[:2] if name == "size" else IDS
            save_ids(tmp_path / f"annotations/panoptic_{split}/{number:012d}.png", ids)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "annotations/panoptic_val2017/000000000007.png")
    (tmp_path / "annotations/panoptic_val2017/000000000008.png").unlink()
    (tmp_path / "val2017/000000000009.jpg").unlink()

    def change(content):
        for number in range(3, 11):
            content["images"].append({"id": number, "file_name": f"{number:012d}.jpg"})
            segments = [dict(segment) for segment in SEGMENTS]
            if number == 3:
                segments.pop(0)
            elif number == 4:
                segments[1]["category_id"] = 17
            elif number == 5:
                segments.append(segments[0])
            annotation = {"image_id": number, "file_name": f"{number:012d}.png", "segments_info": segments}
            content["annotations"] += [annotation] if number < 10 else []
        content["annotations"].append({**content["annotations"][0], "image_id": 77})
        content["annotations"].append(content["annotations"][0])

    pools = coco(change, drop_invalid=True)[1]
    assert len(pools["val2017"]) == 2
    assert set(told(pools, tmp_path)) == {
        "val2017/000000000003.png, segment 7: 2 pixels have this id, but segments_info has not",
        "val2017.json, segment 300 of image 4: there is no category 17",
        "val2017.json, segment 7 of image 5: it is listed 2 times",
        "val2017/000000000006.png: it has 2 x 4 pixels, its image val2017/000000000006.jpg 4 x 4",
        "val2017/000000000007.png: it has L pixels, not RGB",
        "val2017/000000000008.png: there is no file",
        f"{tmp_path}/val2017/000000000009.jpg: there is no file",
        "val2017.json, image 10: it has no annotation",
        "val2017.json, annotation 000000000001.png: there is no image 77",
        "val2017.json, image 1: it has a second annotation",
    }
    with pytest.raises(UserError, match=r"has bad annotations: .* \(and 9 more\)"):
        coco()


def test_other_files(coco, tmp_path):
    with pytest.raises(UserError, match="has other categories than train2017"):
        coco(lambda content: content["categories"].pop())
    with pytest.raises(UserError, match="entry 1 of 'annotations' has no 'segments_info'"):
        coco(lambda content: content["annotations"][1].pop("segments_info"))
    with pytest.raises(UserError, match="has no list 'annotations'"):
        coco(lambda content: content.pop("annotations"))
    (tmp_path / "annotations/panoptic_val2017.json").write_text("[1,")
    with pytest.raises(UserError, match=r"panoptic_val2017\.json is no JSON"):
        load_panoptic(
            "val2017:annotations/panoptic_val2017:annotations/panoptic_val2017.json",
            tmp_path,
            DataSpec(source="panoptic:x"),
        )
