"""Numbers about factors: by hand, by a bootstrap of the images themselves, and back from Parquet unchanged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from bob.errors import UserError
from bob.results.checks import read_parquet
from bob.results.factor_metrics import FACTOR_METRICS
from bob.results.factor_table import Correctness, factor_table, resample, sums_of, worst_classes
from bob.results.factors import FactorPredictions
from bob.results.predictions import Predictions
from bob.results.statistics import bootstrap

NAMES = ("dark", "small", "rare")
METRICS = {metric.name: metric for metric in FACTOR_METRICS}


def _by_hand() -> Correctness:
    """Six images: two dark (one right), three small (one right), one both; nothing is rare."""
    flags = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)
    right = np.array([1, 0, 0, 1, 1, 1], dtype=bool)
    return Correctness(np.array([0, 0, 1, 1, 2, 2]), right, flags, NAMES, np.array([0.9, 0.8, 0.3, 0.5, 0.95, 1.0]))


def _random(size: int = 300, seed: int = 0) -> Correctness:
    rng = np.random.default_rng(seed)
    flags = rng.random((size, 3)) < [0.5, 0.2, 0.05]
    right = rng.random(size) < np.where(flags[:, 1], 0.5, 0.8)
    return Correctness(rng.integers(10, size=size), right, flags, NAMES, rng.random(size))


def _predictions(judged: Correctness) -> FactorPredictions:
    classes = [str(label) for label in range(int(judged.labels.max()) + 1)]
    predicted = np.where(judged.right, judged.labels, (judged.labels + 1) % len(classes))
    table = np.eye(len(classes))[predicted]
    names = [f"i{index}" for index in range(len(judged))]
    plain = Predictions.from_probabilities(names, judged.labels, table, classes)
    return FactorPredictions.of(plain, judged.flags, judged.factors)


class TestTable:
    def test_by_hand(self) -> None:
        table = factor_table(_by_hand(), resamples=50).set_index("factor")
        assert table["n"].tolist() == [2, 3, 0, 6, 3]
        assert table["right"].tolist() == [1, 1, 0, 4, 1]
        np.testing.assert_allclose(table["accuracy"], [1 / 2, 1 / 3, np.nan, 2 / 3, 1 / 3])
        np.testing.assert_allclose(table["error_ratio"], [3 / 2, 2, np.nan, 1, 2])
        # Of 5 flags 2 are dark and 3 small, of the 3 on errors 1 and 2.
        expected = [(1 / 3 - 2 / 5) / (2 / 5), (2 / 3 - 3 / 5) / (3 / 5)]
        np.testing.assert_allclose(table.loc[["dark", "small"], "prevalence_shift"], expected)
        # Every image of a factor is in a bin of its own: the mean distance of right from confidence.
        np.testing.assert_allclose(table.loc["dark", "ece"], (0.1 + 0.8) / 2)
        np.testing.assert_allclose(table.loc["small", "ece"], (0.8 + 0.3 + 0.5) / 3)

    def test_resampling_patterns_is_resampling_images(self) -> None:
        judged, rng = _random(), np.random.default_rng(1)
        slow = [sums_of(_take(judged, rng.integers(300, size=300))) for _ in range(4000)]
        fast = resample(judged, 4000, seed=0)
        for name in ("accuracies", "error_ratios", "average", "worst"):
            expected = np.stack([getattr(each, name) for each in slow])
            for share in (0.025, 0.5, 0.975):
                found = np.nanquantile(getattr(fast, name), share, axis=0)
                np.testing.assert_allclose(found, np.nanquantile(expected, share, axis=0), atol=0.05)
        assert (fast.size == 300).all()
        np.testing.assert_array_equal(fast.members, resample(judged, 4000, seed=0).members)

    def test_nothing_wrong_has_no_ratio(self) -> None:
        judged = dataclasses.replace(_by_hand(), right=np.ones(6, dtype=bool))
        table = factor_table(judged, resamples=20)
        assert table["error_ratio"].isna().all() and table["error_ratio_low"].isna().all()
        assert table["prevalence_shift"].isna().all()
        assert table.set_index("factor").loc["worst_factor", "accuracy"] == 1

    def test_no_factor_at_all(self) -> None:
        judged = dataclasses.replace(_by_hand(), flags=np.zeros((6, 3), dtype=bool))
        row = factor_table(judged, resamples=20).set_index("factor").loc["worst_factor"]
        assert row["n"] == 0 and np.isnan(row["accuracy"])

    def test_worst_classes(self) -> None:
        assert worst_classes(_by_hand(), 1) == (2, 1)  # the classes 0 and 1 tie
        assert worst_classes(_by_hand(), 2) == (4, 2)
        assert worst_classes(_by_hand(), 9) == (6, 4)

    def test_refuses(self) -> None:
        judged = _by_hand()
        with pytest.raises(UserError, match="`flags` to have shape"):
            dataclasses.replace(judged, flags=judged.flags[:, :2])
        with pytest.raises(UserError, match="at least one sample"):
            judged.only(np.zeros(6, dtype=bool))
        with pytest.raises(UserError, match="finite"):
            dataclasses.replace(judged, confidence=np.full(6, np.nan))


class TestMetrics:
    def test_by_hand(self) -> None:
        made = _predictions(_by_hand())
        assert METRICS["worst_factor"].compute(made) == pytest.approx(1 / 3)
        assert METRICS["max_error_ratio"].compute(made) == pytest.approx(2)

    def test_bootstrap_equals_the_slow_way(self) -> None:
        judged, rng = _random(size=80), np.random.default_rng(5)
        slow = [sums_of(_take(judged, rng.integers(80, size=80))) for _ in range(100)]
        found = bootstrap(list(FACTOR_METRICS), _predictions(judged), resamples=100, seed=5)
        for name, values in (("worst_factor", "worst"), ("max_error_ratio", "largest_ratio")):
            bounds = np.nanquantile([getattr(each, values) for each in slow], [0.025, 0.975])
            np.testing.assert_allclose([found[name].low, found[name].high], bounds, rtol=1e-12)
            assert found[name].n == 80

    def test_agrees_with_the_table(self) -> None:
        judged = _random()
        row = factor_table(judged, resamples=10).set_index("factor").loc["worst_factor"]
        made = _predictions(judged)
        assert METRICS["worst_factor"].compute(made) == pytest.approx(row["accuracy"], rel=1e-12)
        assert METRICS["max_error_ratio"].compute(made) == pytest.approx(row["error_ratio"], rel=1e-12)

    def test_undefined(self) -> None:
        judged = _by_hand()
        perfect = _predictions(dataclasses.replace(judged, right=np.ones(6, dtype=bool)))
        assert METRICS["worst_factor"].compute(perfect) == 1
        assert not METRICS["max_error_ratio"].defined_on(perfect)
        with pytest.raises(UserError, match="no prediction is wrong"):
            METRICS["max_error_ratio"].compute(perfect)
        bare = _predictions(dataclasses.replace(judged, flags=np.zeros((6, 3), dtype=bool)))
        for metric in FACTOR_METRICS:
            assert not metric.defined_on(bare)
            with pytest.raises(UserError, match="no image has a factor"):
                metric.compute(bare)


class TestPredictions:
    def test_come_back_unchanged(self, tmp_path: Path) -> None:
        made = _predictions(_random())
        made.write(tmp_path / "p.parquet")
        back = FactorPredictions.read(tmp_path / "p.parquet")
        for field in dataclasses.fields(made):
            np.testing.assert_array_equal(getattr(back, field.name), getattr(made, field.name))
        made.write(tmp_path / "again.parquet")
        assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()

    def test_refuses_a_file_without_factors(self, tmp_path: Path) -> None:
        made, path = _predictions(_by_hand()), tmp_path / "p.parquet"
        Predictions.write(made, path)
        with pytest.raises(UserError, match="holds no factors"):
            FactorPredictions.from_table(read_parquet(path), path)

    def test_breakdown_is_json(self) -> None:
        tables = json.loads(json.dumps(_predictions(_by_hand()).breakdown()))
        rows = {row["factor"]: row for row in tables["per_factor"]}
        assert list(rows) == [*NAMES, "average"]
        assert rows["small"]["error_ratio"] == pytest.approx(2)
        assert rows["rare"] == {"factor": "rare", "n": 0, "right": 0}

    def test_flags_of_another_shape(self) -> None:
        made = _predictions(_by_hand())
        with pytest.raises(UserError, match="`flags` to have shape"):
            FactorPredictions.of(made, made.flags[:3], NAMES)


def _take(judged: Correctness, rows: np.ndarray) -> Correctness:
    return Correctness(judged.labels[rows], judged.right[rows], judged.flags[rows], judged.factors)
