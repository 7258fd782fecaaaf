"""The built-in images with several labels are the same on every machine, and their labels tell what is in them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from bob.data import shapes_multilabel
from bob.data.rendered import content_hash
from bob.data.shapes_multilabel import draw, load_shapes_multilabel
from bob.data.silhouettes import CLASSES, PHOTOS
from bob.data.sources import load_dataset
from bob.task_cards import DataSpec

FIRST_PIXELS = "36a4a4b76137f37e221e5dfb2929f3d15ca6acb08fa28f2fc6e5045d7737bda2"


@pytest.fixture
def few(bob_home, monkeypatch):
    """The data set with a few images in each split."""
    monkeypatch.setattr(shapes_multilabel, "SPLITS", {"train": 12, "val": 4, "test": 6})
    return load_shapes_multilabel()


def test_its_splits(few) -> None:
    assert {name: len(split) for name, split in few.splits.items()} == {"train": 12, "val": 4, "test": 6}
    assert few.classes == CLASSES and few.groups == PHOTOS and few.multilabel
    for name, split in few.splits.items():
        assert split.labels.shape == (len(split), 10) and split.labels.dtype == np.int64
        assert set(np.unique(split.labels)) == {0, 1}
        assert set(split.groups) <= {0, 1}
        assert split.names[1] == f"shapes_multilabel/{name}/00001"


def test_an_image_is_the_one_drawn(few) -> None:
    image, row = draw(0, "val", 2)
    images = few.splits["val"].images
    assert torch.equal(images.read(2), torch.from_numpy(image).permute(2, 0, 1))
    assert images.labels[2].tolist() == [row[name] for name in CLASSES]
    assert PHOTOS[images.groups[2]] == row["background_photo"]
    again = pickle.loads(pickle.dumps(images))
    assert torch.equal(again.read(2), images.read(2)) and again.fingerprint() == images.fingerprint()


def test_one_to_four_silhouettes_of_every_class() -> None:
    rows = [draw(0, "train", index)[1] for index in range(150)]
    labels = np.array([[row[name] for name in CLASSES] for row in rows])
    assert np.bincount(labels.sum(axis=1), minlength=5)[1:].min() > 20 and labels.sum(axis=1).max() == 4
    assert labels.sum(axis=0).min() > 15


def test_the_same_everywhere() -> None:
    images = np.stack([draw(0, split, 0)[0] for split in ("train", "val", "test")])
    assert content_hash(images) == FIRST_PIXELS
    assert not np.array_equal(images[0], draw(1, "train", 0)[0])


def test_as_a_source(few) -> None:
    dataset = load_dataset(DataSpec(source="shapes_multilabel", classes=10, expect={"test": 6}), adapter="multilabel")
    assert dataset.splits["test"].checksum() == few.splits["test"].checksum()
