"""A set written as COCO's JSON reads back as the same set, by bob and by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from bob.data.base import Split
from bob.data.coco import load_coco
from bob.data.coco_export import to_coco_json
from bob.data.joined import JoinedImages
from bob.data.sealed import seal
from bob.data.voc import load_voc
from bob.errors import UserError
from bob.task_cards import DataSpec

SPEC = DataSpec(source="coco:images:a.json")
SQUARE = [[10.3, 8.0, 20.7, 8.0, 20.0, 18.1, 10.0, 18.0]]


@pytest.fixture
def folder(tmp_path, bob_home):
    """Three images, one of them empty, with masks and what LVIS says besides."""
    (tmp_path / "images").mkdir()
    for number in (4, 8, 9):
        Image.new("RGB", (50, 40)).save(tmp_path / f"images/{number}.png")
    images = [
        {"id": number, "file_name": f"{number}.png", "height": 40, "width": 50, "neg_category_ids": [30]}
        | {"not_exhaustive_category_ids": [7] if number == 8 else []}
        for number in (4, 8, 9)
    ]
    annotations = [
        {"id": 11, "image_id": 8, "category_id": 7, "bbox": [10.1, 8.3, 10.6, 9.7], "area": 99.5, "iscrowd": 0},
        {"id": 13, "image_id": 9, "category_id": 30, "bbox": [10, 8, 10, 10], "area": 60, "iscrowd": 1},
        {"id": 12, "image_id": 8, "category_id": 7, "bbox": [10, 8, 10, 10], "area": 60, "iscrowd": 0},
    ]
    content = {
        "images": images,
        "annotations": [{**entry, "segmentation": SQUARE} for entry in annotations],
        "categories": [{"id": 30, "name": "b"}, {"id": 7, "name": "a"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path


def opened(folder, file="a.json"):
    return load_coco(f"images:{file}", folder, SPEC)[1]["all"]


def test_there_and_back(folder) -> None:
    images = opened(folder)
    (folder / "b.json").write_text(json.dumps(to_coco_json(images)))
    again = opened(folder, "b.json")
    assert again.classes == images.classes == ("a", "b")
    assert again.category_ids.tolist() == [7, 30]
    assert again.image_ids.tolist() == [4, 8, 9]
    assert again.federated
    for index in range(3):
        one, other = images.target(index), again.target(index)
        assert np.allclose(one.boxes, other.boxes, rtol=0, atol=1e-12)
        for name in ("labels", "ids", "areas", "crowd"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("size", "rles", "negatives", "partial"):
            assert getattr(one, name) == getattr(other, name)


def test_pycocotools_reads_it(folder) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    theirs = coco.COCO()
    theirs.dataset = to_coco_json(opened(folder), indices=[1, 0])
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.createIndex()
    assert list(theirs.imgs) == [8, 4]
    assert sorted(theirs.anns) == [11, 12]
    assert theirs.annToMask(theirs.anns[11]).sum() == opened(folder).target(1).masks()[0].sum()


def test_joined_and_sealed(folder) -> None:
    images = opened(folder)
    with pytest.raises(UserError, match=r"4\.png and .*4\.png both have the image id 4"):
        to_coco_json(JoinedImages([images, images]))
    first = load_coco("images:a.json", folder, SPEC.model_copy(update={"only": ("a",)}))[1]["all"]
    assert len(to_coco_json(JoinedImages([first, first]), indices=[0, 1])["annotations"]) == 2
    sealed = seal({"train": Split(images, np.array([0, 1])), "test": Split(images, np.array([2]))}, "test")
    assert len(to_coco_json(sealed["train"].images, [0, 1], images.classes)["annotations"]) == 2
    with pytest.raises(RuntimeError, match="sealed"):
        to_coco_json(sealed["test"].images, [2], images.classes)


def test_numbers_that_cannot_stay(folder) -> None:
    content = json.loads((folder / "a.json").read_text())
    content["annotations"][0]["id"] = 0
    (folder / "a.json").write_text(json.dumps(content))
    assert [entry["id"] for entry in to_coco_json(opened(folder))["annotations"]] == [1, 2, 3]


def test_without_objects(memory_images) -> None:
    with pytest.raises(ValueError, match="Expected `images` to be a detection set"):
        to_coco_json(memory_images(3))


def test_voc_as_coco(tmp_path, bob_home) -> None:
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (50, 40)).save(tmp_path / "JPEGImages/a.jpg")
    box = "<bndbox><xmin>1</xmin><ymin>3</ymin><xmax>10</xmax><ymax>40</ymax></bndbox>"
    xml = f"<annotation><object><name>cat</name><difficult>1</difficult>{box}</object></annotation>"
    (tmp_path / "Annotations/a.xml").write_text(xml)
    document = to_coco_json(load_voc(".", tmp_path, DataSpec(source="voc:."))[1]["all"])
    (entry,) = document["annotations"]
    assert entry == {
        **{"id": 10_001, "image_id": 1, "category_id": 1, "bbox": [0, 2, 10, 38], "area": 380, "iscrowd": 1}
    }
    assert document["images"] == [{"id": 1, "file_name": "JPEGImages/a.jpg", "height": 40, "width": 50}]
