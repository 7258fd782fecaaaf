"""Settings are read as their fields want them; what no recipe has is named, with what was probably meant."""

from __future__ import annotations

import pytest

from bob.engines.recipe import BOB_FINE_TUNE
from bob.engines.settings import overridden
from bob.errors import UserError


def test_values_by_kind() -> None:
    changed = overridden(
        BOB_FINE_TUNE,
        {"epochs": "3", "lr": "1e-2", "ema_decay": "0.99", "optimizer": "sgd", "layer_decay": "none", "mixup": "0"},
    )
    assert (changed.epochs, changed.lr, changed.ema_decay, changed.optimizer) == (3, 0.01, 0.99, "sgd")
    assert changed.layer_decay is None and changed.augmentation.mixup == 0
    assert changed.augmentation.cutmix == BOB_FINE_TUNE.augmentation.cutmix and changed.warmup_epochs == 0
    assert overridden(BOB_FINE_TUNE, {"scale": "0.5/1"}).augmentation.scale == (0.5, 1)
    assert overridden(BOB_FINE_TUNE, {"augmentation": "none"}).augmentation is None
    assert overridden(BOB_FINE_TUNE, {}) == BOB_FINE_TUNE


def test_a_prior_takes_the_place_of_weight_decay() -> None:
    assert overridden(BOB_FINE_TUNE, {"prior": "l2sp:0.1"}).weight_decay == 0
    assert overridden(BOB_FINE_TUNE, {"prior": "l2sp:0.1", "weight_decay": "0.01"}).weight_decay == 0.01


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"epoch": "3"}, "no setting 'epoch'.*Did you mean: epochs"),
        ({"name": "x"}, "no setting 'name'"),
        ({"loss": "bce"}, "no setting 'loss'"),
        ({"epochs": "many"}, "'many' is no number"),
        ({"epochs": "2.5"}, "epochs .* to be a positive whole number, but got 2.5"),
        ({"epochs": "0"}, "epochs .* to be a positive whole number"),
        ({"lr": "-1"}, "lr .* to be positive"),
        ({"head": "deep"}, "head .* to be 'linear'"),
    ],
)
def test_bad_settings(settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        overridden(BOB_FINE_TUNE, settings)
