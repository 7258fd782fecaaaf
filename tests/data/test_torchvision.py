"""torchvision's data sets are read from where torchvision keeps them; the rest ends in one line."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as datasets
from PIL import Image

from bob.data.base import Dataset
from bob.data.files import FileImages
from bob.data.sources import load_dataset
from bob.data.torchvision import load_torchvision
from bob.errors import UserError
from bob.task_cards import DataSpec


def refused(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_torchvision(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_eurosat(tmp_path, write_images) -> None:
    names = ["AnnualCrop", "Forest", "River"]
    write_images(tmp_path / "eurosat/2750", *(f"{name}/{name}_{n}.jpg" for name in names for n in range(5)))
    classes, pools = load_torchvision("EuroSAT", tmp_path)
    assert classes == tuple(names)
    assert list(pools) == ["all"]
    assert pools["all"].labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert pools["all"].names[7] == "eurosat/2750/Forest/Forest_2.jpg"
    assert pools["all"].read(7).shape == (3, 6, 8)
    assert pools["all"].read(7).dtype == torch.uint8
    dataset = load_dataset(DataSpec(source="torchvision:EuroSAT"), tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 9, "val": 3, "test": 3}


def test_fingerprint_of_decoded_images(tmp_path, write_images, photograph) -> None:
    write_images(tmp_path / "eurosat/2750", "a/1.jpg", "b/2.jpg")
    first = load_torchvision("EuroSAT", tmp_path)[1]["all"].fingerprint()
    assert load_torchvision("EuroSAT", tmp_path)[1]["all"].fingerprint() == first
    photograph(9, (8, 6)).save(tmp_path / "eurosat/2750/b/2.jpg")
    assert load_torchvision("EuroSAT", tmp_path)[1]["all"].fingerprint() != first


def test_a_broken_image_is_named(tmp_path, write_images) -> None:
    write_images(tmp_path / "eurosat/2750", "a/1.jpg", "b/2.jpg")
    path = tmp_path / "eurosat/2750/b/2.jpg"
    path.write_bytes(path.read_bytes()[:300])
    images = load_torchvision("EuroSAT", tmp_path)[1]["all"]
    with pytest.raises(UserError, match=r"2\.jpg \(index 1\)"):
        images.read(1)


def test_mnist(tmp_path) -> None:
    rng = np.random.default_rng(0)
    pixels = {name: rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for name, n in (("train", 30), ("t10k", 10))}
    for name, images in pixels.items():
        raw, count = tmp_path / "MNIST/raw", len(images)
        raw.mkdir(parents=True, exist_ok=True)
        digits = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + digits.tobytes())
    classes, pools = load_torchvision("MNIST", tmp_path)
    assert classes[:2] == ("0 - zero", "1 - one")
    assert {name: len(pool) for name, pool in pools.items()} == {"train": 30, "test": 10}
    assert pools["test"].labels.tolist() == list(range(10))
    expected = np.repeat(pixels["t10k"][3][None], 3, axis=0)
    np.testing.assert_array_equal(pools["test"].read(3), expected)
    dataset = load_dataset(DataSpec(source="torchvision:MNIST"), tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 20, "val": 10, "test": 10}


def test_cifar10(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)  # of the real archive
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        content = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 9]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    classes, pools = load_torchvision("CIFAR10", tmp_path)
    assert classes == tuple("abcdefghij")
    assert pools["train"].labels.tolist() == [0, 1, 2, 9] * 5
    np.testing.assert_array_equal(pools["test"].read(3).flatten(), content["data"][3])


# Splits and options that a card names


def load(source: str, root: Path, **keys) -> Dataset:
    return load_dataset(DataSpec(source=f"torchvision:{source}", **keys), root)


@pytest.fixture
def aircraft(tmp_path, write_images) -> Path:
    """Six aircraft: images, three levels of names, four lists of each."""
    data = tmp_path / "fgvc-aircraft-2013b/data"
    write_images(data / "images", *(f"{n:07d}.jpg" for n in range(6)))
    names = {"variant": ["707-320", "A300 B4"], "family": ["Boeing 707", "A300"], "manufacturer": ["Boeing", "Airbus"]}
    lists = {"train": (0, 1), "val": (2, 3), "trainval": (0, 1, 2, 3), "test": (4, 5)}
    files = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
    for level, kinds in names.items():
        (data / files[level]).write_text("\n".join(kinds) + "\n")
        for split, numbers in lists.items():
            rows = [f"{n:07d} {kinds[n % 2]}" for n in numbers]
            (data / f"images_{level}_{split}.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_aircraft(aircraft) -> None:
    dataset = load("FGVCAircraft", aircraft)
    assert dataset.classes == ("707-320", "A300 B4")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2, "val": 2, "test": 2}
    spec = {"options": {"annotation_level": "manufacturer"}, "splits": {"train": "trainval", "test": "test"}}
    makers = load("FGVCAircraft", aircraft, val_fraction=0.5, **spec)
    assert makers.classes == ("Boeing", "Airbus")
    assert sorted(makers.splits["train"].names + makers.splits["val"].names) == [
        f"fgvc-aircraft-2013b/data/images/{n:07d}.jpg" for n in range(4)
    ]


def test_a_folder_below_the_data_root(aircraft) -> None:
    folder = aircraft / "sets/planes"
    folder.mkdir(parents=True)
    (aircraft / "fgvc-aircraft-2013b").rename(folder / "fgvc-aircraft-2013b")
    assert len(load("FGVCAircraft", aircraft, options={"root": "sets/planes"}).splits["test"]) == 2


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"options": {"level": "family"}}, "FGVCAircraft takes no option 'level'.*annotation_level"),
        ({"options": {"annotation_lvl": "family"}}, "no option 'annotation_lvl'. Did you mean: annotation_level"),
        ({"options": {"annotation_level": "famly"}}, "Unknown value 'famly'.*Correct 'options'"),
        ({"options": {"download": True}}, "takes no option 'download'"),
        ({"splits": {"train": "train", "test": "tset"}}, "FGVCAircraft has no split 'tset'"),
    ],
)
def test_options_and_splits_that_are_wrong(aircraft, keys, problem) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        load("FGVCAircraft", aircraft, **keys)
    assert "\n" not in str(caught.value)


def test_partitions_of_dtd(tmp_path, write_images) -> None:
    root = tmp_path / "dtd/dtd"
    names = [f"{kind}/{kind}_{n:04d}.jpg" for kind in ("banded", "woven") for n in range(6)]
    write_images(root / "images", *names)
    (root / "labels").mkdir()
    for partition in (1, 2):
        for number, split in enumerate(("train", "val", "test")):
            chosen = [name for n, name in enumerate(names) if (n + partition) % 3 == number]
            (root / f"labels/{split}{partition}.txt").write_text("\n".join(chosen) + "\n")
    first, second = load("DTD", tmp_path), load("DTD", tmp_path, options={"partition": 2})
    assert first.classes == second.classes == ("banded", "woven")
    assert first.splits["train"].names[0].endswith("banded_0002.jpg")
    assert second.splits["train"].names[0].endswith("banded_0001.jpg")
    both = load("DTD", tmp_path, splits={"train": "train+val", "test": "test"}, val_fraction=0.25)
    assert {name: len(split) for name, split in both.splits.items()} == {"train": 6, "val": 2, "test": 4}


def test_food101(tmp_path, write_images) -> None:
    root = tmp_path / "food-101"
    lists = {
        "train": {"soup": ["soup/1", "soup/2"], "tart": ["tart/3", "tart/4"]},
        "test": {"soup": ["soup/5"], "tart": ["tart/6"]},
    }
    (root / "meta").mkdir(parents=True)
    for split, listed in lists.items():
        write_images(root / "images", *(f"{name}.jpg" for names in listed.values() for name in names))
        (root / f"meta/{split}.json").write_text(json.dumps(listed))
    dataset = load("Food101", tmp_path, val_fraction=0.5, classes=2, expect={"train": 2, "val": 2, "test": 2})
    assert dataset.splits["test"].names == ["food-101/images/soup/5.jpg", "food-101/images/tart/6.jpg"]


def test_pets(tmp_path, write_images) -> None:
    root = tmp_path / "oxford-iiit-pet"
    rows = [f"{kind}_{n} {number + 1} 1 1" for number, kind in enumerate(("Abyssinian", "beagle")) for n in range(4)]
    write_images(root / "images", *(f"{row.split()[0]}.jpg" for row in rows))
    (root / "annotations").mkdir()
    (root / "annotations/trainval.txt").write_text("\n".join(rows[0:3] + rows[4:7]) + "\n")
    (root / "annotations/test.txt").write_text("\n".join(rows[3::4]) + "\n")
    dataset = load("OxfordIIITPet", tmp_path)
    assert dataset.classes == ("Abyssinian", "Beagle")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 4, "val": 2, "test": 2}
    with pytest.raises(UserError, match="gives targets that are not its classes"):
        load("OxfordIIITPet", tmp_path, options={"target_types": "binary-category"})


def test_stanford_cars(tmp_path, write_images) -> None:
    from scipy.io import savemat

    root = tmp_path / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit/cars_meta.mat", {"class_names": np.array([["AM General Hummer", "Audi TT"]], dtype=object)})
    for split, file, count in (("train", "cars_train_annos", 6), ("test", "cars_test_annos_withlabels", 4)):
        base = root / ("devkit" if split == "train" else "")
        kind = np.dtype([("fname", object), ("class", object)])
        annotations = np.array([(f"{n:05d}.jpg", n % 2 + 1) for n in range(count)], dtype=kind)
        savemat(base / f"{file}.mat", {"annotations": annotations})
        write_images(root / f"cars_{split}", *(f"{n:05d}.jpg" for n in range(count)))
    dataset = load("StanfordCars", tmp_path, expect={"train": 4, "val": 2, "test": 4})
    assert dataset.classes == ("AM General Hummer", "Audi TT")
    assert dataset.splits["test"].labels.tolist() == [0, 1, 0, 1]


def test_caltech101(tmp_path, write_images) -> None:
    folder = tmp_path / "caltech101/101_ObjectCategories"
    sizes = {"BACKGROUND_Google": 2, "Faces": 7, "accordion": 5}
    write_images(folder, *(f"{name}/image_{n:04d}.jpg" for name, size in sizes.items() for n in range(1, size + 1)))
    dataset = load("Caltech101", tmp_path, train_count=4, test_count=2, val_count=1)
    assert dataset.classes == ("Faces", "accordion")
    assert {name: c.tolist() for name, c in dataset.class_counts().items()} == {
        "train": [3, 3],
        "val": [1, 1],
        "test": [2, 1],
    }
    assert isinstance(dataset.splits["train"].images, FileImages)
    for split in dataset.splits.values():
        assert [name.split("/")[2] for name in split.names] == [dataset.classes[label] for label in split.labels]


def test_sun397_in_any_order_of_the_disk(tmp_path, write_images, monkeypatch) -> None:
    root = tmp_path / "SUN397"
    write_images(root, *(f"{c}/sun_{n}.jpg" for c in ("a/abbey", "b/bar/indoor") for n in range(3)))
    (root / "ClassName.txt").write_text("/a/abbey\n/b/bar/indoor\n")
    classes, pools = load_torchvision("SUN397", tmp_path)
    assert classes == ("abbey", "bar/indoor")
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: sorted(rglob(self, pattern), reverse=True))
    again = load_torchvision("SUN397", tmp_path)[1]["all"]
    assert again.names == pools["all"].names == sorted(again.names)
    assert again.labels.tolist() == pools["all"].labels.tolist() == [0, 0, 0, 1, 1, 1]


WORMS = ("00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris",)
ANTS = ("00001_Animalia_Arthropoda_Insecta_Hymenoptera_Formicidae_Formica_rufa",)
SPECIES = (*WORMS, *ANTS, "00002_Animalia_Arthropoda_Insecta_Hymenoptera_Formicidae_Lasius_niger")


def test_inaturalist(tmp_path, write_images) -> None:
    for version, count in (("2021_train_mini", 5), ("2021_valid", 2)):
        write_images(tmp_path / version, *(f"{kind}/{n:03d}.jpg" for kind in SPECIES for n in range(count)))
    splits = {"train": "2021_train_mini", "test": "2021_valid"}
    dataset = load("INaturalist", tmp_path, splits=splits, classes=3, expect={"train": 12, "val": 3, "test": 6})
    assert dataset.classes == ("Lumbricus terrestris", "Formica rufa", "Lasius niger")
    assert dataset.splits["test"].names == [f"2021_valid/{kind}/{n:03d}.jpg" for kind in SPECIES for n in range(2)]
    families = load("INaturalist", tmp_path, splits=splits, options={"target_type": "family"})
    assert families.classes == ("Lumbricidae", "Formicidae")
    assert families.splits["test"].labels.tolist() == [0, 0, 1, 1, 1, 1]


def test_imagenet(tmp_path, write_images) -> None:
    root = tmp_path / "imagenet"
    names = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}
    for split in ("train", "val"):
        write_images(root / split, *(f"{wnid}/{wnid}_{n}.JPEG" for wnid in names for n in range(5)))
    torch.save((names, ["n01440764"]), root / "meta.bin")
    (tmp_path / "1percent.txt").write_text("".join(f"{wnid}_{n}.JPEG\n" for wnid in names for n in range(3)))
    dataset = load("ImageNet", tmp_path, options={"root": "imagenet"}, subset="1percent.txt", val_fraction=0.34)
    assert dataset.classes == ("tench, Tinca tinca", "goldfish")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 4, "val": 2, "test": 10}
    assert dataset.facts["splits"] == (
        "train: 6 images of a list; test: the source's val; val: 34% of train, stratified"
    )


def test_flowers102(tmp_path, write_images, monkeypatch) -> None:
    from scipy.io import savemat

    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)  # of the real lists
    root = tmp_path / "flowers-102"
    write_images(root / "jpg", *(f"image_{n:05d}.jpg" for n in range(1, 409)))
    savemat(root / "imagelabels.mat", {"labels": (np.arange(408) % 102 + 1).astype(np.uint8)})
    ids = {"trnid": np.arange(1, 103), "valid": np.arange(103, 205), "tstid": np.arange(205, 409)}
    savemat(root / "setid.mat", ids)
    dataset = load("Flowers102", tmp_path, classes=102, expect={"train": 102, "val": 102, "test": 204})
    assert dataset.splits["test"].names[0] == "flowers-102/jpg/image_00205.jpg"
    with pytest.raises(UserError, match="204 images in test instead of 6,149"):
        load("Flowers102", tmp_path, expect={"train": 102, "test": 6149})


def test_emnist_is_several_data_sets(tmp_path) -> None:
    raw = tmp_path / "EMNIST/raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 52), ("test", 26)):
        pixels, labels = np.zeros((count, 28, 28), np.uint8), (np.arange(count) % 26 + 1).astype(np.uint8)
        images = struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes()
        (raw / f"emnist-letters-{name}-images-idx3-ubyte").write_bytes(images)
        (raw / f"emnist-letters-{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, count) + labels.tobytes()
        )
    dataset = load("EMNIST", tmp_path, options={"split": "letters"}, val_fraction=0.5)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 26, "val": 26, "test": 26}


# Data sets that behave in other ways


@pytest.fixture
def register(monkeypatch):
    """Give torchvision a data set of four images, with the given split names and behaviour."""

    def add(splits=("train", "test"), targets=(0, 1, 0, 1), attribute="targets", classes=None, init=None) -> None:
        class Registered(datasets.VisionDataset):
            def __init__(self, root, split="train", transform=None, download=False) -> None:
                super().__init__(root)
                if split not in splits:
                    raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {splits}.")
                if init:
                    init(self, split, download)
                self._targets = list(targets)
                if attribute:
                    setattr(self, attribute, self._targets)
                if classes:
                    self.classes = classes

            def __len__(self) -> int:
                return len(self._targets)

            def __getitem__(self, index: int):
                return Image.new("L", (4, 4), 10 * index), self._targets[index]

        Registered.__name__ = "Registered"
        monkeypatch.setattr(datasets, "Registered", Registered, raising=False)

    return add


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "val", "test"), ["train", "val", "test"]),
        (("trainval", "test"), ["train", "test"]),
        (("train", "valid", "test"), ["train", "val", "test"]),
        (("train", "val", "trainval", "test", "extra"), ["train", "val", "test"]),
    ],
)
def test_names_of_splits(tmp_path, register, splits, expected) -> None:
    register(splits)
    assert list(load_torchvision("Registered", tmp_path)[1]) == expected


def test_splits_with_different_classes(tmp_path, register) -> None:
    def init(self, split, download) -> None:
        self.classes = ["a", "b"] if split == "train" else ["b", "a"]

    register(init=init)
    assert "have different classes" in refused("Registered", tmp_path)


def test_other_splits_are_no_splits(tmp_path, register) -> None:
    register(("day", "night"))
    assert "none of the splits train, val and test" in refused("Registered", tmp_path)


@pytest.mark.parametrize("attribute", ["targets", "labels", "_labels", "y", None])
def test_labels_wherever_they_are_kept(tmp_path, register, attribute) -> None:
    register(attribute=attribute)
    classes, pools = load_torchvision("Registered", tmp_path)
    assert pools["train"].labels.tolist() == [0, 1, 0, 1]
    assert pools["train"].labels.dtype == np.int64
    assert classes == ("0", "1")
    assert pools["train"].read(2).tolist() == [[[20] * 4] * 4] * 3


def test_several_names_for_one_class(tmp_path, register) -> None:
    register(classes=[("tench", "Tinca tinca"), "goldfish"])
    assert load_torchvision("Registered", tmp_path)[0] == ("tench, Tinca tinca", "goldfish")


@pytest.mark.parametrize(
    "targets", [[{"boxes": []}] * 4, [[1, 2]] * 4, ["caption"] * 4, [0.5, 0.1, 0.2, 0.3], [None] * 4]
)
def test_targets_that_are_no_classes(tmp_path, register, targets) -> None:
    for attribute in ("targets", None):
        register(targets=targets, attribute=attribute)
        assert "Registered has no class labels" in refused("Registered", tmp_path)


def test_what_is_there_is_not_downloaded(tmp_path, register) -> None:
    def init(self, split, download) -> None:
        if download:
            raise RuntimeError("The directory already exists.")

    register(init=init)
    assert len(load_torchvision("Registered", tmp_path)[1]) == 2


def test_what_is_missing_is_downloaded_into_the_root(tmp_path, register) -> None:
    def init(self, split, download) -> None:
        if download:
            (Path(self.root) / split).touch()
        if not (Path(self.root) / split).exists():
            raise RuntimeError("Dataset not found.")

    register(init=init)
    root = tmp_path / "new" / "root"
    assert len(load_torchvision("Registered", root)[1]) == 2
    assert sorted(path.name for path in root.iterdir()) == ["test", "train"]


def test_a_damaged_split_is_not_taken_for_a_missing_one(tmp_path, register) -> None:
    def init(self, split, download) -> None:
        if split == "test":
            raise ValueError("x should have 3 dimensions instead of 2")

    register(init=init)
    assert "x should have 3 dimensions" in refused("Registered", tmp_path)


# Errors


def test_unknown_names(tmp_path) -> None:
    assert "Did you mean: EuroSAT" in refused("eurosat", tmp_path)
    assert "Did you mean: CIFAR10" in refused("Cifar-10", tmp_path)
    assert "no data set 'utils'" in refused("utils", tmp_path)


@pytest.mark.parametrize(
    "name", ["FakeData", "ImageFolder", "VisionDataset", "VOCDetection", "VOCSegmentation", "Kitti", "WIDERFace"]
)
def test_not_for_classification(tmp_path, no_network, name) -> None:
    assert f"{name} is no classification data set" in refused(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_with_options(tmp_path) -> None:
    message = refused("CocoDetection", tmp_path)
    assert "needs options" in message
    assert "folder:PATH" in message


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "EuroSAT", "Flowers102", "SVHN", "ImageNet", "StanfordCars"])
def test_no_network(tmp_path, no_network, name) -> None:
    started = time.perf_counter()
    message = refused(name, tmp_path)
    assert time.perf_counter() - started < 10
    assert f"{name} is not in {tmp_path} and cannot be downloaded" in message
    assert "BOB_DATA" in message


def test_no_network_on_the_command_line(tmp_path, no_network, bob_home, capsys) -> None:
    from bob.cli import main

    with pytest.raises(SystemExit) as caught:
        main(["run", "--backbone", "pixels", "--task", "torchvision:MNIST", "--results", str(tmp_path / "results")])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "cannot be downloaded" in captured.err
    assert not (tmp_path / "results").exists()


def test_half_a_download_is_not_read(tmp_path, no_network) -> None:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    with gzip.open(raw / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(b"half")
    assert "cannot be downloaded" in refused("MNIST", tmp_path)
