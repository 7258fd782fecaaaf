"""Standings: ranks, intervals and groups of a table worked by hand, and what becomes of gaps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.standings.grid import Grid
from bob.standings.standings import COLUMNS, by_category, by_task, standings

Make = Callable[..., Grid]


@pytest.fixture
def make() -> Make:
    def made(scores: object, categories: str = "aab", noise: float = 0.01, down: bool = False) -> Grid:
        array = np.array(scores, dtype=np.float64)
        count = array.shape[1]
        parts = {"task": [f"t{n // 2}" for n in range(count)], "category": list(categories[:count])}
        settings = pd.DataFrame(
            {**parts, "metric": "top1", "higher_is_better": not down}, index=[f"s{n}" for n in range(count)]
        )
        drawn = array + np.random.default_rng(0).normal(scale=noise, size=(400, *array.shape))
        return Grid(tuple("abcdefgh"[: len(array)]), settings, array, drawn.astype(np.float32))

    return made


def test_by_hand(make: Make) -> None:
    # z with ddof 1 of three equally spaced values: -1, 0, 1.
    table = standings(make([[0.1, 0.3, 0.1], [0.2, 0.1, 0.5], [0.3, 0.2, 0.3]]))
    assert tuple(table.columns) == COLUMNS and list(table["backbone"]) == ["b", "c", "a"]
    np.testing.assert_allclose(table["mean_z"], [0.25, 0.25, -0.5], atol=1e-12)  # categories: (s0 + s1) / 4 + s2 / 2
    np.testing.assert_allclose(table["rank"], [1.5, 1.5, 3])
    np.testing.assert_allclose(table["mean_rank"], [1.75, 1.75, 2.5])
    np.testing.assert_allclose(table["borda"], [1.25, 1.25, 0.5])
    np.testing.assert_allclose(table["win_rate"], [0.625, 0.625, 0.25])
    assert list(table["settings"]) == [3, 3, 3]
    # b and c are tied, a is surely last.
    assert table[["rank_low", "rank_high", "group"]].to_numpy().tolist() == [[1, 2, 1], [1, 2, 1], [3, 3, 2]]
    assert (table["mean_z_low"] < table["mean_z"]).all() and (table["mean_z"] < table["mean_z_high"]).all()


def test_over_changes_who_leads(make: Make) -> None:
    grid = make([[0.9, 0.9, 0.1], [0.1, 0.1, 0.9], [0.1, 0.5, 0.5]])
    leaders = {over: standings(grid, over=over)["backbone"].iloc[0] for over in ("settings", "categories")}
    assert leaders == {"settings": "a", "categories": "b"}


@pytest.mark.parametrize("by", ["mean_z", "mean_rank", "win_rate", "borda"])
@pytest.mark.parametrize("down", [False, True])
def test_all_that_rank(make: Make, by: str, down: bool) -> None:
    table = standings(make([[0.1] * 3, [0.3] * 3, [0.2] * 3], down=down), by=by)
    assert list(table["backbone"]) == (["a", "c", "b"] if down else ["b", "c", "a"])
    assert table[["rank", "rank_low", "rank_high", "group"]].to_numpy().tolist() == [[n] * 4 for n in (1, 2, 3)]


def test_win_rate_and_mean_z_may_disagree(make: Make) -> None:
    grid = make([[0.51, 0.51, 0.0], [0.5, 0.5, 0.9], [0.1, 0.1, 0.0]])
    assert standings(grid, by="mean_z", over="settings")["backbone"].iloc[0] == "b"
    assert standings(grid, by="win_rate", over="settings")["backbone"].iloc[0] == "a"


def test_a_gap_is_never_filled(make: Make) -> None:
    grid = make([[0.1, 0.3, 0.1], [0.2, np.nan, 0.5], [0.3, 0.2, 0.3]])
    shown = standings(grid)
    assert list(shown["backbone"]) == ["c", "a", "b"] and list(shown["settings"]) == [3, 3, 2]
    assert shown.iloc[2].drop(["backbone", "settings"]).isna().all()
    assert list(shown["rank_high"][:2]) == [1, 2]  # among those that have a rank
    assert shown.loc[0, "mean_z"] == pytest.approx((1 - np.sqrt(0.5)) / 4)  # s1 has two backbones
    assert list(standings(grid, missing="common")["backbone"]) == ["b", "c", "a"]
    assert list(standings(grid, missing="drop")["backbone"]) == ["c", "a"]


def test_unknown_draws_leave_ranks_without_interval(make: Make) -> None:
    grid = make([[0.1, 0.3, 0.1], [0.2, 0.1, 0.5], [0.3, 0.2, 0.3]])
    grid.draws[:, 1, 2] = np.nan
    table = standings(grid).set_index("backbone")
    assert table["rank"].notna().all() and table[["rank_low", "rank_high", "group"]].isna().all(axis=None)
    assert list(table["mean_z_low"].isna()) == [True, False, False]  # of b alone
    assert standings(Grid(grid.backbones, grid.settings, grid.scores, grid.draws[:0]))["mean_z_low"].isna().all()


def test_alone(make: Make) -> None:
    row = standings(make([[0.4, 0.5, 0.6]])).iloc[0]
    assert row["rank"] == row["rank_low"] == row["rank_high"] == row["group"] == 1
    assert row["mean_z"] == 0 and row["win_rate"] == 0.5


def test_nobody_complete(make: Make) -> None:
    table = standings(make([[0.1, np.nan, 0.3], [np.nan, 0.2, 0.1]]))
    assert table["rank"].isna().all() and table["rank_low"].isna().all() and list(table["settings"]) == [2, 2]


def test_unknown_by(make: Make) -> None:
    with pytest.raises(UserError, match="--by mean_score is not known"):
        standings(make([[0.1], [0.2]]), by="mean_score")


def test_within_categories_and_tasks(make: Make) -> None:
    grid = make([[0.1, 0.3, 0.1, 0.1], [0.2, np.nan, 0.5, 0.2], [0.3, 0.2, 0.3, 0.3]], categories="aabb")
    table = by_category(grid)
    assert list(table.columns) == ["a", "b"] and np.isnan(table.loc["b", "a"])
    assert table.loc["a", "b"] == pytest.approx(-1) and table.loc["b", "b"] == pytest.approx(0.5)
    assert list(by_task(grid).columns) == ["t0", "t1"]
