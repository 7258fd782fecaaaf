"""The bootstrap equals SciPy's, covers the truth as often as it says, and repeats; ranks bear NaN and ties."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bob.errors import UserError
from bob.results import statistics
from bob.results.metric import Metric
from bob.results.metrics import METRICS
from bob.results.predictions import Predictions
from bob.results.statistics import Estimate, bootstrap, over_seeds, paired_bootstrap, ranks, z_scores

ALL = [metric for metric in METRICS.values() if metric.kind == "classification"]
NAMES = [metric.name for metric in ALL]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _predictions(size: int = 300, classes: int = 10, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=size)
    table = _softmax(rng.normal(size=(size, classes)) + 2 * np.eye(classes)[labels])
    names = [str(i) for i in range(size)]
    groups = rng.integers(3, size=size)
    return Predictions.from_probabilities(names, labels, table, [str(c) for c in range(classes)], groups, "xyz")


def _right_or_wrong(right: np.ndarray) -> Predictions:
    labels = np.where(right, 0, 1)
    return Predictions.from_probabilities([""] * len(right), labels, np.tile([0.9, 0.1], (len(right), 1)), ["a", "b"])


def _subset(predictions: Predictions, indices: np.ndarray) -> Predictions:
    arrays = ("labels", "predicted", "confidence", "label_probability", "label_rank", "groups")
    names = [predictions.names[i] for i in indices]
    return dataclasses.replace(predictions, names=names, **{k: getattr(predictions, k)[indices] for k in arrays})


def _resampled(metric: Metric, predictions: Predictions, draws: np.ndarray) -> np.ndarray:
    """The slow way: make each resample, and compute the metric on it."""
    return np.array([metric.compute(_subset(predictions, indices)) for indices in draws])


@pytest.mark.parametrize("metric", ALL, ids=NAMES)
def test_equals_scipy_within_noise(metric: Metric) -> None:
    made = _predictions()
    resamples = 2000
    ours = bootstrap([metric], made, resamples=resamples, seed=1)[metric.name]
    theirs = stats.bootstrap(
        (np.arange(len(made)),),
        lambda indices: metric.compute(_subset(made, indices)),
        vectorized=False,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(2),
    )
    # The standard error of a 2.5% quantile of B normal replicates is sqrt(p(1-p)/B) / density = 2.67 sd / sqrt(B);
    # two independent ones differ by sqrt(2) of that, and we allow four times as much.
    tolerance = 4 * np.sqrt(2) * 2.67 * theirs.standard_error / np.sqrt(resamples)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)
    assert ours.value == metric.compute(made)
    assert ours.n == 300


def test_equals_the_slow_way_exactly() -> None:
    made = _predictions(size=57, classes=12)  # so few that resamples lack classes
    rng = np.random.default_rng(5)
    draws = np.stack([rng.integers(57, size=57) for _ in range(200)])
    estimates = bootstrap(ALL, made, resamples=200, confidence=0.8, seed=5)
    for metric in ALL:
        expected = np.quantile(_resampled(metric, made, draws), [0.1, 0.9])
        found = [estimates[metric.name].low, estimates[metric.name].high]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_four_samples_by_hand() -> None:
    """Of the 4^4 resamples of (right, right, right, wrong), the share right is 1/4 (12), 2/4 (54), 3/4, 1 (81 ways)."""
    made = _right_or_wrong(np.array([True, True, True, False]))
    estimate = bootstrap([METRICS["top1"]], made, resamples=4000, confidence=0.8)["top1"]
    assert estimate == Estimate(value=0.75, low=0.5, high=1.0, n=4)
    # P(share <= 1/4) = 13/256 = 5.1% lies above 2.5%, P(share = 0) = 0.4% below it
    estimate = bootstrap([METRICS["top1"]], made, resamples=4000, confidence=0.95)["top1"]
    assert estimate == Estimate(value=0.75, low=0.25, high=1.0, n=4)


def test_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        made = _right_or_wrong(rng.random(200) < 0.8)
        estimate = bootstrap([METRICS["top1"]], made, resamples=500, seed=seed)["top1"]
        covered += estimate.low <= 0.8 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.98


@pytest.mark.parametrize("size", [1, 8 * 300 * 7, 2**30])
def test_chunks_do_not_change_a_digit(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    made = _predictions()
    expected = bootstrap(ALL, made, resamples=100)
    monkeypatch.setattr(statistics, "_CHUNK_BYTES", size)
    assert bootstrap(ALL, made, resamples=100) == expected


def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_CHUNK_BYTES", 8 * 50 * 3)
    chunks = list(statistics._counts(50, 10, np.random.default_rng(0)))
    assert [len(chunk) for chunk in chunks] == [3, 3, 3, 1]
    assert all((chunk.sum(axis=1) == 50).all() for chunk in chunks)


def test_seed_decides() -> None:
    made = _predictions()
    assert bootstrap(ALL, made, resamples=100, seed=3) == bootstrap(ALL, made, resamples=100, seed=3)
    assert bootstrap(ALL, made, resamples=100, seed=3) != bootstrap(ALL, made, resamples=100, seed=4)


def test_metrics_share_their_resamples() -> None:
    made = _predictions()
    together = bootstrap(ALL, made, resamples=100)
    assert list(together) == NAMES
    for metric in ALL:
        assert bootstrap([metric], made, resamples=100)[metric.name] == together[metric.name]


def test_more_confidence_more_width() -> None:
    made = _predictions()
    narrow, wide = (bootstrap([METRICS["nll"]], made, confidence=c)["nll"] for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize("right", [True, False])
def test_nothing_to_vary(right: bool) -> None:
    made = _right_or_wrong(np.full(20, right))
    for name in ("top1", "mean_per_class"):
        estimate = bootstrap([METRICS[name]], made, resamples=50)[name]
        assert estimate == Estimate(float(right), float(right), float(right), 20)


def test_one_sample_and_no_metric() -> None:
    assert bootstrap([METRICS["top1"]], _right_or_wrong(np.array([True])))["top1"] == Estimate(1.0, 1.0, 1.0, 1)
    assert bootstrap([], _predictions()) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"resamples": 0}, "`resamples` to be a positive integer, but got 0"),
        ({"confidence": 1.0}, "`confidence` to be between 0 and 1, but got 1.0"),
        ({"confidence": 95}, "`confidence` to be between 0 and 1, but got 95"),
    ],
)
def test_bad_arguments(given: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=f"Expected {message}"):
        bootstrap(ALL, _predictions(), **given)


class TestPaired:
    def test_equals_the_slow_way(self) -> None:
        a, b = _predictions(size=60), _predictions(size=60)
        b = dataclasses.replace(b, predicted=np.where(np.arange(60) % 7, b.predicted, b.labels))
        rng = np.random.default_rng(4)
        draws = np.stack([rng.integers(60, size=60) for _ in range(200)])
        for metric in ALL:
            found = paired_bootstrap(metric, a, b, resamples=200, seed=4)
            differences = _resampled(metric, b, draws) - _resampled(metric, a, draws)
            np.testing.assert_allclose([found.low, found.high], np.quantile(differences, [0.025, 0.975]), atol=1e-12)
            assert (found.value, found.n) == (metric.compute(b) - metric.compute(a), 60)

    def test_is_narrower_than_two_intervals(self) -> None:
        right = np.arange(200) < 150
        a, b = _right_or_wrong(right), _right_or_wrong(right | (np.arange(200) >= 190))
        found = paired_bootstrap(METRICS["top1"], a, b)
        assert found.value == pytest.approx(0.05) and found.low > 0.01
        alone = bootstrap([METRICS["top1"]], a)["top1"]
        assert found.high - found.low < (alone.high - alone.low) / 1.5

    def test_nothing_changes(self) -> None:
        a = _predictions()
        for metric in ALL:
            assert paired_bootstrap(metric, a, a, resamples=20) == Estimate(0, 0, 0, 300)

    def test_other_lengths(self) -> None:
        with pytest.raises(UserError, match="two runs on the same samples, but got 300 and 299"):
            paired_bootstrap(METRICS["top1"], _predictions(), _predictions(size=299))


def _coverage(rng: np.random.Generator, seeds: int, spread: float, size: int = 400, trials: int = 1500) -> float:
    """How often the interval holds 0.7, the mean of all seeds on all samples.

    Each seed is right about a sample where a normal variable, of which the seeds share 7 parts in 10, is below a level
    that moves with the seed.
    """
    covered = 0
    level = stats.norm.ppf(0.7) * np.sqrt(1 + spread**2)  # so that 0.7 is the mean over seeds too
    for _ in range(trials):
        shared, own = rng.normal(size=size), rng.normal(size=(seeds, size))
        right = np.sqrt(0.7) * shared + np.sqrt(0.3) * own < level + spread * rng.normal(size=(seeds, 1))
        scores = right.mean(axis=1)
        half = 1.96 * np.sqrt(scores * (1 - scores) / size)
        low, high = over_seeds(scores, scores - half, scores + half)
        covered += low <= 0.7 <= high
    return covered / trials


class TestOverSeeds:
    @pytest.mark.parametrize("seeds", [2, 3, 5, 10])
    @pytest.mark.parametrize("spread", [0.0, 0.05, 0.2])
    def test_covers_the_mean_of_all_seeds_and_samples(self, seeds: int, spread: float) -> None:
        assert _coverage(np.random.default_rng(0), seeds, spread) >= 0.93

    def test_mean_of_bounds_alone_would_not_cover(self) -> None:
        rng, covered = np.random.default_rng(0), 0
        for _ in range(500):
            scores = 0.7 + rng.normal(scale=0.05, size=3)
            covered += (scores - 0.02).mean() <= 0.7 <= (scores + 0.02).mean()
        assert covered / 500 < 0.6

    def test_one_seed_stays(self) -> None:
        assert over_seeds(np.array([0.5]), np.array([0.37]), np.array([0.6])) == (0.37, 0.6)

    def test_equal_seeds_stay(self) -> None:
        same = np.full(3, 0.1 + 0.2)
        assert over_seeds(same, same - 0.1, same + 0.3) == pytest.approx((0.2, 0.6))

    def test_seeds_alone_make_students_interval(self) -> None:
        scores = np.array([0.5, 0.6, 0.61, 0.53])
        expected = stats.t.interval(0.95, 3, scores.mean(), stats.sem(scores))
        assert over_seeds(scores, scores, scores) == pytest.approx(expected)

    def test_by_hand(self) -> None:
        # s^2 = 0.02 and k = 2 make W = 0.01; V is 0.01 as well: the quantile lies midway between 1.960 and 12.706
        scores, half = np.array([0.4, 0.6]), 1.959964 * 0.1
        low, high = over_seeds(scores, scores - half, scores + half)
        assert (low, high) == pytest.approx((0.5 - 7.333084 * 0.02**0.5, 0.5 + 7.333084 * 0.02**0.5), rel=1e-5)


@pytest.mark.parametrize("ddof", [0, 1])
def test_z_scores_equal_scipy(ddof: int) -> None:
    values = np.array([3.0, np.nan, 1.0, 7.5, 2.25])
    np.testing.assert_allclose(z_scores(values, ddof=ddof), stats.zscore(values, ddof=ddof, nan_policy="omit"))


def test_z_scores_by_hand() -> None:
    np.testing.assert_allclose(z_scores(np.array([1.0, 2.0, 3.0])), [-1, 0, 1])


@pytest.mark.parametrize("values", [[0.1, 0.1, 0.1], [0.3, 0.1 + 0.2, 0.3], [5.0], [0.0, 0.0]])
def test_z_scores_without_spread_are_zero(values: list[float]) -> None:
    scores = z_scores(np.array([*values, np.nan]))
    np.testing.assert_array_equal(scores, [0.0] * len(values) + [np.nan])


def test_z_scores_of_nothing() -> None:
    np.testing.assert_array_equal(z_scores(np.array([np.nan, np.nan])), [np.nan, np.nan])
    assert z_scores(np.array([])).shape == (0,)


def test_z_scores_refuse_the_infinite_and_tables() -> None:
    with pytest.raises(UserError, match="Expected `values` to be finite or NaN, but got inf"):
        z_scores(np.array([1.0, np.inf]))
    with pytest.raises(UserError, match=r"Expected `values` to have one dimension, but got shape \(2, 2\)"):
        z_scores(np.ones((2, 2)))


def test_ranks() -> None:
    values = np.array([0.8, 0.9, np.nan, 0.8, 0.1])
    np.testing.assert_array_equal(ranks(values), [2.5, 1, np.nan, 2.5, 4])
    np.testing.assert_array_equal(ranks(values, higher_is_better=False), [2.5, 4, np.nan, 2.5, 1])


def test_series_in_series_out() -> None:
    values = pd.Series([1.0, 2.0, 4.0], index=["a", "b", "c"], name="top1")
    pd.testing.assert_series_equal(ranks(values), pd.Series([3.0, 2.0, 1.0], index=values.index, name="top1"))
    assert list(z_scores(values).index) == ["a", "b", "c"]
    frame = pd.DataFrame({"task": ["x", "x", "y", "y"], "score": [1.0, 3.0, 2.0, 2.0]})
    scores = frame.groupby("task")["score"].transform(z_scores)
    np.testing.assert_allclose(scores, [-np.sqrt(0.5), np.sqrt(0.5), 0, 0])


def test_results_do_without_torch() -> None:
    code = "import sys, bob.results.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
