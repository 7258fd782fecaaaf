"""The cells of a leaderboard: what each backbone scored in each setting, and how that would have come out otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from statistics import NormalDist

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from bob.results.draws import KEPT_RESAMPLES
from bob.results.runs import summary

COLUMNS = (
    *("backbone", "setting", "category", "task", "protocol", "metric", "higher_is_better"),
    *("score", "low", "high", "standard_error", "seeds", "n", "source"),
)
Draws = NDArray[np.float32]
_Z = NormalDist().inv_cdf(0.975)
_SETTING = ["task", "protocol"]
_NUMBERS = ["score", "low", "high"]
_CELL = ["backbone", *_SETTING]
_OF_DRAWS = [*_CELL, "seed", "metric", "score", "low", "high"]


@dataclass(frozen=True)
class Cells:
    """One row a backbone and setting.

    Attributes:
        table: Columns `COLUMNS`: `setting` is `TASK/PROTOCOL`; `score` the mean over seeds; `low` and `high` its 95%
            interval; `standard_error` NaN where it is not known; `source` is empty for our own runs.
        draws: (rows of the table, b): the score on other test samples and with other seeds. Those of one setting are
            joint: in a column every backbone saw the same samples. NaN where nothing is known of them.
        independent: Which rows' draws are not joint with others', for no resamples were kept of them.
    """

    table: pd.DataFrame
    draws: Draws
    independent: NDArray[np.bool_]


def cells_of(runs: pd.DataFrame) -> Cells:
    """The cells of our own runs.

    The draws of a run are its metric on resamples of the test samples, which are the same for all backbones; for
    several seeds see `_over_seeds`. Runs of older records, which keep no resamples, get independent normal draws: they
    widen what is said of differences.

    Args:
        runs: As `runs.comparable` sifts them.
    """
    order = runs[[*_CELL, "seed"]].reset_index(drop=True).sort_values([*_CELL, "seed"]).index.to_numpy()
    cell_of_run = runs.groupby(_CELL, sort=True).ngroup().to_numpy()[order]
    starts = np.flatnonzero(np.diff(cell_of_run, prepend=-1))
    seeds = np.diff(starts, append=len(order))
    first = order[starts]
    table = runs[[column for column in COLUMNS if column in runs]].iloc[first].reindex(columns=list(COLUMNS))
    table = table.reset_index(drop=True).assign(setting=lambda own: own["task"] + "/" + own["protocol"], seeds=seeds)
    draws, independent = _draws_of(runs, first)
    numbers = table[_NUMBERS].to_numpy(dtype=np.float64, copy=True)
    if (several := np.flatnonzero(seeds > 1)).size:
        draws = draws.copy()
    for cell in several:
        places = order[starts[cell] : starts[cell] + seeds[cell]]
        own, (drawn, alone) = runs.iloc[places], _draws_of(runs, places)
        joined = summary(own)
        numbers[cell] = [joined[key] for key in _NUMBERS]
        draws[cell], independent[cell] = _over_seeds(drawn, own), alone.any()
    table[_NUMBERS] = numbers
    table["standard_error"] = (table["high"] - table["low"]) / (2 * _Z)
    return Cells(table.assign(source=""), draws, independent)


def normal_draws(table: pd.DataFrame, size: int = KEPT_RESAMPLES) -> Draws:
    """Independent draws (rows, size) about each score with its standard error; NaN where that is not known.

    Args:
        table: Columns backbone, setting, metric, score and standard_error; its names decide the draws, not its order.
        size: Of the draws.
    """
    draws = np.full((len(table), size), np.nan, np.float32)
    columns = ("backbone", "setting", "metric", "score", "standard_error")
    for row, (*names, score, error) in enumerate(zip(*(table[column] for column in columns), strict=True)):
        if not np.isnan(error):
            draws[row] = score + error * _generator(*map(str, names)).standard_normal(size)
    return draws


def _draws_of(runs: pd.DataFrame, places: NDArray[np.intp]) -> tuple[Draws, NDArray[np.bool_]]:
    """The draws of the runs in these places, and which of them are independent of all others."""
    values, starts, lengths = _stored(runs["resampled"])
    kept = lengths[places] == KEPT_RESAMPLES
    draws = _rows(values, starts[places[kept]])
    # On a resample without positives a metric may have no value: it then says nothing else than the score does.
    if (lacking := np.flatnonzero(np.isnan(draws.sum(axis=1)))).size:
        draws = draws.copy()
        scores = runs["score"].to_numpy()[places[kept]]
        draws[lacking] = np.where(np.isnan(draws[lacking]), scores[lacking, None], draws[lacking])
    if kept.all():
        return draws, ~kept
    every = np.empty((len(places), KEPT_RESAMPLES), np.float32)
    every[kept] = draws
    rest = runs[_OF_DRAWS].iloc[places[~kept]]
    every[~kept] = normal_draws(
        rest.assign(
            backbone=rest["backbone"] + "#" + rest["seed"].astype(str),  # its seeds are not the same draw
            setting=rest["task"] + "/" + rest["protocol"],
            standard_error=(rest["high"] - rest["low"]) / (2 * _Z),
        )
    )
    return every, ~kept


def _stored(resampled: pd.Series[bytes]) -> tuple[Draws, NDArray[np.int64], NDArray[np.int64]]:
    """What runs have kept, one behind the other, where each begins and how much it is; no copy, for it may be large."""
    column = pa.array(resampled, pa.large_binary())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    _, offsets, content = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset :][: len(column) + 1] // 4
    return np.frombuffer(content or b"", "<f4"), ends[:-1], np.diff(ends)


def _rows(values: Draws, starts: NDArray[np.int64]) -> Draws:
    """The rows of `KEPT_RESAMPLES` values that begin there; a view where they lie one behind the other."""
    if len(starts) and np.array_equal(starts, starts[0] + KEPT_RESAMPLES * np.arange(len(starts))):
        return values[starts[0] : starts[-1] + KEPT_RESAMPLES].reshape(-1, KEPT_RESAMPLES)
    return values[starts[:, None] + np.arange(KEPT_RESAMPLES)]


def _over_seeds(draws: Draws, runs: pd.DataFrame) -> Draws:
    """What the mean over k seeds would be on other samples and with other seeds: (k, b) -> (b,).

    On each resample, the mean over seeds, and about it Student's t of k - 1 degrees of freedom times its standard error
    over seeds, as a few seeds tell: t is made from a normal variate a seed and one of their scale, which are the same
    for all backbones of a setting. So what a seed did to all of them (with few shots it is a subset of the images)
    cancels between them.
    """
    setting, scores = "/".join(runs[_SETTING].iloc[0]), runs["score"].to_numpy()
    k, size = draws.shape
    normal = np.stack([_generator("seed", setting, str(seed)).standard_normal(size) for seed in runs["seed"]])
    scale = _generator("scale", setting, str(k)).chisquare(k - 1, size) / (k - 1)
    deviations = (scores - scores.mean()) @ normal / np.sqrt(k * (k - 1) * scale)
    return np.asarray(draws.mean(axis=0) + deviations, dtype=np.float32)


def _generator(*names: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(sha256("\n".join(names).encode()).digest()[:8], "big"))
