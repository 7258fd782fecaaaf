"""Two backbones compared set by set, or class of queries by class: scores worked by hand or by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bob.errors import UserError
from bob.results.compare import class_table, require_same_samples
from bob.results.judged_sets import JudgedSet
from bob.results.ood import OODPredictions
from bob.results.ood_detection import KNOWN, OODDetectionPredictions
from bob.results.retrieval import RetrievalPredictions


def _shifted(hits: dict[str, int], clean: int = 40) -> OODPredictions:
    """40 clean images and 40 of each set, of which so many are right."""
    right = [np.arange(40) < n for n in (clean, *hits.values())]
    labels = np.tile(np.arange(40) % 2, len(right))
    table = np.eye(2)[np.where(np.concatenate(right), labels, 1 - labels)]
    rows = [slice(40 * i, 40 * (i + 1)) for i in range(len(right))]
    sets = list(zip([JudgedSet("clean"), *(JudgedSet(name, name) for name in hits)], rows, strict=True))
    return OODPredictions.from_probabilities([f"i{i}" for i in range(len(labels))], labels, table, "ab", sets)


def _outliers(shift: float) -> OODDetectionPredictions:
    members = np.repeat([KNOWN, 0, 1], 30)
    scores = np.random.default_rng(0).normal(size=90) + np.array([0.0, shift, 2.0])[members - KNOWN]
    return OODDetectionPredictions.from_scores([f"i{i}" for i in range(90)], scores, members, ["x", "y"], [True, False])


def _queries(ranks: list[int]) -> RetrievalPredictions:
    """Queries with one positive each, at these ranks; the classes alternate."""
    n = len(ranks)
    return RetrievalPredictions(
        names=[f"q{i}" for i in range(n)],
        labels=np.arange(n) % 2,
        classes=("ant", "bee"),
        starts=np.arange(n + 1),
        ranks=np.array(ranks),
        kind_of=np.zeros(n, dtype=np.int64),
        kinds=("same",),
        levels={"all": (("same",), ())},
        primary="all",
        database=20,
    )


def test_shifted_sets() -> None:
    table = class_table(_shifted({"x": 20, "y": 30}), _shifted({"x": 30, "y": 24})).set_index("class")
    assert table.loc["x", ["n", "a", "b"]].tolist() == [40, 0.5, 0.75]
    assert table.loc["y", "difference"] == pytest.approx(-0.15)
    low, high = table.loc["x", ["low", "high"]]
    assert 0.05 < low < 0.25 < high < 0.45


def test_sets_of_outliers() -> None:
    a, b = _outliers(0.2), _outliers(1.5)
    table = class_table(a, b).set_index("class")
    for name, number in (("x", 0), ("y", 1)):
        for column, each in (("a", a), ("b", b)):
            own = np.isin(each.members, [KNOWN, number])
            expected = roc_auc_score(each.members[own] == number, each.scores[own])
            assert table.loc[name, column] == pytest.approx(expected, abs=1e-12)
    assert table.loc["x", "low"] > 0 and table.loc["y", ["difference", "low", "high"]].tolist() == [0, 0, 0]


def test_classes_of_queries() -> None:
    # One positive at rank r (from 0): the trapezoid has precision 0 before and 1 / (r + 1) at it, but 1 before rank 0.
    table = class_table(_queries([0, 1, 0, 3]), _queries([0, 0, 1, 0])).set_index("class")
    assert table.loc["ant", ["n", "a", "b"]].tolist() == [2, 1.0, pytest.approx((1 + 0.25) / 2)]
    assert table.loc["bee", ["a", "b"]].tolist() == [pytest.approx((0.25 + 0.125) / 2), 1.0]


def test_another_truth_is_refused() -> None:
    a = _shifted({"x": 20})
    sets = [(JudgedSet("clean"), slice(0, 40)), (JudgedSet("x", "x"), slice(40, 80))]
    names, table = [f"i{i}" for i in range(80)], np.tile([1.0, 0.0], (80, 1))
    b = OODPredictions.from_probabilities(names, np.zeros(80, dtype=np.int64), table, "ab", sets)
    with pytest.raises(UserError, match="were not tested on the same samples: their sets differ"):
        require_same_samples(a, b)
    require_same_samples(a, _shifted({"x": 3}))
