"""The factors adapter: protocols of classification, flags on the test split alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bob.adapters.classification import Classification
from bob.adapters.factors import Factors
from bob.data.sources import load_task
from bob.results.factor_metrics import FACTOR_METRICS
from bob.results.factors import FactorPredictions
from bob.results.metrics import get_metric
from bob.results.predictions import Predictions
from bob.results.statistics import bootstrap
from bob.task_cards import DataSpec, TaskCard

CARD = TaskCard(name="toy", adapter="factors", data=DataSpec(source="shapes"))


def test_judges_with_the_flags_of_the_test_split() -> None:
    dataset, adapter = load_task(CARD, Path("nowhere")), Factors()
    test = dataset.splits["test"]
    table = np.random.default_rng(0).dirichlet(np.ones(10), len(test))
    judged = adapter.judge(dataset, "test", table)
    assert isinstance(judged, FactorPredictions) and judged.kind == "factors"
    np.testing.assert_array_equal(judged.flags, test.images.flags[test.indices])  # type: ignore[attr-defined]
    plain = Classification().judge(dataset, "test", table)
    np.testing.assert_array_equal(judged.predicted, plain.predicted)
    shares = [(judged.predicted == judged.labels)[own].mean() for own in judged.flags.T]
    others = [get_metric(name) for name in ("top1", "nll", "ece")]
    found = bootstrap([*FACTOR_METRICS, *others], judged, resamples=20)
    assert found["worst_factor"].value == pytest.approx(min(shares))
    wrong = (judged.predicted != judged.labels).mean()
    assert found["max_error_ratio"].value == pytest.approx((1 - min(shares)) / wrong)


def test_chooses_without_factors() -> None:
    dataset, adapter = load_task(CARD, Path("nowhere")), Factors()
    table = np.random.default_rng(0).dirichlet(np.ones(10), len(dataset.splits["val"]))
    assert type(adapter.judge(dataset.sealed(), "val", table)) is Predictions
    assert set(adapter.scores(dataset.sealed(), "val", table)) == {"top1", "nll"}
    with pytest.raises(RuntimeError, match="sealed"):
        adapter.judge(dataset.sealed(), "test", table)
    assert Factors.protocols == Classification.protocols
