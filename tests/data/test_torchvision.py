"""torchvision's data sets are read from where torchvision keeps them; the rest ends in one line."""

from __future__ import annotations

import gzip
import pickle
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as datasets
from PIL import Image

from bob.cards import DataSpec
from bob.data.sources import load_dataset
from bob.data.torchvision import load_torchvision
from bob.errors import UserError


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
