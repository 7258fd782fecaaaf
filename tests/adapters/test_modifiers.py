"""What follows a protocol's name: drawn shots are stratified, nested and the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bob.adapters.classification import KNN, Classification
from bob.adapters.modifiers import Shots, draw_shots
from bob.data.base import Dataset, ImageSet, Split
from bob.errors import UserError
from bob.features.reading import BLOCKS, Reading


class Labels(ImageSet):
    def __init__(self, labels: np.ndarray) -> None:
        self.labels, self.names = labels, [str(i) for i in range(len(labels))]

    def read(self, index: int) -> torch.Tensor:
        raise AssertionError

    def fingerprint(self) -> str:
        return "0" * 64


def _dataset() -> Dataset:
    images = Labels(np.repeat(np.arange(3), [40, 20, 10]))
    cut = np.arange(70)
    splits = {"train": cut[cut % 5 > 1], "val": cut[cut % 5 == 1], "test": cut[cut % 5 == 0]}
    return Dataset("toy", ("cat", "dog", "owl"), {name: Split(images, rows) for name, rows in splits.items()})


def test_spec_and_title() -> None:
    protocol = Classification.protocol("knn@5shot@block3")
    assert protocol.title == "knn@5shot@block3" and protocol.readings == (BLOCKS,)
    said = protocol.as_dict()
    assert said["name"] == protocol.title and said["shots"] == {"per_class": 5} and said["block"] == 3
    assert Classification.protocol("knn@patches9").readings == (Reading(patches=9),)
    assert Classification.protocol("linear@10%").seeds == (0, 1, 2, 3, 4) and KNN.seeds == (0,)
    assert Classification.protocol("linear@1%").final_splits == ("train",) != KNN.final_splits
    # A protocol without modifiers is what it was before there were any: records of it stay valid.
    assert KNN.as_dict() == {"name": "knn", "version": 1, "probe": "KNeighbors", "grid": list(KNN.grid)}


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("knn@0shot", "leaves nothing to learn from"),
        ("knn@0%", "no share of the training images"),
        ("knn@200%", "no share of the training images"),
        ("knn@patches8", "a square number of patches"),
        ("knn@bloc3", "no modifier '@bloc3'"),
        ("knn@", "no modifier '@'"),
        ("linear_sgd@block3", "does not read single blocks"),
        ("attentive@patches4", "does not average patches"),
        ("zero_shot@5shot", "sees no training image"),
        ("knn@patches441", "441 patches of every image are too many"),
        ("knn@5shot@10%", "'knn@5shot' cannot also be '@10%'"),
        ("knn@block3@blocks", "'knn@block3' cannot read a block too"),
        ("knn@blocks@patches4", "'knn@blocks' cannot average patches too"),
        ("knn@patches4@block0", "'knn@patches4' cannot read a block too"),
    ],
)
def test_bad_modifiers(spec: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        Classification.protocol(spec)


def test_draw_by_hand() -> None:
    dataset = _dataset()
    drawn = draw_shots(dataset, Shots(per_class=2), seed=0)
    # Fixed here, so that another machine or library version that drew otherwise would be found out.
    assert drawn.splits["train"].indices.tolist() == [3, 28, 44, 47, 64, 67]
    assert np.bincount(drawn.splits["train"].labels).tolist() == [2, 2, 2]
    assert np.bincount(drawn.splits["val"].labels).tolist() == [2, 2, 2]
    assert drawn.splits["test"] is dataset.splits["test"]
    assert set(drawn.splits["train"].indices) <= set(dataset.splits["train"].indices)


def test_larger_draws_contain_smaller_ones_and_seeds_differ() -> None:
    draws = {n: set(draw_shots(_dataset(), Shots(per_class=n), 0).splits["train"].indices) for n in (1, 2, 4)}
    assert draws[1] < draws[2] < draws[4]
    assert draws[4] != set(draw_shots(_dataset(), Shots(per_class=4), 1).splits["train"].indices)


def test_percent_is_stratified_and_never_empty() -> None:
    drawn = draw_shots(_dataset(), Shots(percent=10), 0)
    assert np.bincount(drawn.splits["train"].labels).tolist() == [2, 1, 1]  # of 24, 12 and 6
    assert np.bincount(draw_shots(_dataset(), Shots(percent=1), 0).splits["train"].labels).tolist() == [1, 1, 1]


def test_more_shots_than_images() -> None:
    with pytest.raises(UserError, match="Class 'owl' has 6 training images, fewer than '@7shot' asks for"):
        draw_shots(_dataset(), Shots(per_class=7), 0)


def test_a_class_moves_no_other() -> None:
    dataset = _dataset()
    train = dataset.splits["train"]
    without = {**dataset.splits, "train": Split(train.images, train.indices[train.labels != 1])}
    one = draw_shots(dataset, Shots(per_class=3), 0).splits["train"]
    other = draw_shots(Dataset("toy", dataset.classes, without), Shots(per_class=3), 0).splits["train"]
    assert one.indices[one.labels != 1].tolist() == other.indices.tolist()
