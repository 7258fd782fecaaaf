"""What a recipe takes and refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bob.engines.recipe import BOB_FINE_TUNE, BOB_LINEAR, Limits, Recipe
from bob.errors import UserError


def test_the_papers_recipes_are_what_its_files_say() -> None:
    tuned = BOB_FINE_TUNE.as_dict()
    expected = {"lr": 1e-3, "weight_decay": 0.05, "layer_decay": 0.75, "epochs": 100, "warmup_epochs": 5}
    assert expected.items() <= tuned.items()
    assert {"warmup_lr": 1e-4, "min_lr": 1e-6, "drop_path": 0.1, "batch_size": 1024}.items() <= tuned.items()
    assert tuned["augmentation"]["auto_augment"] == "rand-m9-mstd0.5-inc1"
    linear = BOB_LINEAR.as_dict()
    assert (linear["lr"], linear["lr_batch"], linear["batch_size"]) == (0.1, 256, 2048)
    assert linear["optimizer"] == "lars"
    assert linear["augmentation"]["mixup"] == 0 and linear["head"] == "batchnorm_linear"


def test_a_recipe_survives_json() -> None:
    assert json.loads(json.dumps(BOB_FINE_TUNE.as_dict())) == BOB_FINE_TUNE.as_dict()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.0}, "lr of recipe 'r' to be positive, but got 0.0"),
        ({"lr": float("nan")}, "lr of recipe"),
        ({"layer_decay": 1.5}, "layer_decay"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 5, "warmup_epochs": 5}, "warmup_epochs of recipe 'r' to be from 0 to below 5"),
        ({"micro_batch": 0}, "micro_batch"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"clip_grad": 0.0}, "clip_grad"),
        ({"trainable": "neck"}, "'all' or 'head', but got 'neck'"),
        ({"loss": "hinge"}, "'cross_entropy' or 'bce'"),
        ({"prior": "l2sp:0.1", "trainable": "head"}, "a prior on a backbone that it does not train"),
    ],
)
def test_what_makes_no_sense_is_refused(change, words) -> None:
    with pytest.raises(UserError, match=words):
        replace(Recipe("r"), **change)


def test_limits() -> None:
    assert not Limits().reached(10**9, 1e9)
    assert Limits(max_steps=3).reached(3, 0) and not Limits(max_steps=3).reached(2, 1e9)
    assert Limits(max_hours=0.5).reached(0, 1800) and not Limits(max_hours=0.5).reached(0, 1799)
    with pytest.raises(UserError, match="max_hours to be positive, but got 0"):
        Limits(max_hours=0)
