"""Correlations between tasks: scipy's, with intervals that hold, over the backbones that have both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bob.errors import UserError
from bob.standings.correlation import correlations, spearman_matrix
from bob.standings.grid import Grid


def _grid(scores: np.ndarray) -> Grid:
    count = scores.shape[1]
    settings = pd.DataFrame(
        {
            "task": [f"t{n // 2}" for n in range(count)],
            "category": ["x" if n < 4 else "y" for n in range(count)],
            "metric": "top1",
            "higher_is_better": [n != 1 for n in range(count)],
        },
        index=[f"s{n}" for n in range(count)],
    )
    names = tuple(f"b{n:02}" for n in range(len(scores)))
    return Grid(names, settings, scores, np.empty((0, *scores.shape), np.float32))


@pytest.fixture
def scores() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 1)) + rng.normal(size=(20, 6)).round(1)


def test_equal_scipys_on_the_backbones_that_have_both(scores: np.ndarray) -> None:
    scores[:3, 0] = scores[2:9, 5] = np.nan
    table = correlations(_grid(scores), "settings", resamples=50).set_index(["first", "second"])
    assert len(table) == 15
    for (first, second), row in table.iterrows():
        one, two = (scores[:, int(name[1])] * (-1 if name == "s1" else 1) for name in (first, second))
        both = ~np.isnan(one) & ~np.isnan(two)
        assert row["n"] == both.sum()
        assert row["spearman"] == pytest.approx(stats.spearmanr(one[both], two[both]).statistic)
        assert row["low"] <= row["spearman"] <= row["high"]


def test_of_tasks_and_categories(scores: np.ndarray) -> None:
    grid = _grid(scores)
    assert list(correlations(grid, "tasks")[["first", "second"]].itertuples(index=False, name=None)) == [
        ("t0", "t1"),
        ("t0", "t2"),
        ("t1", "t2"),
    ]
    z = stats.zscore(scores, ddof=1) * [1, -1, 1, 1, 1, 1]
    expected = stats.spearmanr(z[:, :4].mean(axis=1), z[:, 4:].mean(axis=1)).statistic
    [row] = correlations(grid, "categories").to_dict("records")
    assert (row["first"], row["second"]) == ("x", "y") and row["spearman"] == pytest.approx(expected)
    with pytest.raises(UserError, match=r"--of task is not known. Did you mean: tasks"):
        correlations(grid, "task")


def test_too_few_or_constant() -> None:
    values = np.random.default_rng(1).normal(size=(6, 4))
    values[:3, 2] = np.nan
    values[:, 3] = 0.5
    table = correlations(_grid(values), "settings").set_index(["first", "second"])
    assert table.loc[("s0", "s2"), "n"] == 3 and table.loc["s0"].loc[["s2", "s3"], "spearman"].isna().all()
    assert table.loc["s0"].loc[["s2", "s3"], ["low", "high"]].isna().all(axis=None)
    assert np.isfinite(table.loc[("s0", "s1"), "spearman"])


def test_the_interval_is_about_95_percent() -> None:
    rng, truth, held = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.6 / 2), 0
    for _ in range(200):
        draws = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=40)
        _, low, high = spearman_matrix(draws, resamples=300)
        held += low[0, 1] <= truth <= high[0, 1]
    assert 0.90 <= held / 200 <= 0.99


def test_equal_seeds_and_chunks(scores: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = spearman_matrix(scores, resamples=40)
    monkeypatch.setattr("bob.standings.correlation._CHUNK", 1000)
    for one, two in zip(whole, spearman_matrix(scores, resamples=40), strict=True):
        np.testing.assert_array_equal(one, two)
