"""COCO and LVIS files are read as pycocotools reads them, and what is wrong in them is told by file and number."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from bob.data.coco import load_coco
from bob.data.coco_json import covered
from bob.data.sources import load_dataset
from bob.errors import UserError
from bob.task_cards import DataSpec

HEIGHT, WIDTH = 40, 50
CATEGORIES = [{"id": 9, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 5, "name": "eel"}]
SQUARE = [[10.0, 8.0, 20.0, 8.0, 20.0, 18.0, 10.0, 18.0]]


@pytest.fixture(autouse=True)
def home(bob_home):
    """Sizes of files are remembered apart from the user's."""


def annotation(number: int, image: int = 1, category: int = 3, **changes) -> dict:
    entry = {"id": number, "image_id": image, "category_id": category, "bbox": [10, 8, 10, 10], "area": 100.0}
    return {**entry, "iscrowd": 0, "segmentation": SQUARE, **changes}


def image(number: int, name: str | None = None, **changes) -> dict:
    return {"id": number, "file_name": name or f"{number}.png", "height": HEIGHT, "width": WIDTH, **changes}


@pytest.fixture
def write(tmp_path):
    """Write an annotation file and its images below a folder."""

    def make(annotations, images=None, categories=CATEGORIES, folder="images", file="a.json", draw=True) -> Path:
        images = [image(1), image(2)] if images is None else images
        for entry in images if draw else ():
            path = tmp_path / folder / entry.get("file_name", "x.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((HEIGHT, WIDTH, 3), entry.get("id", 0) % 256, np.uint8)).save(path)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(content))
        return tmp_path

    return make


def load(root: Path, name: str = "images:a.json", **spec):
    return load_coco(name, root, DataSpec(source=f"coco:{name}", **spec))


def read(root: Path, **spec):
    classes, pools = load(root, **spec)
    assert list(pools) == ["all"]
    return classes, pools["all"]


def refused(root: Path, name: str = "images:a.json", **spec) -> str:
    with pytest.raises(UserError) as caught:
        load(root, name, **spec)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


def random_polygon(rng) -> list[float]:
    """A star-shaped outline with coordinates of two decimals."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 30)))
    radius = rng.uniform(2, 18, len(angles))
    points = np.array([25, 20]) + radius[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    return np.round(points, 2).ravel().tolist()


def random_runs(rng) -> list[int]:
    cuts = np.sort(rng.choice(np.arange(1, HEIGHT * WIDTH), rng.integers(1, 40), replace=False))
    return np.diff([0, *cuts, HEIGHT * WIDTH]).tolist()


# What is read


def test_objects(write) -> None:
    entries = [
        annotation(7, image=2, category=9, bbox=[1.5, 2.25, 3, 4], area=11.5, segmentation=SQUARE),
        annotation(3, image=1, category=3, iscrowd=1),
        annotation(5, image=2, category=5),
    ]
    classes, images = read(write(entries, [image(2), image(1), image(30)]))
    assert classes == ("dog", "eel", "cat")
    assert images.category_ids.tolist() == [3, 5, 9]
    assert images.image_ids.tolist() == [2, 1, 30]
    assert images.names == ["2.png", "1.png", "30.png"]
    assert images.labels.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert images.target_kind == "detection"
    assert images.has_masks
    assert not images.federated
    assert images.size(0) == (HEIGHT, WIDTH)
    first, second, empty = (images.target(index) for index in range(3))
    assert first.boxes.tolist() == [[1.5, 2.25, 4.5, 6.25], [10, 8, 20, 18]]
    assert first.labels.tolist() == [2, 1]
    assert first.ids.tolist() == [7, 5]
    assert first.areas.tolist() == [11.5, 100]
    assert first.crowd.tolist() == [False, False]
    assert second.crowd.tolist() == [True]
    assert first.masks()[0].sum() == 100
    assert first.masks()[0, 8:18, 10:20].all()
    assert len(empty) == 0
    assert empty.rles == ()
    assert empty.masks().shape == (0, HEIGHT, WIDTH)
    assert images.read(1).shape == (3, HEIGHT, WIDTH)


def test_as_pycocotools(write) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    rng = np.random.default_rng(0)
    entries = []
    for number in range(1, 181):
        whole = random_runs(rng)
        packed = coco_mask.frPyObjects({"counts": whole, "size": [HEIGHT, WIDTH]}, HEIGHT, WIDTH)["counts"].decode()
        mask = [
            [random_polygon(rng) for _ in range(rng.integers(1, 4))],
            {"size": [HEIGHT, WIDTH], "counts": whole},
            {"size": [HEIGHT, WIDTH], "counts": packed},
        ][number % 3]
        box = [*rng.uniform(0, 20, 2).round(2).tolist(), *rng.uniform(0.1, 20, 2).round(2).tolist()]
        entries.append(
            annotation(
                number,
                image=int(rng.integers(1, 30)),
                category=int(rng.choice([3, 5, 9])),
                bbox=box,
                area=float(rng.uniform(1, 99)),
                iscrowd=number % 3 % 2,
                segmentation=mask,
            )
        )
    root = write(entries, [image(n) for n in range(1, 31)])
    classes, images = read(root)
    theirs = coco.COCO(str(root / "a.json"))
    compared = 0
    for index, number in enumerate(images.image_ids.tolist()):
        target, found = images.target(index), theirs.imgToAnns[number]
        assert target.ids.tolist() == [entry["id"] for entry in found]
        for row, entry in enumerate(found):
            assert np.array_equal(target.masks()[row], theirs.annToMask(entry).astype(bool))
            x, y, w, h = entry["bbox"]
            assert target.boxes[row].tolist() == [x, y, x + w, y + h]
            assert classes[target.labels[row]] == theirs.cats[entry["category_id"]]["name"]
            assert target.areas[row] == entry["area"]
            assert bool(target.crowd[row]) == bool(entry["iscrowd"])
            compared += 1
    assert compared == len(entries)


def test_without_masks_or_areas(write) -> None:
    entries = [annotation(1, segmentation=[]), annotation(2)]
    del entries[0]["area"], entries[1]["area"], entries[1]["segmentation"], entries[1]["iscrowd"]
    _, images = read(write(entries))
    assert not images.has_masks
    target = images.target(0)
    assert target.rles is None
    assert target.areas.tolist() == [100, 100]


def test_some_categories(write) -> None:
    bad = annotation(3, category=5, bbox=[1, 1, 0, 0])  # of a category that does not count
    root = write([annotation(1), annotation(2, category=9), bad])
    classes, images = read(root, only=("cat", "dog"))
    assert classes == ("cat", "dog")
    assert images.category_ids.tolist() == [9, 3]
    assert images.target(0).labels.tolist() == [1, 0]
    assert not images.problems
    assert "'cta'. Did you mean: cat?" in refused(root, only=("cta",))


def test_lvis(write) -> None:
    entries = [
        {**image(1), "neg_category_ids": [5], "not_exhaustive_category_ids": [3]},
        {**image(2), "neg_category_ids": [9, 5], "not_exhaustive_category_ids": []},
    ]
    for entry in entries:
        entry["coco_url"] = f"http://images.cocodataset.org/val2017/{entry.pop('file_name')}"
    root = write([annotation(1)], entries, draw=False)
    (root / "images/val2017").mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / f"images/val2017/{number}.png")
    _, images = read(root)
    assert images.federated
    assert images.names == ["val2017/1.png", "val2017/2.png"]
    assert images.target(0).negatives == (1,)
    assert images.target(0).partial == (0,)
    assert images.target(1).negatives == (2, 1)
    _, some = read(root, only=("cat",))
    assert some.target(1).negatives == (0,)
    assert some.target(0).negatives == ()


def test_other_separators_and_a_byte_order_mark(write) -> None:
    root = write([annotation(1)], [image(1, "deep/1.png")])
    text = (root / "a.json").read_text().replace("deep/", "deep\\\\")
    (root / "a.json").write_text(text, encoding="utf-8-sig")
    assert read(root)[1].names == ["deep/1.png"]


def test_checksum_of_annotations(write, tmp_path) -> None:
    root = write([annotation(1), annotation(2, image=2)])
    before = read(root)[1].annotations_sha256()
    assert before == read(root)[1].annotations_sha256()
    seen = {before}
    for changed in (
        annotation(1, bbox=[10, 8, 10, 11]),
        annotation(1, segmentation=[[*SQUARE[0][:-1], 19.0]]),
        annotation(1, iscrowd=1),
        annotation(1, category=9),
        annotation(1, area=101.0),
    ):
        write([changed, annotation(2, image=2)])
        seen.add(read(root)[1].annotations_sha256())
    assert len(seen) == 6


def test_pickled_and_sealed(write) -> None:
    root = write([annotation(1), annotation(2, image=2)])
    images = pickle.loads(pickle.dumps(read(root)[1]))
    assert images.target(1).ids.tolist() == [2]
    assert images.target(0).masks().sum() == 100


# Splits


@pytest.fixture
def splits(write):
    """Files for several splits, named as COCO's are."""

    def make(*names: str, folder: str = "images") -> Path:
        root = None
        for position, name in enumerate(names):
            images = [image(10 * position + 1), image(10 * position + 2)]
            root = write(
                [annotation(position + 1, image=10 * position + 1)],
                images,
                folder=f"{folder}/{name}",
                file=f"annotations/instances_{name}.json",
            )
        return root

    return make


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train2017", "val2017"), ["train", "val"]),
        (("test", "train", "valid"), ["train", "val", "test"]),
        (("train", "val", "val_minusminival2014", "extra"), ["train", "val"]),
        (("minitrain", "minival"), ["minitrain", "minival"]),
    ],
)
def test_splits_on_disk(splits, names, expected) -> None:
    root = splits(*names)
    _, pools = load(root, "images/{split}:annotations/instances_{split}.json")
    assert list(pools) == expected
    assert pools[expected[0]].names[0].startswith(("train", "minitrain"))
    assert pools[expected[0]].root == root / "images"


def test_splits_of_the_card(splits) -> None:
    root = splits("train2014", "train2017", "val2017")
    name = "images/{split}:annotations/instances_{split}.json"
    assert "'train2014' and 'train2017' for the split 'train'" in refused(root, name)
    given = {"train": "train2017", "test": "val2017"}
    assert list(load(root, name, splits=given)[1]) == ["train2017", "val2017"]
    assert "instances_tset.json" in refused(root, name, splits={"train": "train2017", "test": "tset"})


def test_one_folder_for_all_splits(splits, write) -> None:
    write([annotation(1)], file="annotations/lvis_v1_train.json")
    root = write([annotation(2, image=5)], [image(5)], file="annotations/lvis_v1_val.json")
    _, pools = load(root, "images:annotations/lvis_v1_{split}.json")
    assert {split: len(pool) for split, pool in pools.items()} == {"train": 2, "val": 1}


def test_splits_with_other_categories(splits, write) -> None:
    root = splits("train", "val")
    name = "images/{split}:annotations/instances_{split}.json"
    write([], [image(1)], CATEGORIES[:2], "images/val", "annotations/instances_val.json")
    message = refused(root, name)
    assert "differ in their categories: 5 is 'eel' and missing" in message
    assert list(load(root, name, only=("dog",))[1]) == ["train", "val"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("images", "does not name images and annotations"),
        ("a:b:c", "does not name images and annotations"),
        ("images/{split}:a.json", "in its images but not in its annotations"),
        ("nowhere:a.json", "no folder of images"),
        ("images:nowhere.json", "no annotation file"),
        ("images:{split}.nothing", "whatever {split} stands for"),
    ],
)
def test_paths_that_lead_nowhere(write, name, told) -> None:
    assert told in refused(write([annotation(1)]), name)


# What is wrong


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bbox": [45, 8, 7, 10]}, r"its box (45, 8, 52, 18) reaches outside the image of 50x40 pixels"),
        ({"bbox": [-1.5, 8, 7, 10]}, "reaches outside"),
        ({"bbox": [1, 8, 7, 0]}, "its box (1, 8, 8, 8) is empty"),
        ({"bbox": [1, 8, -7, 5]}, "is empty"),
        ({"bbox": [1, 8, float("nan"), 5]}, "not finite"),
        ({"bbox": [1, 8, float("inf"), 5]}, "not finite"),
        ({"area": float("nan")}, "not finite"),
        ({"area": 0}, "its area is 0"),
        ({"bbox": [1, 8, 7]}, "bbox is not four numbers"),
        ({"bbox": [1, 8, 7, "9"]}, "bbox is not four numbers"),
        ({"bbox": None}, "bbox is not four numbers"),
        ({"bbox": [1, 8, 7, 9, 3]}, "bbox is not four numbers"),
        ({"area": "big"}, "area no number"),
        ({"category": 4}, "its category_id 4 is of no category"),
        ({"image": 77}, "its image_id 77 is of no image"),
        ({"image": "1"}, "not all whole numbers"),
        ({"category_id": None}, "not all whole numbers"),
        ({"image_id": 2**70}, "bbox is not four numbers"),
        ({"segmentation": [[1, 2, 3, 4]]}, "fewer than three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "half a point"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "neither polygons nor run lengths"),
        ({"segmentation": [[1, 2, 3, 4, 5, None]]}, "neither polygons nor run lengths"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "coordinate that is not finite"),
        ({"segmentation": {"size": [5, 4], "counts": [20]}}, "its mask is of 4x5 pixels, its image of 50x40"),
        ({"segmentation": {"size": [40, 50], "counts": [20, 30]}}, "do not add up to 40x50 pixels"),
        ({"segmentation": {"size": [40, 50], "counts": "zzz"}}, "do not add up"),
        ({"segmentation": {"counts": [20, 30]}}, "without a size"),
        ({"segmentation": []}, "it has no segmentation, while others have one"),
    ],
)
def test_a_bad_annotation(write, changes, told) -> None:
    root = write([annotation(1), annotation(17, **changes), annotation(3, image=2)])
    message = refused(root)
    assert f"{root / 'a.json'}, annotation 17: " in message
    assert told in message
    _, images = read(root, drop_invalid=True)
    assert [images.target(index).ids.tolist() for index in range(2)] == [[1], [3]]
    assert len(images.problems) == 1
    assert images.problems[0].id == "annotation 17"
    assert told in images.problems[0].what


def test_up_to_a_pixel_outside_is_rounding(write) -> None:
    _, images = read(write([annotation(1, bbox=[-1, -1, 52, 42])]))
    assert images.target(0).boxes.tolist() == [[-1, -1, 51, 41]]


def test_repeated_numbers(write) -> None:
    message = refused(write([annotation(1), annotation(2), annotation(1, image=2)]))
    assert "annotation 1: its id is of two annotations" in message
    root = write([annotation(1)], [image(1), image(2), image(1, "3.png")])
    assert "image 1: its id is of two images" in refused(root)
    assert read(root, drop_invalid=True)[1].names == ["1.png", "2.png"]


@pytest.mark.parametrize("gone", ["image_id", "category_id", "id"])
def test_a_missing_key(write, gone) -> None:
    entry = annotation(17)
    del entry[gone]
    message = refused(write([annotation(1), entry]))
    assert ("annotation at position 1 of the list" if gone == "id" else "annotation 17") in message


def test_bad_images(write) -> None:
    images = [image(1), image(2), image(3), image(4), image(5, height=WIDTH, width=HEIGHT), {"id": 6}]
    root = write([annotation(n, image=n) for n in range(1, 6)], images)
    (root / "images/2.png").unlink()
    (root / "images/3.png").write_bytes(b"no image")
    Image.new("RGB", (20, 10)).save(root / "images/4.png")
    message = refused(root)
    assert "image 6" in message
    assert "and 4 more" in message
    _, kept = read(root, drop_invalid=True)
    assert kept.names == ["1.png"]
    assert kept.target(0).ids.tolist() == [1]
    told = {problem.id: problem.what for problem in kept.problems}
    assert list(told) == ["image 6", "image 2", "image 3", "image 4", "image 5"]  # and not their annotations
    assert "there is no file" in told["image 2"]
    assert "not an image" in told["image 3"]
    assert "is 20x10 pixels, not 50x40 as annotated" in told["image 4"]
    assert "EXIF" in told["image 5"]


def test_no_image_at_all(write) -> None:
    root = write([annotation(1)])
    for number in (1, 2):
        (root / f"images/{number}.png").unlink()
    assert "leaves no image to use" in refused(root, drop_invalid=True)


def test_sizes_are_remembered_until_a_file_changes(write, monkeypatch) -> None:
    root = write([annotation(1)])
    read(root)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *rest: opened.append(str(path)) or real(path, *rest))
    read(root)
    assert not opened
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(root / "images/2.png")
    assert "image 2" in refused(root)
    assert opened == [str(root / "images/2.png")]


def test_sizes_the_file_does_not_say(write) -> None:
    _, images = read(write([annotation(1)], [{"id": 1, "file_name": "1.png"}]))
    assert images.size(0) == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "its top level is a list"),
        ("{", "is not JSON"),
        ('"\\ud800', "is not JSON"),
        ("{}", "it has no list 'images'"),
        ('{"images": [], "annotations": []}', "it has no list 'categories'"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}]}', "images without annotations"),
        ('{"images": [], "categories": [{"id": "1", "name": "a"}], "annotations": []}', "category 0 of the list"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "annotations": []}', "id 1"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "annotations": []}', "both"),
        ('{"images": [], "categories": [], "annotations": []}', "no categories"),
        ('{"images": [], "categories": [], "annotations": {}}', "no list 'annotations'"),
        (
            '{"images": [], "categories": [], "annotations": [], "more": [{"image_id": 1, "category_id": 1}]}',
            "annotations outside the list",
        ),
    ],
)
def test_no_coco_file(write, text, told) -> None:
    root = write([annotation(1)])
    (root / "a.json").write_text(text)
    assert told in refused(root)


# Run lengths


def test_covered() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        packed = coco_mask.frPyObjects({"counts": random_runs(rng), "size": [HEIGHT, WIDTH]}, HEIGHT, WIDTH)["counts"]
        assert covered(packed) == HEIGHT * WIDTH
        assert covered(packed + b"1") != HEIGHT * WIDTH
    for bad in (b"", b"\x01", b"P", b"O", b"PPPPPPPPPP0", b"~"):
        assert covered(bad) == -1


# As a data set


def test_a_data_set_is_cut_and_sealed(write) -> None:
    images = [image(n) for n in range(1, 41)]
    root = write([annotation(n, image=n, category=(3, 5, 9)[n % 3]) for n in range(1, 41)], images)
    dataset = load_dataset(DataSpec(source="coco:images:a.json"), root)
    assert sum(len(split) for split in dataset.splits.values()) == 40
    assert dataset.splits["test"].target(0).masks().sum() == 100
    with pytest.raises(RuntimeError, match="sealed"):
        dataset.sealed().splits["test"].target(0)
