"""Test images get the factors of their source, or of ImageNet-X by name; whatever does not match is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from bob.data.base import Dataset, ImageSet, Split
from bob.data.factors import FactorDataset, FlaggedImages, with_factors
from bob.data.shape_factors import SHAPE_FACTORS, shape_flags
from bob.data.shapes import ShapesImages
from bob.data.sources import load_dataset, load_task
from bob.errors import UserError
from bob.factors.annotations import FACTORS, load_annotations
from bob.task_cards import DataSpec, TaskCard

ROOT = Path("nowhere")
SHAPES = TaskCard(name="toy", adapter="factors", data=DataSpec(source="shapes"))
IMAGENET = TaskCard(name="in", adapter="factors", data=DataSpec(source="folder:x"), factors="imagenet-x")


class Named(ImageSet):
    """Images that nobody reads."""

    def __init__(self, names: list[str], labels: np.ndarray) -> None:
        self.names, self.labels = names, labels

    def read(self, index: int) -> torch.Tensor:
        raise AssertionError

    def fingerprint(self) -> str:
        return "0" * 64


def _imagenet(seed: int = 0) -> Dataset:
    """All annotated validation images, prototypes and twenty images without annotation among them, in random order."""
    every = load_annotations(include_prototypes=True)
    names = [f"val/n00000000/{name}" for name in every.names] + [f"val/n00000000/x{i}.JPEG" for i in range(20)]
    order = np.random.default_rng(seed).permutation(len(names))
    test = Named([names[i] for i in order], np.append(every.classes, np.zeros(20, np.int64))[order])
    train = Named(["t"], np.zeros(1, np.int64))
    splits = {"train": Split(train, np.arange(1)), "val": Split(train, np.arange(1))}
    return Dataset("x", tuple(map(str, range(1000))), {**splits, "test": Split(test, np.arange(len(names)))})


class TestShapes:
    def test_flags_of_the_drawn_images(self) -> None:
        plain, dataset = load_dataset(SHAPES.data), load_task(SHAPES, ROOT)
        assert isinstance(dataset, FactorDataset) and dataset.factors == SHAPE_FACTORS
        before, after = plain.splits["test"], dataset.splits["test"]
        assert isinstance(before.images, ShapesImages) and isinstance(after.images, FlaggedImages)
        np.testing.assert_array_equal(after.labels, before.labels)
        assert after.images.fingerprint() == before.images.fingerprint()
        assert after.checksum() == before.checksum() and after.names == before.names
        assert torch.equal(after.images.read(7), before.images.read(7))
        assert dataset.splits["train"].images.fingerprint() == plain.splits["train"].images.fingerprint()
        assert dataset.facts["factors"] == "own"

    def test_every_factor_is_neither_rare_nor_usual(self) -> None:
        for split in ("train", "test"):
            images = load_dataset(SHAPES.data).splits[split].images
            assert isinstance(images, ShapesImages)
            share = shape_flags(images.factors).mean(axis=0)
            assert (share > 0.1).all() and (share < 0.25).all()

    def test_by_hand(self) -> None:
        images = load_dataset(SHAPES.data).splits["test"].images
        assert isinstance(images, ShapesImages)
        plain = {
            "angle": 0.0,
            "stretch": 1.0,
            "scale": 30.0,
            "centre_x": 48.0,
            "centre_y": 48,
            "brightness": 0.9,
            "noise": 5.0,
        }
        plain |= {"fill_red": 100, "fill_green": 100, "fill_blue": 100}
        plain |= {"contrast": 0.3, "fill_pattern": 0.05, "background_clutter": 0.1}
        drawn = images.factors.iloc[:6].assign(**plain)
        assert not shape_flags(drawn).any()
        for row, (column, value) in enumerate(
            [
                ("angle", -30),
                ("stretch", 0.8),
                ("brightness", 0.65),
                ("centre_x", 36),
                ("contrast", -0.01),
                ("scale", 27),
            ]
        ):
            drawn.iloc[row, drawn.columns.get_loc(column)] = value
        found = [np.array(SHAPE_FACTORS)[row].tolist() for row in shape_flags(drawn)]
        assert found == [["pose"], ["shape"], ["darker"], ["off_centre"], ["low_contrast"], ["smaller"]]

    def test_identity_covers_the_flags(self) -> None:
        dataset = load_task(SHAPES, ROOT)
        test = dataset.splits["test"]
        assert isinstance(test.images, FlaggedImages)
        others = test.images.flags.copy()
        others[0] = ~others[0]
        changed = Split(FlaggedImages(test.images, others, SHAPE_FACTORS), test.indices)
        card = SHAPES.model_copy()
        again = with_factors(card, Dataset("x", dataset.classes, {**dataset.splits, "test": changed}), ROOT)
        assert dataset.identity()["factors"]["names"] == list(SHAPE_FACTORS)
        assert again.identity() != dataset.identity()

    def test_workers_get_the_images(self) -> None:
        images = load_task(SHAPES, ROOT).splits["test"].images
        assert torch.equal(pickle.loads(pickle.dumps(images)).read(3), images.read(3))


class TestImageNetX:
    def test_joined_by_name(self) -> None:
        dataset, annotations = _imagenet(), load_annotations()
        flagged = with_factors(IMAGENET, dataset, ROOT)
        test = flagged.splits["test"]
        assert len(test) == len(annotations) == 46_110
        assert flagged.factors == FACTORS and flagged.facts["factors"] == "imagenet-x"
        assert isinstance(test.images, FlaggedImages) and len(test.images) == 48_888
        row = {name: number for number, name in enumerate(annotations.names)}
        rows = np.array([row[name.rpartition("/")[2]] for name in test.names])
        np.testing.assert_array_equal(test.images.flags[test.indices], annotations.flags[rows])
        np.testing.assert_array_equal(test.labels, annotations.classes[rows])
        assert (np.diff(test.indices) > 0).all()

    def test_missing_images(self) -> None:
        dataset = _imagenet()
        test = dataset.splits["test"]
        few = Dataset("x", dataset.classes, {**dataset.splits, "test": Split(test.images, test.indices[:30_000])})
        there = {name.rpartition("/")[2] for name in test.names[:30_000]}
        lacking = sum(name not in there for name in load_annotations().names)
        with pytest.raises(UserError, match=f"The test images of 'in' lack {lacking:,} of ImageNet-X's 46,110"):
            with_factors(IMAGENET, few, ROOT)

    def test_an_image_twice(self) -> None:
        dataset = _imagenet()
        test = dataset.splits["test"]
        doubled = Split(test.images, np.append(test.indices, test.indices))
        with pytest.raises(UserError, match=r"The test images of 'in' have ILSVRC2012_val_\d+\.JPEG twice"):
            with_factors(IMAGENET, Dataset("x", dataset.classes, {**dataset.splits, "test": doubled}), ROOT)

    def test_other_order_of_classes(self) -> None:
        dataset = _imagenet()
        dataset.splits["test"].images.labels = 999 - dataset.splits["test"].labels
        with pytest.raises(UserError, match="not in the order of ImageNet's"):
            with_factors(IMAGENET, dataset, ROOT)


class TestRefuses:
    def test_images_without_factors(self) -> None:
        images = Named(["a"], np.zeros(1, np.int64))
        splits = {name: Split(images, np.arange(1)) for name in ("train", "val", "test")}
        with pytest.raises(UserError, match="The images of shapes have no factors"):
            with_factors(SHAPES, Dataset("x", ("a",), splits), ROOT)

    def test_no_image_has_one(self) -> None:
        images = FlaggedImages(Named(["a"], np.zeros(1, np.int64)), np.zeros((1, 2), dtype=bool), ("x", "y"))
        splits = {name: Split(images, np.arange(1)) for name in ("train", "val", "test")}
        with pytest.raises(UserError, match="No test image of 'toy' has a factor"):
            with_factors(SHAPES, Dataset("x", ("a",), splits), ROOT)

    def test_flags_of_another_shape(self) -> None:
        with pytest.raises(ValueError, match="Expected `flags` to have shape"):
            FlaggedImages(Named(["a"], np.zeros(1, np.int64)), np.zeros((2, 2), dtype=bool), ("x", "y"))


def test_sealing_reaches_splits_that_share_the_test_images() -> None:
    images = Named(list("abcd"), np.array([0, 1, 0, 1]))
    images.flags, images.flag_names = np.eye(4, 2, dtype=bool), ("x", "y")  # type: ignore[attr-defined]
    parts = {"train": [0], "val": [1], "test": [2, 0]}
    splits = {name: Split(images, np.array(rows)) for name, rows in parts.items()}
    sealed = with_factors(SHAPES, Dataset("x", ("a", "b"), splits), ROOT).sealed()
    with pytest.raises(RuntimeError, match="sealed"):
        _ = sealed.splits["test"].labels
    with pytest.raises(AttributeError):
        _ = sealed.splits["test"].images.flags  # type: ignore[attr-defined]
    assert sealed.splits["val"].labels.tolist() == [1] and sealed.splits["val"].images.labels[2] < 0
