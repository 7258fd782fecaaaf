"""The task cards say what they may, agree with themselves, and read the right files from the layouts that they name."""

from __future__ import annotations

import json
import math
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Cityscapes, Flowers102
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from bob.adapters.registry import ADAPTERS
from bob.catalogue import load_task_cards
from bob.data.base import Dataset
from bob.data.objects import IGNORE
from bob.data.sources import BUILT_IN, PREFIXES, load_dataset
from bob.data.voc_masks import CLASSES as VOC_CLASSES
from bob.features.extract import Extraction
from bob.requested import Settings, protocols_of
from bob.results.metrics import METRICS
from bob.task_cards import DataSpec

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "tasks").glob("*/*.toml"))
CARDS = load_task_cards()
each = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)

NAMES = """
    imagenet imagenet_1pct imagenet_10pct cifar10 cifar100 flowers102 eurosat fgvc_aircraft food101 oxford_pets dtd
    stanford_cars caltech101 sun397 inat2019 inat2021 inat2021_mini semi_inat chexpert iwildcam camelyon17 fmow
"""
VTAB = [name for name in CARDS if name.startswith("vtab_")]

# What each card says of itself


def test_every_data_set_has_a_card():
    assert set(NAMES.split()) <= set(CARDS)
    assert len(VTAB) == 19


def test_files_are_called_as_their_cards():
    assert sorted(path.stem for path in FILES) == sorted(CARDS)


@each
def test_facts(card):
    assert card.description.endswith(".")
    assert "\n" not in card.description
    assert card.licence != "unknown"
    assert card.facts or card.data.source.startswith("shapes")
    assert len(set(card.facts)) == len(card.facts)


@each
def test_names_and_prompts(card):
    if card.class_names == "imagenet":
        assert card.data.classes == 1000
    elif card.class_names:
        assert len(card.class_names) == card.data.classes
        assert all(name == name.strip() and "_" not in name for name in card.class_names)
    if not isinstance(card.prompts, str):
        assert all(prompt.count("{}") == 1 for prompt in card.prompts)


@each
def test_metrics(card):
    assert card.primary in card.metrics
    for name in card.metrics:
        METRICS[name].require(card.adapter, has_groups=card.data.source.startswith("wilds:"))


@each
def test_protocols(card):
    assert protocols_of(card, Settings(Path("results"), Extraction(torch.device("cpu"))))


@each
def test_data(card):
    data = card.data
    assert data.source in BUILT_IN or data.source.startswith(PREFIXES)
    assert data.layout or data.source.startswith("torchvision:") or ":" not in data.source
    assert bool(data.subset) == bool(data.subset_sha256)
    for name, per_class in (("val", data.val_count), ("test", data.test_count)):
        if per_class and name in data.expect:
            assert data.expect[name] == per_class * data.classes
    if data.train_count:
        assert data.expect["train"] == (data.train_count - data.val_count) * data.classes


PUBLISHED = {  # images with labels that the publisher counts, where all of them are in the card's splits
    **{"imagenet": 1_281_167 + 50_000, "imagenet_1pct": 12_811 + 50_000, "imagenet_10pct": 128_116 + 50_000},
    **{"cifar10": 60_000, "cifar100": 60_000, "flowers102": 8_189, "eurosat": 27_000, "fgvc_aircraft": 10_000},
    **{"food101": 101_000, "oxford_pets": 3_680 + 3_669, "dtd": 5_640, "stanford_cars": 16_185, "sun397": 39_700},
    **{"inat2021": 2_686_843 + 100_000, "inat2021_mini": 600_000},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_splits_add_up_to_what_is_published(name):
    assert sum(CARDS[name].data.expect.values()) == PUBLISHED[name]


@pytest.mark.parametrize("name", VTAB)
def test_vtab(name):
    data = CARDS[name].data
    assert (data.expect["train"], data.expect["val"]) == (800, 200)
    assert data.expect["test"] >= 711
    assert data.splits == {"train": "train", "val": "val", "test": "test"}


def test_names_are_in_the_order_of_the_labels():
    for name in ("cifar100", "food101"):  # whose labels are alphabetical
        assert list(CARDS[name].class_names) == sorted(CARDS[name].class_names)
    ours, theirs = CARDS["flowers102"].class_names, Flowers102.classes
    assert {(a, b) for a, b in zip(ours, theirs, strict=True) if a != b} == {
        ("globe flower", "globe-flower"),
        ("pink and yellow dahlia", "pink-yellow dahlia?"),
        ("air plant", "ball moss"),
    }


DENSE = """
    coco lvis voc2007_detection voc2012_detection cityscapes_detection sim10k_cityscapes shapes_detection
    ade20k cityscapes_segmentation voc2012_segmentation coco_stuff coco_panoptic shapes_segmentation
"""
TRAINED_AND_TESTED = {  # images that the publisher counts
    **dict.fromkeys(("coco", "coco_stuff", "coco_panoptic"), (118_287, 5000)),
    **dict.fromkeys(("cityscapes_detection", "cityscapes_segmentation"), (2975, 500)),
    **{"lvis": (100_170, 19_809), "voc2007_detection": (5011, 4952), "voc2012_detection": (5717, 5823)},
    **{"sim10k_cityscapes": (10_000, 500), "ade20k": (20_210, 2000), "voc2012_segmentation": (1464, 1449)},
}


def test_every_data_set_of_boxes_and_masks_has_a_card():
    assert {name for name, card in CARDS.items() if card.is_dense} == set(DENSE.split())


@pytest.mark.parametrize("name", TRAINED_AND_TESTED)
def test_val_is_cut_from_what_is_published_to_learn_from(name):
    data, (trained, tested) = CARDS[name].data, TRAINED_AND_TESTED[name]
    assert (data.expect["train"] + data.expect["val"], data.expect["test"]) == (trained, tested)
    assert "val" not in data.splits
    assert data.expect["val"] == math.ceil(data.val_fraction * trained)  # as `subject_cut` rounds


def test_values_of_masks():
    """Against torchvision's table of Cityscapes, and by what the authors of COCO-Stuff say of theirs."""
    city = sorted((c for c in Cityscapes.classes if 0 <= c.train_id < 255), key=lambda c: c.train_id)
    card = CARDS["cityscapes_segmentation"]
    assert card.data.values == tuple(c.id for c in city)
    assert card.class_names == tuple(c.name for c in city)
    ignored = {c.id for c in Cityscapes.classes if c.train_id == 255}
    assert set(card.data.ignore) - {255} == ignored
    stuff = CARDS["coco_stuff"]
    things = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]  # by COCO's ids, N/A where there is none
    assert [n for n in things if n not in ("__background__", "N/A")] == list(stuff.class_names[:80])
    assert [i - 1 for i, n in enumerate(things) if n not in ("__background__", "N/A")] == list(stuff.data.values[:80])
    assert stuff.data.values[80:] == tuple(range(91, 182))
    assert CARDS["ade20k"].data.values == tuple(range(1, 151))
    assert DeepLabV3_ResNet50_Weights.DEFAULT.meta["categories"][1:] == list(VOC_CLASSES[1:])


def test_recipes_of_dense_cards_are_settings():
    for card in CARDS.values():
        known = {name for protocol in ADAPTERS[card.adapter].protocols.values() for name in protocol.settings}
        assert set(card.recipe) <= known
        for protocol in ADAPTERS[card.adapter].protocols.values() if card.recipe else ():
            own = {key: str(value) for key, value in card.recipe.items() if key in protocol.settings}
            protocol.configured(own, None, None)  # every value fits


def test_the_page_is_up_to_date():
    command = [sys.executable, ROOT / "scripts" / "task_table.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# What each card reads, on a few images in the layout of the publisher


def put(path: Path, seed: int = 0) -> None:
    """Write an image of 4 x 4 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def opened(name: str, root: Path, **changes) -> Dataset:
    """Open a card's data without its numbers, which are those of the whole data set."""
    spec = CARDS[name].data.model_copy(update={"expect": {}, "classes": None} | changes)
    adapter = CARDS[name].adapter if CARDS[name].is_dense else None
    return load_dataset(DataSpec.model_validate(spec.model_dump(exclude_unset=True)), root, adapter)


def stems(dataset: Dataset, split: str) -> list[str]:
    return [Path(name).stem for name in dataset.splits[split].names]


def labels(dataset: Dataset, split: str) -> list[str]:
    return [dataset.classes[label] for label in dataset.splits[split].labels]


def test_flowers102_is_tested_on_its_test_split(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *args: True)  # of the real archive
    base = tmp_path / "flowers-102"
    for image in range(1, 9):
        put(base / "jpg" / f"image_{image:05d}.jpg", image)
    savemat(base / "imagelabels.mat", {"labels": [1, 1, 1, 1, 2, 2, 2, 2]})
    savemat(base / "setid.mat", {"trnid": [1, 5], "valid": [2, 6], "tstid": [3, 4, 8, 7]})
    dataset = opened("flowers102", tmp_path)
    assert stems(dataset, "train") == ["image_00001", "image_00005"]
    assert stems(dataset, "val") == ["image_00002", "image_00006"]
    assert stems(dataset, "test") == ["image_00003", "image_00004", "image_00008", "image_00007"]
    assert dataset.splits["test"].labels.tolist() == [0, 0, 1, 1]


def test_fgvc_aircraft_by_variant(tmp_path):
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    write(data / "variants.txt", "707-320", "Tu-134")
    write(data / "families.txt", "Boeing 707", "Tu-134")
    splits = {"train": ["01", "02"], "val": ["03", "04"], "test": ["05", "06"], "trainval": ["01", "02", "03", "04"]}
    for split, images in splits.items():
        lines = [f"{image} {variant}" for image, variant in zip(images, ["707-320", "Tu-134"] * 2, strict=False)]
        write(data / f"images_variant_{split}.txt", *lines)
        for image in images:
            put(data / "images" / f"{image}.jpg")
    dataset = opened("fgvc_aircraft", tmp_path)
    assert {split: stems(dataset, split) for split in dataset.splits} == {
        s: splits[s] for s in ("train", "val", "test")
    }
    assert labels(dataset, "test") == ["707-320", "Tu-134"]


def test_dtd_reads_partition_1(tmp_path):
    base = tmp_path / "dtd" / "dtd"
    for partition in (1, 2):
        for split in ("train", "val", "test"):
            names = [f"{texture}/{texture}_{split}{partition}.jpg" for texture in ("banded", "zigzagged")]
            write(base / "labels" / f"{split}{partition}.txt", *names)
            for name in names:
                put(base / "images" / name)
    dataset = opened("dtd", tmp_path)
    for split in ("train", "val", "test"):
        assert stems(dataset, split) == [f"banded_{split}1", f"zigzagged_{split}1"]


def test_oxford_pets_cuts_val_from_trainval(tmp_path):
    base = tmp_path / "oxford-iiit-pet"
    names = {"trainval": ["Abyssinian_1", "Abyssinian_2", "pug_1", "pug_2"], "test": ["Abyssinian_3", "pug_3"]}
    for split, images in names.items():
        lines = [f"{image} {1 + image.startswith('pug')} 1 1" for image in images]
        write(base / "annotations" / f"{split}.txt", *lines)
        for image in images:
            put(base / "images" / f"{image}.jpg")
    dataset = opened("oxford_pets", tmp_path)
    assert dataset.classes == ("Abyssinian", "Pug")
    assert sorted(stems(dataset, "train") + stems(dataset, "val")) == names["trainval"]
    assert labels(dataset, "val") == labels(dataset, "train") == ["Abyssinian", "Pug"]
    assert stems(dataset, "test") == names["test"]


def test_eurosat_is_cut_in_60_20_20(tmp_path):
    for land in ("Forest", "River"):
        for image in range(1, 21):
            put(tmp_path / "eurosat" / "2750" / land / f"{land}_{image}.jpg", image)
    dataset = opened("eurosat", tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 24, "val": 8, "test": 8}
    assert labels(dataset, "test") == ["Forest"] * 4 + ["River"] * 4
    everything = [name for split in dataset.splits for name in stems(dataset, split)]
    assert len(set(everything)) == 40


def test_cifar10(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)  # of the real archive
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for value, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        pixels = np.full((4, 3072), value, dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1, 0, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "automobile"]}))
    dataset = opened("cifar10", tmp_path, val_count=2)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 16, "val": 4, "test": 4}
    values = {name: {int(s.images.read(i).max()) for i in s.indices} for name, s in dataset.splits.items()}
    assert values["test"] == {5}
    assert values["train"] | values["val"] == {0, 1, 2, 3, 4}


def test_food101(tmp_path):
    base = tmp_path / "food-101"
    meta = {"train": {"pizza": ["pizza/1", "pizza/2"], "sushi": ["sushi/1", "sushi/2"]}, "test": {"pizza": ["pizza/3"]}}
    for split, images in meta.items():
        write(base / "meta" / f"{split}.json", json.dumps({"sushi": [], **images}))
        for image in (image for listed in images.values() for image in listed):
            put(base / "images" / f"{image}.jpg")
    dataset = opened("food101", tmp_path)
    assert sorted(dataset.splits["train"].names + dataset.splits["val"].names) == [
        f"food-101/images/{name}.jpg" for name in ("pizza/1", "pizza/2", "sushi/1", "sushi/2")
    ]
    assert dataset.splits["test"].names == ["food-101/images/pizza/3.jpg"]


def test_stanford_cars_in_the_layout_of_the_card(tmp_path):
    base = tmp_path / "stanford_cars"
    kind = [("fname", "O"), ("class", "O")]
    files = {
        "cars_train": base / "devkit" / "cars_train_annos.mat",
        "cars_test": base / "cars_test_annos_withlabels.mat",
    }
    for folder, listed in files.items():
        listed.parent.mkdir(parents=True, exist_ok=True)
        rows = [(f"{image:05d}.jpg", 1 + image % 2) for image in range(1, 5)]
        savemat(listed, {"annotations": np.array(rows, dtype=kind)})
        for image, _ in rows:
            put(base / folder / image)
        assert f"stanford_cars/{listed.relative_to(base).as_posix()}" in CARDS["stanford_cars"].data.layout
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["BMW M3", "Fiat 500"], dtype=object)})
    dataset = opened("stanford_cars", tmp_path)
    assert {Path(name).parent.name for name in dataset.splits["test"].names} == {"cars_test"}
    assert {Path(name).parent.name for s in ("train", "val") for name in dataset.splits[s].names} == {"cars_train"}
    assert labels(dataset, "test") == ["Fiat 500", "BMW M3"] * 2


def test_caltech101_learns_from_30_of_each_class(tmp_path):
    base = tmp_path / "caltech101" / "101_ObjectCategories"
    sizes = {"BACKGROUND_Google": 3, "accordion": 33, "ant": 31}
    for name, size in sizes.items():
        for image in range(1, size + 1):
            put(base / name / f"image_{image:04d}.jpg", image)
    dataset = opened("caltech101", tmp_path)
    counts = {name: np.bincount(split.labels).tolist() for name, split in dataset.splits.items()}
    assert counts == {"train": [25, 25], "val": [5, 5], "test": [3, 1]}


def test_imagenet_subset_leaves_nothing_but_its_list_to_learn_and_choose_from(tmp_path):
    base, names = tmp_path / "imagenet", {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}
    for wnid in names:
        for image in range(6):
            put(base / "train" / wnid / f"{wnid}_{image}.JPEG", image)
        put(base / "val" / wnid / f"ILSVRC2012_val_{wnid}.JPEG")
    torch.save((names, []), base / "meta.bin")
    listed = [f"{wnid}_{image}.JPEG" for wnid in names for image in (1, 3, 5)]
    write(tmp_path / "list.txt", *listed)
    dataset = opened("imagenet_1pct", tmp_path, subset="list.txt", subset_sha256=None)
    found = sorted(Path(name).name for split in ("train", "val") for name in dataset.splits[split].names)
    assert found == listed
    assert np.bincount(dataset.splits["val"].labels).tolist() == [2, 2]
    assert dataset.classes == ("tench, Tinca tinca", "goldfish")
    whole = opened("imagenet", tmp_path, val_count=1)
    assert {name: len(split) for name, split in whole.splits.items()} == {"train": 10, "val": 2, "test": 2}


@pytest.mark.parametrize("name", ["inat2021", "inat2021_mini"])
def test_inat2021_is_tested_on_its_val(tmp_path, name):
    species = ["00000_Animalia_a_b_c_d_Lumbricus_terrestris", "00001_Animalia_a_b_c_d_Sabella_spallanzanii"]
    for folder, count in ((CARDS[name].data.splits["train"], 4), ("2021_valid", 1)):
        for one in species:
            for image in range(count):
                put(tmp_path / "inaturalist" / folder / one / f"{folder}_{image}.jpg", image)
    dataset = opened(name, tmp_path, val_count=1)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert stems(dataset, "test") == ["2021_valid_0", "2021_valid_0"]
    assert dataset.classes == ("Lumbricus terrestris", "Sabella spallanzanii")


def test_semi_inat_is_tested_on_its_val(tmp_path):
    for species in ("0", "1"):
        for image in range(10):
            put(tmp_path / "semi_inat" / "train" / species / f"{image}.jpg", image)
        put(tmp_path / "semi_inat" / "val" / species / "val.jpg")
    dataset = opened("semi_inat", tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 16, "val": 4, "test": 2}
    assert stems(dataset, "test") == ["val", "val"]


def test_chexpert_is_tested_on_its_validation_images(tmp_path):
    base = tmp_path / "CheXpert-v1.0-small"
    findings = ["Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion"]
    for split, patients in {"train": range(1, 21), "valid": range(21, 23)}.items():
        views = [(f"{split}/patient{patient:05d}/study1/view{view}", view) for patient in patients for view in (1, 2)]
        rows = [f"{base.name}/{v}.jpg,{'Frontal' if n == 1 else 'Lateral'},1,0,1,0,1" for v, n in views]
        write(base / f"{split}.csv", ",".join(["Path", "Frontal/Lateral", *findings]), *rows)
        for view, _ in views:
            put(base / f"{view}.jpg")
    dataset = opened("chexpert", tmp_path)
    assert dataset.classes == tuple(findings)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 18, "val": 2, "test": 2}
    assert all("/valid/" in f"/{name}" and name.endswith("view1.jpg") for name in dataset.splits["test"].names)


# The commands that write a manifest


def run_command_of(name: str, folder: Path) -> None:
    (line,) = [line for line in CARDS[name].data.layout.splitlines() if line.startswith("python ")]
    subprocess.run([sys.executable, *shlex.split(line)[1:]], cwd=folder, check=True)


def test_sun397_reads_partition_1(tmp_path):
    base = tmp_path / "SUN397"
    scenes = ("a/abbey", "a/apse/indoor")
    names = {
        "Training": [f"/{s}/sun_{i}.jpg" for s in scenes for i in "ab"],
        "Testing": [f"/{s}/sun_c.jpg" for s in scenes],
    }
    for which, other in (("Training", "Testing"), ("Testing", "Training")):
        write(base / "Partitions" / f"{which}_01.txt", *names[which])
        write(base / "Partitions" / f"{which}_02.txt", *names[other])
        for image in names[which]:
            put(base / image[1:])
    run_command_of("sun397", base)
    dataset = opened("sun397", tmp_path)
    assert dataset.classes == ("abbey", "apse indoor")
    assert [f"/{name}" for name in dataset.splits["test"].names] == names["Testing"]
    assert labels(dataset, "train") == labels(dataset, "val") == ["abbey", "apse indoor"]


def test_inat2019_is_tested_on_its_val(tmp_path):
    base = tmp_path / "inat2019"
    for split, images in {"train": range(4), "val": range(4, 6)}.items():
        files = [f"train_val2019/Birds/{9 + image % 2}/{image}.jpg" for image in images]
        write(base / f"{split}2019.json", json.dumps({"images": [{"id": 0, "file_name": name} for name in files]}))
        for name in files:
            put(base / name)
    run_command_of("inat2019", base)
    dataset = opened("inat2019", tmp_path)
    assert dataset.classes == ("0009", "0010")
    assert stems(dataset, "test") == ["4", "5"]
    assert sorted(stems(dataset, "train") + stems(dataset, "val")) == ["0", "1", "2", "3"]


def test_vtab_keeps_its_splits_and_the_order_of_its_labels(tmp_path):
    base = tmp_path / "vtab-1k" / "cifar"
    for split in ("train800", "val200", "test"):
        names = [f"images/{split}/{image:06d}.jpg" for image in range(12)]
        write(base / f"{split}.txt", *(f"{name} {label}" for label, name in enumerate(names)))
        for name in names:
            put(base / name)
    run_command_of("vtab_cifar100", base)
    dataset = opened("vtab_cifar100", tmp_path)
    assert dataset.classes == tuple(f"{label:03d}" for label in range(12))
    for split, folder in {"train": "train800", "val": "val200", "test": "test"}.items():
        assert dataset.splits[split].labels.tolist() == list(range(12))
        assert {Path(name).parent.name for name in dataset.splits[split].names} == {folder}


def test_vtab_cards_differ_in_nothing_but_the_folder():
    data = [CARDS[name].data for name in VTAB]
    assert len({spec.source for spec in data}) == 19
    assert len({spec.layout.replace(spec.source.removeprefix("folder:"), "") for spec in data}) == 1


# Boxes and masks


def put_mask(path: Path, values, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(np.asarray(values, dtype=np.uint8))
    if palette:
        mask = mask.convert("P")
    mask.save(path)


def test_ade20k(tmp_path):
    base = tmp_path / "ADEChallengeData2016"
    for split, name in (("training", "ADE_train"), ("validation", "ADE_val")):
        for image in range(1, 5):
            put(base / f"images/{split}/{name}_{image:08d}.jpg", image)
            put_mask(base / f"annotations/{split}/{name}_{image:08d}.png", [[0, 1, 2, 150]] * 4)
    dataset = opened("ade20k", tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 3, "val": 1, "test": 4}
    assert dataset.splits["test"].names[0] == "validation/ADE_val_00000001.jpg"
    np.testing.assert_array_equal(dataset.splits["test"].target(0)[0], [IGNORE, 0, 1, 149])
    assert CARDS["ade20k"].class_names[149] == "flag"


def test_cityscapes_reads_label_ids(tmp_path):
    for split, city in (("train", "aachen"), ("val", "lindau"), ("test", "berlin")):
        for image in range(3):
            stem = f"{city}/{city}_{image:06d}_000019"
            put(tmp_path / f"cityscapes/leftImg8bit/{split}/{stem}_leftImg8bit.png", image)
            for kind in ("labelIds", "instanceIds", "color"):
                put_mask(tmp_path / f"cityscapes/gtFine/{split}/{stem}_gtFine_{kind}.png", [[0, 7, 33, 30]] * 4)
    dataset = opened("cityscapes_segmentation", tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2, "val": 1, "test": 3}
    np.testing.assert_array_equal(dataset.splits["test"].target(0)[0], [IGNORE, 0, 18, IGNORE])


def test_voc2012_segmentation(tmp_path):
    base = tmp_path / "VOCdevkit/VOC2012"
    for split in ("train", "val"):
        for image in range(3):
            put(base / f"JPEGImages/{split}{image}.jpg", image)
            put_mask(base / f"SegmentationClass/{split}{image}.png", [[0, 1, 20, 255]] * 4, palette=True)
        write(base / f"ImageSets/Segmentation/{split}.txt", *(f"{split}{image}" for image in range(3)))
    dataset = opened("voc2012_segmentation", tmp_path)
    assert (len(dataset.classes), dataset.classes[20]) == (21, "tvmonitor")
    assert stems(dataset, "test") == ["val0", "val1", "val2"]
    np.testing.assert_array_equal(dataset.splits["test"].target(0)[0], [0, 1, 20, IGNORE])


def test_coco_as_masks(tmp_path):
    """COCO-Stuff's pixel maps and the panoptic PNGs of the same images."""
    for split in ("train2017", "val2017"):
        content: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
        for image in range(3):
            put(tmp_path / f"coco/{split}/{image:012d}.jpg", image)
            put_mask(tmp_path / f"coco/stuffthingmaps/{split}/{image:012d}.png", [[0, 10, 12, 181]] * 3 + [[255] * 4])
            put_mask(tmp_path / f"coco/annotations/panoptic_{split}/{image:012d}.png", [[[1, 1, 0]] * 4] * 4)
            content["images"].append({"id": image, "file_name": f"{image:012d}.jpg"})
            segments = [{"id": 257, "category_id": 1, "iscrowd": 0}]
            annotation = {"image_id": image, "file_name": f"{image:012d}.png", "segments_info": segments}
            content["annotations"].append(annotation)
        write(tmp_path / f"coco/annotations/panoptic_{split}.json", json.dumps(content))
    stuff = opened("coco_stuff", tmp_path).splits
    np.testing.assert_array_equal(stuff["test"].target(0)[[0, 3]], [[0, 10, 11, 170], [IGNORE] * 4])
    assert {name: len(split) for name, split in stuff.items()} == {"train": 2, "val": 1, "test": 3}
    panoptic = opened("coco_panoptic", tmp_path)
    assert panoptic.classes == ("person",)
    assert not panoptic.splits["test"].target(2).any()
