"""VOC's folders of XML are read into boxes from 0, in every layout people have, and bad files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCDetection

from bob.data.voc import load_voc
from bob.errors import UserError
from bob.task_cards import DataSpec


@pytest.fixture(autouse=True)
def home(bob_home):
    """Sizes of files are remembered apart from the user's."""


def entry(name: str = "cat", box=(1, 1, 10, 20), difficult: object = 0, more: str = "") -> str:
    corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{more}<bndbox>{corners}</bndbox></object>"


def put(folder: Path, stem: str, *objects: str, size: str = "<width>50</width><height>40</height>") -> None:
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (50, 40)).save(folder / f"JPEGImages/{stem}.jpg")
    text = f"<annotation><filename>{stem}.jpg</filename><size>{size}</size>{''.join(objects)}</annotation>"
    (folder / f"Annotations/{stem}.xml").write_text(text)


def lists(folder: Path, **splits: str) -> None:
    (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    for split, stems in splits.items():
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{stem}\n" for stem in stems.split()))


def load(root: Path, name: str = ".", **spec):
    return load_voc(name, root, DataSpec(source=f"voc:{name}", **spec))


def refused(root: Path, name: str = ".", **spec) -> str:
    with pytest.raises(UserError) as caught:
        load(root, name, **spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_boxes(tmp_path) -> None:
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"
    put(tmp_path, "b", entry("dog", (3, 5, 3, 5), 1), entry("cat", ("1.0", "2.5", "50", "40"), "", part))
    put(tmp_path, "a")
    classes, pools = load(tmp_path)
    assert classes == ("cat", "dog")
    images = pools["all"]
    assert images.names == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    assert images.image_ids.tolist() == [1, 2]
    assert images.category_ids.tolist() == [1, 2]
    assert not images.has_masks
    target = images.target(1)
    assert target.boxes.tolist() == [[2, 4, 3, 5], [0, 1.5, 50, 40]]
    assert target.areas.tolist() == [1, 50 * 38.5]
    assert target.labels.tolist() == [1, 0]
    assert target.crowd.tolist() == [True, False]
    assert target.ids.tolist() == [20_001, 20_002]
    assert target.size == (40, 50)
    assert len(images.target(0)) == 0


def test_some_classes(tmp_path) -> None:
    put(tmp_path, "a", entry("dog"), entry("cat"), entry("eel", (1, 1, 0, 0)))
    classes, pools = load(tmp_path, only=("dog", "cat"))
    assert classes == ("dog", "cat")
    assert pools["all"].target(0).labels.tolist() == [0, 1]
    assert pools["all"].category_ids.tolist() == [1, 2]
    assert "Did you mean: dog?" in refused(tmp_path, only=("dgo",))


def test_splits(tmp_path) -> None:
    for number in range(1, 7):
        put(tmp_path, f"{number}", entry(box=(1, 1, number, number)))
    lists(tmp_path, train="1 2", val="3", trainval="1 2 3", test="4 5")
    (tmp_path / "ImageSets/Main/cat_train.txt").write_text("1  1\n2 -1\n")
    _, pools = load(tmp_path)
    assert {split: len(pool) for split, pool in pools.items()} == {"train": 2, "val": 1, "test": 2}
    _, pools = load(tmp_path, splits={"train": "trainval", "test": "test"})
    assert {split: len(pool) for split, pool in pools.items()} == {"trainval": 3, "test": 2}
    assert pools["test"].image_ids.tolist() == [4, 5]
    assert "for the split 'tset'. Did you mean: test?" in refused(tmp_path, splits={"train": "tset"})


def test_lists_of_other_names_are_for_the_card(tmp_path) -> None:
    for number in range(3):
        put(tmp_path, f"{number}", entry("car"))
    lists(tmp_path, trainval10k="0 1 2")
    assert list(load(tmp_path)[1]) == ["all"]
    assert list(load(tmp_path, splits={"train": "trainval10k"})[1]) == ["trainval10k"]


def test_two_years(tmp_path) -> None:
    for year, stems in (("VOC2007", "1 2"), ("VOC2012", "1 3")):
        for stem in stems.split():
            put(tmp_path / year, stem, entry())
        lists(tmp_path / year, trainval=stems)
    assert "holds VOC2007 and VOC2012" in refused(tmp_path)
    splits = {"train": "VOC2007/trainval+VOC2012/trainval"}
    _, pools = load(tmp_path, splits=splits)
    assert pools["VOC2012/trainval"].names == ["VOC2012/JPEGImages/1.jpg", "VOC2012/JPEGImages/3.jpg"]
    numbers = np.concatenate([pool.image_ids for pool in pools.values()])
    assert len(set(numbers.tolist())) == 4
    assert list(load(tmp_path, "VOC2007", splits={"train": "trainval"})[1]) == ["trainval"]


def test_one_year_below(tmp_path) -> None:
    put(tmp_path / "VOC2012", "1", entry())
    assert load(tmp_path)[1]["all"].names == ["VOC2012/JPEGImages/1.jpg"]


def test_as_torchvision(tmp_path) -> None:
    folder = tmp_path / "VOCdevkit/VOC2012"
    rng = np.random.default_rng(0)
    for number in range(5):
        corners = np.sort(rng.integers(1, 40, (3, 2, 2)), axis=1).reshape(-1, 4)
        put(folder, f"2008_{number:06d}", *(entry("cat", box) for box in corners))
    lists(folder, val=" ".join(f"2008_{number:06d}" for number in range(5)))
    theirs = VOCDetection(str(tmp_path), "2012", "val")
    images = load(tmp_path, "VOCdevkit/VOC2012")[1]["val"]
    for index, (_, annotation) in enumerate(theirs):
        boxes = [
            [int(o["bndbox"][c]) for c in ("xmin", "ymin", "xmax", "ymax")] for o in annotation["annotation"]["object"]
        ]
        assert images.target(index).boxes.tolist() == (np.array(boxes) - [1, 1, 0, 0]).tolist()


@pytest.mark.parametrize(
    ("objects", "told"),
    [
        ((entry(box=(1, 1, 60, 20)),), "a.xml, object 2 (cat): its box (0, 0, 60, 20) reaches outside"),
        ((entry(box=(10, 1, 9, 20)),), "a.xml, object 2 (cat): its box (9, 0, 9, 20) is empty"),
        ((entry(box=("nan", 1, 9, 20)),), "a.xml, object 2 (cat): its box (nan, 0, 9, 20) or area nan is not finite"),
        (("<object><name>cat</name></object>",), "a.xml, object 2: it has no bndbox of four numbers"),
        ((entry(box=("x", 1, 9, 20)),), "a.xml, object 2: it has no bndbox"),
        ((entry(name=""),), "a.xml, object 2: it has no name"),
    ],
)
def test_a_bad_object(tmp_path, objects, told) -> None:
    put(tmp_path, "a", entry(), *objects, entry("dog"))
    assert told in refused(tmp_path)
    images = load(tmp_path, drop_invalid=True)[1]["all"]
    assert images.target(0).ids.tolist() == [10_001, 10_003]
    assert len(images.problems) == 1


def test_bad_files(tmp_path) -> None:
    for stem in "abcd":
        put(tmp_path, stem, entry())
    (tmp_path / "Annotations/b.xml").write_text("<annotation><object>")
    (tmp_path / "JPEGImages/c.jpg").unlink()
    put(tmp_path, "d", entry(), size="<width>40</width><height>50</height>")
    lists(tmp_path, train="a b c d e")
    message = refused(tmp_path)
    assert "b.xml: it does not parse" in message
    assert "(and 3 more)" in message
    images = load(tmp_path, drop_invalid=True)[1]["train"]
    assert images.names == ["JPEGImages/a.jpg"]
    told = [str(problem) for problem in images.problems]
    assert "e.xml: it cannot be read (No such file or directory)" in told[1]
    assert "c.jpg: there is no file" in told[2]
    assert "d.jpg is 50x40 pixels, not 40x50 as annotated" in told[3]


def test_entities_that_blow_up_are_stopped(tmp_path) -> None:
    put(tmp_path, "a", entry())
    lines = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    bomb = f'<!DOCTYPE a [<!ENTITY e0 "0123456789">{lines}]><annotation><name>&e9;</name></annotation>'
    (tmp_path / "Annotations/b.xml").write_text(bomb)
    assert "b.xml: it does not parse" in refused(tmp_path)


def test_folders_that_are_not_there(tmp_path) -> None:
    assert "There is no folder" in refused(tmp_path, "nowhere")
    assert "has no folder Annotations" in refused(tmp_path)
    put(tmp_path, "a")
    assert "has no annotated object" in refused(tmp_path)
