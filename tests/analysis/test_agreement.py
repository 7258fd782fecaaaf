"""Rank correlation with the scores in records: against SciPy, by hand, and which records count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bob.analysis.agreement import agreement, scores_of
from bob.results.record import Record

Make = Callable[..., Record]
RNG = np.random.default_rng(0)


def scores(values: list[float], higher: bool = True) -> pd.DataFrame:
    names = [f"b{i}" for i in range(len(values))]
    return pd.DataFrame(
        {"backbone": names, "protocol": "knn", "metric": "top1", "score": values, "higher_is_better": higher}
    )


def measured(**columns: list[float]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    return pd.DataFrame({"backbone": [f"b{i}" for i in range(count)], **columns})


@pytest.mark.parametrize("n", [5, 12])
def test_scipy(n: int) -> None:
    one, other = RNG.normal(size=n).round(1), RNG.normal(size=n).round(1)
    row = agreement(measured(a=list(one)), scores(list(other)), ["a"]).iloc[0]
    assert row["spearman"] == pytest.approx(stats.spearmanr(one, other).statistic)
    assert row["kendall"] == pytest.approx(stats.kendalltau(one, other).statistic)
    tested = stats.permutation_test(
        (one,), lambda x: stats.spearmanr(x, other).statistic, permutation_type="pairings", n_resamples=1999, rng=0
    )
    assert row["p"] == pytest.approx(tested.pvalue, abs=0.05) and row["n"] == n


def test_by_hand() -> None:
    row = agreement(measured(a=[1, 2, 3]), scores([0.1, 0.5, 0.9]), ["a"]).iloc[0]
    assert (row["spearman"], row["kendall"], row["n"]) == pytest.approx((1, 1, 3))
    assert row["p"] == pytest.approx(2 / 6)  # of six orders the same and its reverse
    assert (row["chance_low"], row["chance_high"]) == pytest.approx((-1, 1))


def test_less_is_better() -> None:
    row = agreement(measured(a=[1, 2, 3]), scores([0.1, 0.5, 0.9], higher=False), ["a"]).iloc[0]
    assert row["spearman"] == pytest.approx(-1)


def test_left_out() -> None:
    table = measured(a=[1, 2, np.nan], b=[1, 1, 1], c=[3, 1, 2])
    assert list(agreement(table, scores([0.1, 0.2, 0.3]), ["a", "b", "c"])["measure"]) == ["c"]
    assert agreement(table, scores([0.1, 0.2]), ["c"]).empty
    assert agreement(table, scores([]), ["c"]).empty


def test_seeded() -> None:
    table, made = measured(a=list(range(9))), scores(list(RNG.normal(size=9)))
    first, again, other = (agreement(table, made, ["a"], seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["p"].iloc[0] == pytest.approx(other["p"].iloc[0], abs=0.02)


def test_scores_of(make_record: Make) -> None:
    records = [
        make_record("a", 0.4),
        make_record("a", 0.6, seed=1),
        make_record("b", 0.7),
        make_record("b", 0.9, protocol="knn@block1"),
        make_record("b", 0.2, weights="older"),
        make_record("b", 0.1, task="other"),
        make_record("c", 0.3),
    ]
    own = {"weights_sha256": "w"}
    found, stale = scores_of(records, "t", {"a": own, "b": own})
    assert dict(zip(found["backbone"], found["score"], strict=True)) == pytest.approx({"a": 0.5, "b": 0.7})
    assert stale == 1
    nothing, stale = scores_of(records, "t", {"a": {"weights_sha256": "newer"}})
    assert nothing.empty and stale == 2
