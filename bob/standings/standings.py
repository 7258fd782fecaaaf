"""Who stands where: one row a backbone with its rank, how sure the rank is, and what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bob.results.statistics import ranks
from bob.standings.aggregate import (
    BY,
    Draws,
    Floats,
    drawn_points,
    drawn_z,
    points,
    weights,
    without_gaps,
    z_of_scores,
)
from bob.standings.filters import one_of
from bob.standings.rank_intervals import ranks_and_groups

if TYPE_CHECKING:
    from bob.standings.grid import Grid

COLUMNS = (
    "rank",
    "rank_low",
    "rank_high",
    "group",
    "backbone",
    "mean_z",
    "mean_z_low",
    "mean_z_high",
    "mean_rank",
    "borda",
    "win_rate",
    "settings",
)


def standings(
    grid: Grid,
    by: str = "mean_z",
    over: str = "categories",
    ddof: int = 1,
    missing: str = "show",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """One row a backbone, best first, equals by name; those without a rank last.

    Columns: rank (1 is the best, ties share the mean); rank_low, rank_high, the interval of
    `rank_intervals`; group, of those not told apart from their leader (`tied_groups`); backbone; mean_z with mean_z_low
    and mean_z_high, the percentile interval over the draws, each standardised by its own mean and deviation; mean_rank;
    borda (weighted mean over settings of the number of backbones less the rank: the classic count is that times the
    number of settings, where all count the same); win_rate (share of the other backbones beaten, ties half); settings,
    how many it has. A backbone that lacks a setting is never given a score for it: it has NaN in all but the last.
    Where noise is as large as what backbones differ by, z shrinks in every draw, and the interval of mean_z holds the
    truth in about 88% rather than 95% (simulated).
    An interval is NaN where the draws of a score that it rests on are unknown, a rank's where anybody's are.

    Ranking by mean_rank, borda or win_rate sorts every draw: 1,000 backbones in 100 settings take 6 s, by mean_z 1 s.

    Args:
        grid: n backbones x S settings, B draws.
        by: What ranks: "mean_z", "mean_rank", "borda" or "win_rate".
        over: How settings are weighted: "categories", "tasks" or "settings"; see `weights`.
        ddof: Of the standard deviation behind z; 1 is the sample's, 0 the population's.
        missing: What becomes of gaps: "show", "common" or "drop"; see `without_gaps`.
        confidence: Of the intervals.

    Raises:
        UserError: If `by`, `over` or `missing` is none of these, or `missing` leaves nothing.

    Source: Goldblum et al. 2023, Battle of the Backbones, arXiv 2310.19909 (mean z-score; it publishes neither ddof nor
    a rule for gaps).
    """
    one_of(by, BY, "--by")
    grid = without_gaps(grid, missing)
    weight = weights(grid.settings, over)
    table = pd.DataFrame({"backbone": grid.backbones, "mean_z": z_of_scores(grid, ddof) @ weight})
    for name, each in points(grid).items():
        table[name] = each @ weight
    table["settings"] = (~np.isnan(grid.scores)).sum(axis=1)
    drawn = drawn_z(grid, weight[:, None], ddof)[:, :, 0]
    table["mean_z_low"], table["mean_z_high"] = _percentiles(drawn, confidence)
    values = table[by].to_numpy(dtype=np.float64)
    table["rank"] = ranks(values, higher_is_better=BY[by])
    sign = 1 if BY[by] else -1
    compared = drawn if by == "mean_z" else drawn_points(grid, by, weight) * np.float32(sign)
    table["rank_low"], table["rank_high"], groups = ranks_and_groups(sign * values, compared, confidence)
    table["group"] = np.where(groups > 0, groups, np.nan)
    return _ordered(table)


def by_category(grid: Grid, ddof: int = 1) -> pd.DataFrame:
    """Mean z of each backbone within each category: index backbone, a column a category, NaN where one lacks a setting.

    Args:
        grid: n backbones x S settings.
        ddof: Of the standard deviation.
    """
    return _within(grid, "category", ddof)


def by_task(grid: Grid, ddof: int = 1) -> pd.DataFrame:
    """Mean z of each backbone within each task, as `by_category`."""
    return _within(grid, "task", ddof)


def _within(grid: Grid, part: str, ddof: int) -> pd.DataFrame:
    z = pd.DataFrame(z_of_scores(grid, ddof), index=pd.Index(grid.backbones, name="backbone"))
    owner = grid.settings[part].to_numpy()
    means = {name: z.loc[:, owner == name].mean(axis=1, skipna=False) for name in dict.fromkeys(owner)}
    return pd.DataFrame(means, index=z.index)


def _percentiles(drawn: Draws, confidence: float) -> tuple[Floats, Floats]:
    """The middle `confidence` of draws (B, n), each (n,); NaN without draws."""
    if not len(drawn):
        return np.full(drawn.shape[1], np.nan), np.full(drawn.shape[1], np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return low, high


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["rank", "mean_z", "backbone"]
    ordered = table.sort_values(keys, ascending=[True, False, True], na_position="last")
    return ordered[list(COLUMNS)].reset_index(drop=True)
