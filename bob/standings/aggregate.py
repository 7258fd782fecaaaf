"""What a backbone's scores in many settings add up to: mean z, mean rank, win rate and Borda points."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bob.cores import granted_cores
from bob.errors import UserError
from bob.results.statistics import Floats, ranks, z_scores
from bob.standings.filters import one_of

if TYPE_CHECKING:
    from bob.standings.grid import Grid

Draws: TypeAlias = NDArray[np.float32]

# What ranks -> whether more of it is better.
BY = {"mean_z": True, "mean_rank": False, "borda": True, "win_rate": True}
OVER = ("categories", "tasks", "settings")
MISSING = ("show", "common", "drop")

_CHUNK = 2**21  # numbers held at once, of each of a few temporary arrays
_PARTS = {"categories": "category", "tasks": "task"}
# Relative spread below which draws differ by rounding only; they are single precision.
_SAME = 4 * float(np.finfo(np.float32).eps)


def weights(settings: pd.DataFrame, over: str = "categories") -> Floats:
    """How much each setting counts; they add up to 1.

    Args:
        settings: S rows with columns `category` and `task`.
        over: "settings" counts each the same; "tasks" averages the settings of a task first; "categories" those of a
            category, which is how Battle of the Backbones averages (arXiv 2310.19909): many settings of one kind of
            task do not outvote another kind.

    Returns:
        (S,) positive.

    Raises:
        UserError: If `over` is none of these.
    """
    if one_of(over, OVER, "--over") == "settings":
        return np.full(len(settings), 1 / max(len(settings), 1))
    part = settings[_PARTS[over]]
    sizes = part.map(part.value_counts()).to_numpy(dtype=np.float64)
    return 1 / (sizes * part.nunique())


def z_of_scores(grid: Grid, ddof: int = 1) -> Floats:
    """Distance of each score from its setting's mean, in deviations of the backbones that have the setting.

    Args:
        grid: n backbones x S settings.
        ddof: Of the standard deviation; see `bob.results.statistics.z_scores`.

    Returns:
        (n, S), more is better whatever the metric, NaN where not run.
    """
    columns = [z_scores(np.ascontiguousarray(column), ddof) for column in grid.scores.T]
    return _signs(grid) * np.stack(columns, axis=1) if columns else np.empty(grid.scores.shape)


def points(grid: Grid) -> dict[str, Floats]:
    """Rank, Borda points and win rate in each setting, among the n_s backbones that have it.

    A backbone of rank r (ties share the mean of their ranks) gets n_s - r points; its win rate (n_s - r) / (n_s - 1) is
    the share of the others that it beats, ties half. The only backbone of a setting has 0.5: nobody is ahead.

    Returns:
        "mean_rank", "borda" and "win_rate" -> (n, S), NaN where not run.
    """
    better = _better(grid)
    columns = [
        ranks(np.ascontiguousarray(column), higher_is_better=bool(up))
        for column, up in zip(grid.scores.T, better, strict=True)
    ]
    places = np.stack(columns, axis=1) if columns else np.empty(grid.scores.shape)
    return _from_places(places, (~np.isnan(grid.scores)).sum(axis=0))


def drawn_z(grid: Grid, by: Floats, ddof: int = 1) -> Draws:
    """Weighted means of z in every draw, each draw standardised by its own mean and deviation.

    A score whose draws are unknown stands still in the draws of the others, so that these are compared with as many
    backbones as their score is; its own mean is unknown. A draw that alone is undefined counts as the mean of its cell.

    Args:
        grid: n backbones x S settings, B draws.
        by: (S, K) weights of K means; a setting of weight 0 does not count and may be missing.
        ddof: Of the standard deviation.

    Returns:
        (B, n, K), NaN where a setting that counts was not run or its draws are unknown.
    """
    middle = _middle(grid.draws)
    filling = np.where(np.isnan(middle), grid.scores, middle).astype(np.float32)  # NaN where not run
    weights = (by * _signs(grid)[:, None]).astype(np.float32)
    out = np.zeros((by.shape[1], len(grid.backbones), len(grid.draws)), dtype=np.float32)

    def add(some: slice) -> None:
        for setting in np.flatnonzero(by.any(axis=1)):
            part = grid.draws[some, :, setting].T
            z = _standardised(np.where(np.isnan(part), filling[:, setting, None], part), ddof)
            for number in np.flatnonzero(by[setting]):
                out[number, :, some] += weights[setting, number] * z

    size = max(1, -(-len(grid.draws) // granted_cores()))
    with ThreadPoolExecutor(granted_cores()) as pool:  # numpy lets go of the interpreter's lock
        list(pool.map(add, [slice(start, start + size) for start in range(0, len(grid.draws), size)]))
    out[(np.isnan(middle).astype(np.float64) @ (by > 0) > 0).T] = np.nan
    return out.transpose(2, 1, 0)


def drawn_points(grid: Grid, by: str, weight: Floats) -> Draws:
    """Weighted means of rank, Borda points or win rate in every draw.

    Every draw of every setting is sorted, so this takes some ten times as long as `drawn_z`.

    Args:
        grid: n backbones x S settings, B draws.
        by: "mean_rank", "borda" or "win_rate".
        weight: (S,) of the settings.

    Returns:
        (B, n), NaN where a setting was not run or its draws are unknown.
    """
    from scipy.stats import rankdata  # half a second to import, which ranking by mean z is spared

    signs, counts = _signs(grid).astype(np.float32), (~np.isnan(grid.scores)).sum(axis=0)
    out = np.empty((len(grid.draws), len(grid.backbones)), dtype=np.float32)
    middle = _middle(grid.draws)

    def fill(rows: slice, part: Draws) -> None:
        places = rankdata(-part * signs, axis=1, nan_policy="omit")
        out[rows] = _from_places(places, counts)[by] @ weight

    _in_chunks(grid, middle, fill)
    out[:, np.isnan(middle).any(axis=1)] = np.nan
    return out


def without_gaps(grid: Grid, missing: str) -> Grid:
    """The part of a grid that is ranked.

    Args:
        grid: n backbones x S settings.
        missing: "show" keeps all of it: a backbone that lacks a setting stays, without a place. "common" keeps the
            settings that all the backbones have, "drop" the backbones that have all the settings.

    Raises:
        UserError: If `missing` is none of these, or nothing is left.
    """
    has = ~np.isnan(grid.scores)
    n, settings = has.shape
    if one_of(missing, MISSING, "--missing") == "common":
        kept: NDArray[np.bool_] = np.asarray(has.all(axis=0))
        if not kept.any():
            raise UserError(
                f"None of {settings} settings has a score of all {n} backbones.",
                "Leave out backbones that have few settings (--without NAME), or use --missing drop.",
            )
        return grid.take(settings=kept)
    if missing == "drop":
        kept = np.asarray(has.all(axis=1))
        if not kept.any():
            raise UserError(
                f"None of {n} backbones has a score in all {settings} settings.",
                "Leave out settings that few have (--task NAME), or use --missing common.",
            )
        return grid.take(backbones=kept)
    return grid


def _from_places(places: Floats, counts: NDArray[np.int64]) -> dict[str, Floats]:
    """Points of ranks (..., n, S) among `counts` (S,) backbones."""
    earned = counts - places
    won = earned / np.maximum(counts - 1, 1)
    return {"mean_rank": places, "borda": earned, "win_rate": np.where(counts == 1, won + 0.5, won)}


def _standardised(part: Draws, ddof: int) -> Draws:
    """Standardise the draws (n, b) of one setting over its backbones; 0 where there is no spread, or no value."""
    known = ~np.isnan(part[:, 0]) if part.size else np.zeros(len(part), dtype=bool)  # gaps are of whole cells here
    count, out = int(known.sum()), np.zeros_like(part)
    if count <= max(ddof, 1):
        return out
    values = part if known.all() else part[known]
    mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = values - mean
    deviation = np.sqrt(np.einsum("nb,nb->b", centred, centred, dtype=np.float64) / (count - ddof))
    largest, widest = (np.abs(array).max(axis=0) for array in (values, centred))
    flat = widest <= _SAME * largest
    centred *= np.where(flat, 0, 1 / np.where(flat, 1, deviation)).astype(np.float32)
    out[known] = centred
    return out


def _in_chunks(grid: Grid, middle: Floats, use: Callable[[slice, Draws], None]) -> None:
    """Give the draws in pieces of bounded memory, gaps of cells that were run filled; some at a time."""
    size = max(1, _CHUNK // max(grid.scores.size, 1))
    filling = np.where(np.isnan(middle), grid.scores, middle).astype(np.float32)  # NaN where not run

    def one(start: int) -> None:
        part = grid.draws[start : start + size]
        use(slice(start, start + size), np.where(np.isnan(part), filling, part))

    with ThreadPoolExecutor(granted_cores()) as pool:  # numpy lets go of the interpreter's lock
        list(pool.map(one, range(0, len(grid.draws), size)))


def _middle(draws: Draws) -> Floats:
    """Mean over the draws of each cell, (n, S), NaN where it has none."""
    if not len(draws):
        return np.full(draws.shape[1:], np.nan)
    middle = draws.mean(axis=0, dtype=np.float64)
    for place in zip(*np.nonzero(np.isnan(middle)), strict=True):
        own = draws[(slice(None), *place)]
        known = own[~np.isnan(own)]
        middle[place] = known.mean() if known.size else np.nan
    return middle


def _better(grid: Grid) -> NDArray[np.bool_]:
    return grid.settings["higher_is_better"].to_numpy(dtype=bool)


def _signs(grid: Grid) -> Floats:
    return np.where(_better(grid), 1.0, -1.0)
