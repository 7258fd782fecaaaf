"""Cityscapes' polygons become boxes, masks and crowds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bob.data.cityscapes import CLASSES, load_cityscapes
from bob.errors import UserError
from bob.task_cards import DataSpec

SIZE = {"imgHeight": 40, "imgWidth": 60}
SQUARE = [[10, 8], [19, 8], [19, 17], [10, 17]]


@pytest.fixture(autouse=True)
def home(bob_home):
    """Sizes of files are remembered apart from the user's."""


def thing(label: str = "car", polygon=SQUARE, **more) -> dict:
    return {"label": label, "polygon": polygon, **more}


def put(root: Path, split: str, stem: str, *objects: object, **changes) -> Path:
    city = stem.partition("_")[0]
    for top in ("gtFine", "leftImg8bit"):
        (root / top / split / city).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
    path = root / f"gtFine/{split}/{city}/{stem}_gtFine_polygons.json"
    path.write_text(json.dumps({**SIZE, "objects": list(objects), **changes}))
    return path


def load(root: Path, **spec):
    return load_cityscapes(".", root, DataSpec(source="cityscapes:.", **spec))


def refused(root: Path, **spec) -> str:
    with pytest.raises(UserError) as caught:
        load(root, **spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path) -> Path:
    others = (thing("sky"), thing("license plate"), thing("car", deleted=1))
    put(tmp_path, "train", "aachen_000000_000019", *others, thing("bicyclegroup"), thing("rider"))
    put(tmp_path, "train", "ulm_000001_000019", thing("road"))
    put(tmp_path, "val", "munster_000001_000019", thing("car", [[-5, 30], [9, 30], [9, 55], [-5, 55]]))
    put(tmp_path, "test", "bonn_000001_000019", thing("out of roi"))
    return tmp_path


def test_objects(folder) -> None:
    classes, pools = load(folder)
    assert classes == CLASSES
    assert {split: len(pool) for split, pool in pools.items()} == {"train": 2, "val": 1}
    images = pools["train"]
    assert images.names[0] == "train/aachen/aachen_000000_000019_leftImg8bit.png"
    assert images.image_ids.tolist() == [2, 3]  # that of test is the first
    target = images.target(0)
    assert [classes[label] for label in target.labels] == ["bicycle", "rider"]
    assert target.crowd.tolist() == [True, False]
    assert target.ids.tolist() == [20_004, 20_005]
    assert target.boxes.tolist() == [[10, 8, 20, 18]] * 2
    assert target.areas.tolist() == [100, 100]
    assert images.has_masks
    assert images.read(0).shape[1:] == target.size == (40, 60)
    assert len(images.target(1)) == 0


def test_a_polygon_that_leaves_the_image(folder) -> None:
    target = load(folder)[1]["val"].target(0)
    assert target.boxes.tolist() == [[0, 30, 10, 40]]
    assert target.areas.tolist() == [100]
    assert target.masks()[0, 31:, :9].all()
    assert not target.masks()[0, :30].any()


def test_as_drawn_by_pil(tmp_path) -> None:
    rng = np.random.default_rng(0)
    polygons = [rng.integers(2, 38, (int(rng.integers(3, 9)), 2)).tolist() for _ in range(30)]
    put(tmp_path, "train", "ulm_0_0", *(thing("car", polygon) for polygon in polygons))
    target = load(tmp_path)[1]["train"].target(0)
    for row, polygon in enumerate(polygons):
        canvas = Image.new("1", (60, 40))
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in polygon], fill=1)
        drawn = np.asarray(canvas)
        ys, xs = np.nonzero(drawn)
        assert target.boxes[row].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        # PIL rounds a crossing of lines otherwise where the polygon lies elsewhere.
        assert abs(target.areas[row] - drawn.sum()) <= 2


def test_masks_are_those_drawn_but_for_the_outline(tmp_path) -> None:
    t = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    circle = np.round([30, 20] + 15 * np.column_stack([np.cos(t), np.sin(t)])).astype(int).tolist()
    put(tmp_path, "train", "ulm_0_0", thing("car", circle))
    target = load(tmp_path)[1]["train"].target(0)
    canvas = Image.new("1", (60, 40))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in circle], fill=1)
    drawn, mask = np.asarray(canvas), target.masks()[0]
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.93


def test_some_classes(folder) -> None:
    classes, pools = load(folder, only=("car", "rider"))
    assert classes == ("car", "rider")
    assert pools["train"].target(0).labels.tolist() == [1]
    assert "Did you mean: car?" in refused(folder, only=("cra",))
    assert "no object of train" in refused(folder, only=("train",))


def test_test_is_withheld(folder) -> None:
    assert "test has no object of person" in refused(folder, splits={"train": "train", "test": "test"})
    assert list(load(folder, splits={"train": "train", "test": "val"})[1]) == ["train", "val"]
    assert "There are no" in refused(folder, splits={"train": "trian"})


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (thing(polygon=[[1, 2], [3, 4]]), "object 1 (car): its polygon is not three or more points"),
        (thing(polygon=[[1, 2], [3, 4], [5]]), "object 1 (car): its polygon"),
        (thing(polygon=[[1, 2], [3, 4], [5, float("nan")]]), "object 1 (car): its polygon"),
        (thing(polygon=None), "object 1 (car): its polygon"),
        (thing(polygon=[[-9, 1], [-5, 1], [-5, 9]]), "object 1 (car): its box (0, 1, 0, 10) is empty"),
        ({"polygon": SQUARE}, "object 1: it has no label"),
        (7, "object 1: it has no label"),
    ],
)
def test_a_bad_object(tmp_path, bad, told) -> None:
    path = put(tmp_path, "train", "ulm_0_0", bad, thing("bus"))
    assert f"{path}, {told}" in refused(tmp_path)
    images = load(tmp_path, drop_invalid=True)[1]["train"]
    assert images.target(0).ids.tolist() == [10_002]
    assert len(images.problems) == 1


def test_bad_files(tmp_path) -> None:
    good = put(tmp_path, "train", "ulm_0_0", thing())
    put(tmp_path, "train", "ulm_0_1", thing(), imgHeight=30)
    put(tmp_path, "train", "ulm_0_2", imgWidth="60").with_suffix(".json")
    put(tmp_path, "train", "ulm_0_3").write_text("{")
    put(tmp_path, "train", "ulm_0_4", thing())
    (tmp_path / "leftImg8bit/train/ulm/ulm_0_4_leftImg8bit.png").unlink()
    assert "(and 3 more)" in refused(tmp_path)
    images = load(tmp_path, drop_invalid=True)[1]["train"]
    assert images.names == ["train/ulm/ulm_0_0_leftImg8bit.png"]
    assert len(images.problems) == 4
    good.unlink()
    assert "train has no object" in refused(tmp_path, drop_invalid=True)


def test_no_folder(tmp_path) -> None:
    assert "There is no folder" in refused(tmp_path)
    (tmp_path / "gtFine/test").mkdir(parents=True)
    assert "neither train nor val" in refused(tmp_path)
