"""The metrics of a run: those that are defined, and resamples that belong together whatever the backbone."""

from __future__ import annotations

import numpy as np
import pytest

from bob.errors import UserError
from bob.results.draws import KEPT_RESAMPLES, pack, unpack
from bob.results.judging import judge
from bob.results.metrics import METRICS
from bob.results.predictions import Predictions
from bob.results.statistics import paired_bootstrap, replicates


def _predictions(seed: int, size: int = 60) -> Predictions:
    table = np.random.default_rng(seed).dirichlet(np.ones(3), size=size)
    return Predictions.from_probabilities([f"i{i}" for i in range(size)], np.arange(size) % 3, table, "abc")


def test_metrics_with_intervals() -> None:
    made = _predictions(0)
    found = judge(made, ["top1", "ece"], "top1")
    assert list(found.metrics) == ["top1", "ece"] and found.left_out == ()
    top1 = found.metrics["top1"]
    assert top1.value == METRICS["top1"].compute(made) and top1.low < top1.value < top1.high
    assert (top1.n, top1.higher_is_better, found.metrics["ece"].higher_is_better) == (60, True, False)


def test_draws_are_the_first_resamples_of_the_interval() -> None:
    made = _predictions(0)
    draws = unpack(judge(made, ["ece", "top1"], "top1").resampled)
    [expected] = replicates([METRICS["top1"].weighted(made)], len(made), KEPT_RESAMPLES, seed=0)
    assert draws.shape == (KEPT_RESAMPLES,) and draws.dtype == np.float32
    np.testing.assert_array_equal(draws, expected.astype(np.float32))


def test_draws_of_two_backbones_are_paired() -> None:
    a, b = _predictions(0), _predictions(1)
    apart = unpack(judge(b, ["top1"], "top1").resampled) - unpack(judge(a, ["top1"], "top1").resampled)
    paired = paired_bootstrap(METRICS["top1"], a, b)
    np.testing.assert_allclose(apart, paired.draws[:KEPT_RESAMPLES], atol=1e-6)


@pytest.mark.parametrize("text", ["a", "AAA", "?", "AAAAA==="])
def test_damaged_draws(text: str) -> None:
    with pytest.raises(UserError, match="resampled scores of a record are damaged"):
        unpack(text)


def test_round_trip() -> None:
    values = np.array([0.5, -1e-30, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(unpack(pack(values)), values)
    assert len(unpack("")) == 0
