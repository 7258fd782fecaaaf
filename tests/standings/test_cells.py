"""Cells: means over seeds, and draws that are joint over backbones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bob.results.draws import pack
from bob.results.record import Record
from bob.results.runs import summary, tidy
from bob.standings.cells import COLUMNS, cells_of, normal_draws

Make = Callable[..., Record]


def _noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.05, size=500)


def test_one_seed(make_record: Make) -> None:
    runs = tidy([make_record("b", 0.6, draws=0.6 + _noise(1)), make_record("a", 0.5, draws=0.5 + _noise(1))])
    cells = cells_of(runs)
    assert list(cells.table.columns) == list(COLUMNS)
    assert list(cells.table["backbone"]) == ["a", "b"] and list(cells.table["setting"]) == ["t/linear"] * 2
    assert list(cells.table["seeds"]) == [1, 1] and list(cells.table["source"]) == ["", ""]
    np.testing.assert_allclose(cells.table["standard_error"], 0.2 / 3.919928, rtol=1e-6)
    np.testing.assert_allclose(cells.draws[0], 0.5 + _noise(1), atol=1e-6)
    # Both saw the same noise, which cancels.
    np.testing.assert_allclose(cells.draws[1] - cells.draws[0], 0.1, atol=1e-6)
    assert not cells.independent.any()


def test_numbers_over_seeds_are_those_of_the_summary(make_record: Make) -> None:
    runs = tidy([make_record("a", 0.2 + 0.1 * seed, seed=seed) for seed in range(3)] + [make_record("b", 0.9)])
    table = cells_of(runs).table
    expected = summary(runs[runs["backbone"] == "a"])
    assert table.loc[0, ["score", "low", "high", "seeds"]].to_dict() == pytest.approx(
        {key: expected[key] for key in ("score", "low", "high", "seeds")}
    )
    assert list(table["seeds"]) == [3, 1]


@pytest.mark.parametrize("k", [2, 3, 5])
def test_draws_over_seeds_are_student_s(make_record: Make, k: int) -> None:
    scores = np.linspace(0.3, 0.7, k)
    made = [make_record(b, s, seed=n, draws=np.full(500, s)) for b in "ab" for n, s in enumerate(scores)]
    draws = cells_of(tidy(made)).draws
    # Without noise of samples, what is left is the standard error of a mean of k seeds, as k tell it.
    student = (draws[0] - 0.5) / (scores.std(ddof=1) / k**0.5)
    assert stats.kstest(student, stats.t(k - 1).cdf).pvalue > 0.01
    np.testing.assert_array_equal(draws[0], draws[1])  # the same seeds did the same to both


def test_seeds_that_two_backbones_do_not_share_are_not_paired(make_record: Make) -> None:
    made = [make_record("a", 0.1 * n, seed=n) for n in range(1, 6)]
    made += [make_record("b", 0.1 * n, seed=n + 10) for n in range(1, 6)]
    draws = cells_of(
        tidy([r.model_copy(update={"resampled": pack(np.full(500, r.metrics["top1"].value))}) for r in made])
    ).draws
    assert abs(stats.spearmanr(*draws).statistic) < 0.2


def test_older_records_get_independent_draws(make_record: Make) -> None:
    runs = tidy([make_record(name, 0.5, seed=seed) for name in "ab" for seed in (0, 1)])
    cells = cells_of(runs)
    assert cells.independent.all() and not np.isnan(cells.draws).any()
    assert abs(np.corrcoef(cells.draws)[0, 1]) < 0.2
    # Two seeds of equal scores average the noise of the samples, as if they had other samples.
    assert cells.draws[0].std() == pytest.approx(0.2 / 3.92 / 2**0.5, rel=0.1)


def test_a_resample_without_a_value_says_what_the_score_says(make_record: Make) -> None:
    draws = np.full(500, 0.4)
    draws[7] = np.nan
    found = cells_of(tidy([make_record("a", 0.5, draws=draws)])).draws[0]
    assert found[7] == np.float32(0.5) and (np.delete(found, 7) == np.float32(0.4)).all()


def test_do_not_depend_on_the_order_of_runs(make_record: Make) -> None:
    runs = tidy([make_record(b, 0.1 * n, protocol=p) for n, b in enumerate("abc") for p in ("knn", "linear")])
    first, second = cells_of(runs), cells_of(runs[::-1])
    pd.testing.assert_frame_equal(first.table, second.table)
    np.testing.assert_array_equal(first.draws, second.draws)


def test_normal_draws() -> None:
    table = pd.DataFrame(
        {"backbone": ["a", "b"], "setting": "s", "metric": "m", "score": [1.0, 2.0], "standard_error": [0.1, np.nan]}
    )
    draws = normal_draws(table, 4000)
    assert draws[0].mean() == pytest.approx(1, abs=0.01) and draws[0].std() == pytest.approx(0.1, rel=0.05)
    assert np.isnan(draws[1]).all()
