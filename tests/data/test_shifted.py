"""The shifted sets of a card stand behind its test images with the right labels; what does not fit them is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bob.data.base import Dataset, Split
from bob.data.corrupted import CorruptedImages
from bob.data.files import FileImages
from bob.data.other_sets import PartedDataset
from bob.data.shifted import ShiftedSet, with_shifts
from bob.errors import UserError
from bob.task_cards import TaskCard

pytestmark = pytest.mark.usefixtures("bob_home")
CLASSES = ("cat", "dog", "fox")
NAMES = [f"{name}/{i}.png" for name in CLASSES for i in range(4)]


@pytest.fixture
def dataset(tmp_path, photograph) -> Dataset:
    """Twelve images of three classes in one set; the last of each class is the test."""
    for number, name in enumerate(NAMES):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        photograph(number, (40, 36)).save(tmp_path / "own" / name)
    images = FileImages(tmp_path / "own", NAMES, np.repeat([0, 1, 2], 4))
    parts = {"train": [0, 1, 4, 5, 8, 9], "val": [2, 6, 10], "test": [3, 7, 11]}
    splits = {name: Split(images, np.array(places)) for name, places in parts.items()}
    return Dataset("folder:own", CLASSES, splits, {"splits": "by hand"})


def _opened(dataset: Dataset, root: Path, *sets: dict) -> PartedDataset:
    card = TaskCard.model_validate(
        {
            "name": "t",
            "adapter": "ood",
            "data": {"source": "folder:own"},
            "sets": [{"name": "s", **each} for each in sets],
        }
    )
    return with_shifts(card, dataset, root)


def test_another_folder(dataset, tmp_path, write_images) -> None:
    write_images(tmp_path / "art", "fox/a.png", "cat/b.png", "dog/c.png", "dog/d.png")
    found = _opened(dataset, tmp_path, {"source": "folder:art"})
    test = found.splits["test"]
    assert test.names == ["cat/3.png", "dog/3.png", "fox/3.png", "cat/b.png", "dog/c.png", "dog/d.png", "fox/a.png"]
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 1, 2]
    assert [(part.name, part.rows) for part in found.parts] == [("clean", slice(0, 3)), ("s", slice(3, 7))]
    assert ShiftedSet.from_dict(found.parts[1].said) == ShiftedSet("s")
    assert found.splits["train"].images is test.images.parts[0]  # whose features are stored once


def test_a_subset_of_the_classes(dataset, tmp_path, write_images) -> None:
    write_images(tmp_path / "art", "fox/a.png", "cat/b.png")
    found = _opened(dataset, tmp_path, {"source": "folder:art"})
    assert found.splits["test"].labels.tolist() == [0, 1, 2, 0, 2]
    assert ShiftedSet.from_dict(found.parts[1].said).members == ((0,), (2,))
    assert found.identity()["sets"][1] == {"name": "s", "n": 2, "entry": "s", "members": [[0], [2]]}
    json.dumps(found.identity())


def test_coarse_classes_and_those_left_out(dataset, tmp_path, write_images) -> None:
    write_images(tmp_path / "art", "canine/a.png", "car/b.png", "feline/c.png")
    (tmp_path / "map.json").write_text(json.dumps({"canine": ["dog", "fox"], "feline": "cat", "car": []}))
    found = _opened(dataset, tmp_path, {"source": "folder:art", "class_map": "map.json"})
    assert found.splits["test"].names[3:] == ["canine/a.png", "feline/c.png"]
    assert found.splits["test"].labels[3:].tolist() == [1, 0]
    assert ShiftedSet.from_dict(found.parts[1].said).members == ((0,), (1, 2))


def test_a_split_and_a_list(dataset, tmp_path, write_images) -> None:
    paths = [f"{split}/{name}/{split}{name}.png" for split in ("train", "val") for name in CLASSES]
    write_images(tmp_path / "art", *paths)
    found = _opened(dataset, tmp_path, {"source": "folder:art"})
    assert found.splits["test"].names[3] == "val/cat/valcat.png"
    (tmp_path / "list.txt").write_text("traindog.png\ntraincat.png\n")
    found = _opened(dataset, tmp_path, {"source": "folder:art", "split": "train", "subset": "list.txt"})
    assert found.splits["test"].names[3:] == ["train/cat/traincat.png", "train/dog/traindog.png"]
    assert ShiftedSet.from_dict(found.parts[1].said).members == ((0,), (1,))


def test_corruptions_computed(dataset, tmp_path) -> None:
    pytest.importorskip("imagecorruptions")
    found = _opened(dataset, tmp_path, {"corruptions": ["contrast", "fog"], "severities": [2]})
    assert [part.name for part in found.parts] == ["clean", "s/contrast/2", "s/fog/2"]
    test = found.splits["test"]
    assert test.labels.tolist() == [0, 1, 2] * 3 and test.names[3:6] == test.names[:3]
    expected = CorruptedImages(dataset.splits["test"], "fog", 2).read(1)
    assert torch.equal(test.images.read(int(test.indices[7])), expected)
    assert found.parts[2].said == {"entry": "s", "corruption": "fog", "severity": 2}
    assert found.facts["set s"].startswith("computed by imagecorruptions")


@pytest.mark.parametrize("kind", ["", "weather/"])
def test_corruptions_on_disk(kind, dataset, tmp_path, photograph) -> None:
    for number, name in enumerate(reversed(NAMES)):
        path = tmp_path / "c" / f"{kind}fog" / "2" / Path(name).with_suffix(".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(100 + number, (40, 36)).save(path)
    asked = {"source": "folder:c/{corruption}/{severity}", "corruptions": ["fog"], "severities": [2]}
    found = _opened(dataset, tmp_path, asked)
    assert found.splits["test"].names[3:] == ["cat/3.jpg", "dog/3.jpg", "fox/3.jpg"]  # in the order of the clean ones
    assert found.splits["test"].labels[3:].tolist() == [0, 1, 2]
    assert found.facts["set s"] == "read from c/{corruption}/{severity}"
    with pytest.raises(UserError, match=r"on disk without snow of severity 2 \(1 of 2 are missing\)"):
        _opened(dataset, tmp_path, {**asked, "corruptions": ["fog", "snow"]})
    (tmp_path / "c" / f"{kind}fog" / "2" / "dog" / "3.jpg").unlink()
    with pytest.raises(UserError, match=r"no copy of the test image dog/3.png \(1 of 3 are missing\)"):
        _opened(dataset, tmp_path, asked)


def test_corruptions_of_a_published_set_that_is_not_there(dataset, tmp_path) -> None:
    pytest.importorskip("imagecorruptions")
    asked = {"source": "folder:c/{corruption}/{severity}", "corruptions": ["fog"], "severities": [2]}
    images = _opened(dataset, tmp_path, asked).splits["test"]
    assert images.images.read(int(images.indices[3])).shape == (3, 224, 224)


def test_objectnets_frame_is_cut_off(dataset, tmp_path) -> None:
    names = [f"class {i}" for i in range(1000)]
    mappings = tmp_path / "mappings"
    mappings.mkdir()
    (mappings / "imagenet_to_label_2012_v2").write_text("\n".join(names))
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps({str(i): i for i in range(1000)}))
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps({"pan": "Pan", "fan": "Fan", "tie": "Tie"}))
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps({"Pan": "class 1; class 0", "Fan": "class 2"}))
    pixels = np.full((12, 10, 3), (255, 0, 0), dtype=np.uint8)
    pixels[2:-2, 2:-2] = 90
    for name in ("pan", "fan", "tie"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "images" / name / "1.png")
    large = Dataset("folder:own", tuple(names), dataset.splits)
    found = _opened(large, tmp_path, {"source": "folder:images", "class_map": "mappings"}).splits["test"]
    assert found.names[3:] == ["fan/1.png", "pan/1.png"] and found.labels[3:].tolist() == [2, 0]
    read = found.images.read(int(found.indices[3]))
    assert read.shape == (3, 8, 6) and read.unique().tolist() == [90]


def test_drawn_shapes(tmp_path) -> None:
    from bob.data.sources import load_dataset
    from bob.task_cards import DataSpec

    shapes = load_dataset(DataSpec(source="shapes"))
    found = _opened(shapes, tmp_path, {"source": "shapes_outline"})
    assert len(found.splits["test"]) == 900 and found.splits["test"].labels[600:].tolist() == [*range(10)] * 30


def test_the_test_images_are_sealed_everywhere(dataset, tmp_path, write_images) -> None:
    write_images(tmp_path / "art", "fox/a.png", "cat/b.png")
    sealed = _opened(dataset, tmp_path, {"source": "folder:art"}).sealed()
    with pytest.raises(RuntimeError, match="sealed"):
        _ = sealed.splits["test"].labels
    assert sealed.splits["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert sealed.splits["train"].images.labels[3] < 0


@pytest.mark.parametrize(
    ("asked", "paths", "said"),
    [
        (
            {"source": "folder:art"},
            ["cat/a.png", "wolf/b.png"],
            "'s' has classes without a counterpart in the task: wolf",
        ),
        ({"source": "folder:art"}, ["cat/a.png", "cat/b.png"], "fewer than two"),
        ({"source": "folder:art", "split": "test"}, ["cat/a.png", "dog/b.png"], "has the splits all, but no 'test'"),
        ({"source": "folder:nowhere"}, [], "There is no folder"),
        ({"source": "fodler:art"}, [], "Unknown data source 'fodler:art'"),
        ({"corruptions": ["fogg"]}, [], "no corruption 'fogg'"),
        ({"source": "folder:c", "corruptions": ["fog"]}, [], "does not say where each lies"),
        ({"source": "folder:art", "subset": "no.txt"}, ["cat/a.png", "dog/b.png"], "Cannot read the list"),
    ],
)
def test_sets_that_do_not_fit(asked, paths, said, dataset, tmp_path, write_images) -> None:
    write_images(tmp_path / "art", *paths)
    with pytest.raises(UserError) as caught:
        _opened(dataset, tmp_path, asked)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_clean_to_compare_with(dataset, tmp_path, write_images) -> None:
    write_images(tmp_path / "art", "cat/a.png", "dog/b.png")
    splits = {**dataset.splits, "test": Split(dataset.splits["test"].images, np.array([11]))}
    with pytest.raises(UserError, match="No test image of the task shows a class of the set 's'"):
        _opened(Dataset("folder:own", CLASSES, splits), tmp_path, {"source": "folder:art"})
