"""Aggregates over settings: by hand, against scipy and a plain loop, with gaps, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bob.errors import UserError
from bob.standings import aggregate
from bob.standings.aggregate import drawn_points, drawn_z, points, weights, without_gaps, z_of_scores
from bob.standings.grid import Grid

Make = Callable[..., Grid]


@pytest.fixture
def make() -> Make:
    """A grid of scores (n, S), with noise as draws."""

    def made(scores: object, categories: str = "aab", down: tuple[int, ...] = (), resamples: int = 20) -> Grid:
        array = np.array(scores, dtype=np.float64)
        count = array.shape[1]
        settings = pd.DataFrame(
            {
                "task": [f"t{setting // 2}" for setting in range(count)],
                "category": list(categories[:count]),
                "metric": "top1",
                "higher_is_better": [setting not in down for setting in range(count)],
            },
            index=[f"s{setting}" for setting in range(count)],
        )
        noise = np.random.default_rng(0).normal(scale=0.1, size=(resamples, *array.shape))
        return Grid(tuple("abcdefgh"[: len(array)]), settings, array, (array + noise).astype(np.float32))

    return made


def _plain_z(values: np.ndarray, ddof: int, down: tuple[int, ...] = ()) -> np.ndarray:
    """One setting after another, (n, S)."""
    return np.stack(
        [
            stats.zscore(column, ddof=ddof, nan_policy="omit") * (-1 if setting in down else 1)
            for setting, column in enumerate(values.T)
        ],
        axis=1,
    )


@pytest.mark.parametrize(
    "over, expected",
    [("settings", [0.2] * 5), ("tasks", [1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 3]), ("categories", [1 / 8] * 4 + [1 / 2])],
)
def test_weights(make: Make, over: str, expected: list[float]) -> None:
    settings = make(np.zeros((2, 5)), categories="aaaab").settings
    np.testing.assert_allclose(weights(settings, over), expected)


def test_unknown_weights(make: Make) -> None:
    with pytest.raises(UserError, match=r"--over category is not known. Did you mean: categories"):
        weights(make(np.zeros((2, 3))).settings, "category")


@pytest.mark.parametrize("ddof", [0, 1])
def test_z_is_scipys_and_minus_where_less_is_better(make: Make, ddof: int) -> None:
    values = np.random.default_rng(1).normal(size=(6, 3))
    values[2, 1] = np.nan
    np.testing.assert_allclose(z_of_scores(make(values, down=(2,)), ddof), _plain_z(values, ddof, (2,)))


def test_points_by_hand(make: Make) -> None:
    found = points(make([[0.9, 5, 1], [0.7, 5, np.nan], [0.8, 1, np.nan], [0.1, 9, np.nan]], down=(1,)))
    nan = np.nan
    np.testing.assert_array_equal(found["mean_rank"], [[1, 2.5, 1], [3, 2.5, nan], [2, 1, nan], [4, 4, nan]])
    np.testing.assert_array_equal(found["borda"], [[3, 1.5, 0], [1, 1.5, nan], [2, 3, nan], [0, 0, nan]])
    won = [[1, 0.5, 0.5], [1 / 3, 0.5, nan], [2 / 3, 1, nan], [0, 0, nan]]
    np.testing.assert_allclose(found["win_rate"], won)


def test_win_rate_is_the_share_of_others_beaten(make: Make) -> None:
    values = np.random.default_rng(2).integers(4, size=(8, 3)).astype(float)
    found = points(make(values))["win_rate"]
    for row in range(8):
        others = np.delete(values, row, axis=0)
        beaten = (others < values[row]).mean(axis=0) + (others == values[row]).mean(axis=0) / 2
        np.testing.assert_allclose(found[row], beaten)


@pytest.mark.parametrize("ddof", [0, 1])
def test_each_draw_has_its_own_mean_and_deviation(make: Make, ddof: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "_CHUNK", 100)  # five draws at a time
    grid = make(np.random.default_rng(3).normal(size=(6, 3)), down=(1,), resamples=12)
    by = np.array([[0.25, 1.0], [0.25, 0.0], [0.5, 0.0]])
    expected = np.stack([_plain_z(draw.astype(np.float64), ddof, (1,)) @ by for draw in grid.draws])
    found = drawn_z(grid, by, ddof)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("by", ["mean_rank", "borda", "win_rate"])
def test_each_draw_is_ranked(make: Make, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "_CHUNK", 100)
    values = np.random.default_rng(3).normal(size=(6, 3))
    values[5, 2] = np.nan
    grid, weight = make(values, down=(1,), resamples=12), np.array([0.25, 0.25, 0.5])
    slow = [points(Grid(grid.backbones, grid.settings, draw.astype(float), grid.draws))[by] for draw in grid.draws]
    np.testing.assert_allclose(drawn_points(grid, by, weight), np.stack(slow) @ weight, rtol=1e-5)


def test_gaps_and_unknown_draws(make: Make) -> None:
    values = np.random.default_rng(4).normal(size=(5, 3))
    values[0, 0] = np.nan
    grid = make(values)
    grid.draws[:, 1, 1] = np.nan  # unknown
    grid.draws[3, 2, 1] = np.nan  # a resample on which the metric has no value
    found = drawn_z(grid, np.eye(3))
    assert np.isnan(found[:, 0, 0]).all() and np.isnan(found[:, 1, 1]).all()
    assert np.isnan(found).sum() == 2 * len(grid.draws)
    still = grid.draws[7, :, 1].astype(float)
    still[1] = values[1, 1]  # stands where its score is, so that the others are among as many
    np.testing.assert_allclose(found[7, 2:, 1], stats.zscore(still, ddof=1)[2:], atol=2e-6)
    filled = grid.draws[3, :, 1].astype(float)
    filled[1], filled[2] = values[1, 1], np.nanmean(grid.draws[:, 2, 1])
    np.testing.assert_allclose(found[3, 2:, 1], stats.zscore(filled, ddof=1)[2:], atol=2e-6)
    assert list(np.isnan(drawn_points(grid, "borda", np.ones(3) / 3)).any(axis=0)) == [True, True, False, False, False]


def test_nobody_is_ahead_without_spread(make: Make) -> None:
    grid = make(np.full((4, 3), 0.7))
    same = Grid(grid.backbones, grid.settings, grid.scores, np.full((5, 4, 3), 0.7, np.float32))
    assert (z_of_scores(same) == 0).all() and (drawn_z(same, np.eye(3)) == 0).all()
    alone = make([[1.0, 2.0, 3.0]])
    assert (z_of_scores(alone) == 0).all() and (drawn_z(alone, np.eye(3)) == 0).all()
    assert (points(alone)["win_rate"] == 0.5).all()


def test_gaps_left_out(make: Make) -> None:
    grid = make([[1, np.nan, 3], [4, 5, 6], [7, 8, 9]])
    assert without_gaps(grid, "show") is grid
    assert list(without_gaps(grid, "common").settings.index) == ["s0", "s2"]
    assert without_gaps(grid, "drop").backbones == ("b", "c")


def test_nothing_left(make: Make) -> None:
    grid = make([[1, np.nan, np.nan], [np.nan, 5, np.nan], [np.nan, np.nan, 3]])
    with pytest.raises(UserError, match=r"None of 3 settings has a score of all 3 backbones. Leave out"):
        without_gaps(grid, "common")
    with pytest.raises(UserError, match=r"None of 3 backbones has a score in all 3 settings. Leave out"):
        without_gaps(grid, "drop")
    with pytest.raises(UserError, match=r"--missing fill is not known. Choose show, common or drop."):
        without_gaps(grid, "fill")
