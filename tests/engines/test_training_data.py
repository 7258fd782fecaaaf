"""Splits joined, and an epoch cut into updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bob.data.base import Dataset, Split
from bob.engines.recipe import Recipe
from bob.engines.training_data import make_plan, training_split
from bob.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_splits_of_several_sets_are_joined(colours) -> None:
    joined = training_split(colours, ("train", "val"))
    train, val = colours.splits["train"], colours.splits["val"]
    assert len(joined) == 66
    assert joined.labels.tolist() == [*train.labels, *val.labels]
    for position in (0, 47, 48, 65):
        split, index = (train, position) if position < 48 else (val, position - 48)
        assert torch.equal(joined.images.read(joined.indices[position]), split.images.read(index))
    assert joined.images.fingerprint() not in (train.images.fingerprint(), val.images.fingerprint())


def test_splits_of_one_set_stay_in_it(colours) -> None:
    images = colours.splits["train"].images
    splits = {"train": Split(images, np.array([3, 1])), "val": Split(images, np.array([2]))}
    joined = training_split(Dataset("d", colours.classes, splits), ("train", "val"))
    assert joined.images is images and joined.indices.tolist() == [3, 1, 2]


@pytest.mark.parametrize("names", [(), ("test",), ("train", "test")])
def test_test_is_never_trained_on(colours, names) -> None:
    with pytest.raises(ValueError, match="Expected `splits`"):
        training_split(colours, names)


@pytest.mark.parametrize(
    ("images", "batch", "micro", "world", "device", "expected"),
    [
        (5000, 1024, None, 1, GPU, (128, 8, 4)),
        (5000, 1024, None, 8, GPU, (128, 1, 4)),
        (5000, 1024, None, 1, CPU, (32, 32, 4)),
        (5000, 1024, 48, 2, GPU, (32, 16, 4)),
        (5000, 100, None, 1, CPU, (25, 4, 50)),
        (1020, 1024, None, 1, GPU, (127, 8, 1)),  # fewer images than a batch: all but 4 of them
        (48, 1024, None, 1, CPU, (24, 2, 1)),
        (37, 1024, None, 2, GPU, (18, 1, 1)),
    ],
)
def test_plan(images, batch, micro, world, device, expected) -> None:
    recipe = Recipe("r", batch_size=batch, micro_batch=micro)
    plan = make_plan(images, recipe, world, device)
    assert (plan.part, plan.parts, plan.updates) == expected
    assert plan.batch <= min(images, batch) and plan.steps == 100 * plan.updates


def test_batches_without_equal_parts_are_refused() -> None:
    recipe = Recipe("r", batch_size=1024)
    with pytest.raises(UserError, match="1024 images of recipe 'r' has no equal parts for 3 processes"):
        make_plan(5000, recipe, 3, CPU)
    with pytest.raises(UserError, match="no equal parts of up to 32 images"):
        make_plan(5000, replace(recipe, batch_size=97), 1, CPU)
    with pytest.raises(UserError, match="1 training images are too few for 2"):
        make_plan(1, recipe, 2, CPU)
