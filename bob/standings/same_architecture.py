"""Pretraining apart from architecture: self-supervised and vision-language backbones against supervised ones alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bob.errors import UserError
from bob.standings.cells import Cells

CHALLENGERS = ("ssl", "vlm")  # paradigms that are compared with `supervised`
_INTERVAL = (0.025, 0.975)
_NO_ARCHITECTURE = ("", "none")  # what cards of no network, such as the pixels themselves, say


def same_architecture(cells: Cells, kinds: pd.DataFrame) -> pd.DataFrame:
    """Compare, on each setting and for each architecture, the best backbone of each paradigm.

    The best of several is the one with the best score on that very setting, so a paradigm with more backbones has more
    chances; the interval is that of the two backbones that are named, and says nothing of how they were chosen.

    Args:
        cells: Scores with their joint draws.
        kinds: Columns `paradigm` and `architecture`, the index being backbones.

    Returns:
        A row for each setting, architecture and challenging paradigm (`ssl`, `vlm`), by setting, then architecture:
        setting, architecture, metric, paradigm, backbone, score, supervised (its name), supervised_score, backbones and
        supervised_backbones (how many there were to choose from), difference (the first minus the supervised), low,
        high (95%, over the joint draws; NaN where one of them has none), ahead (the paradigm whose best is better, or
        "tie"), sure (whether the interval is on one side of 0).

    Raises:
        UserError: If no architecture has both.

    Source: Goldblum et al. 2023, Battle of the Backbones, arXiv 2310.19909 (comparison of like architectures).
    """
    best = _best(cells.table, kinds)
    supervised = best[best["paradigm"] == "supervised"]
    pairs = best[best["paradigm"].isin(CHALLENGERS)].merge(
        supervised, on=["setting", "architecture"], suffixes=("", "_supervised")
    )
    if pairs.empty:
        raise UserError(
            "No architecture has both a supervised and an ssl or vlm backbone on the same task.",
            "Run such a pair: `bob list backbones` and `bob show NAME` tell paradigm and architecture.",
        )
    pairs = pairs.sort_values(["setting", "architecture", "paradigm"], ignore_index=True)
    return _compared(pairs, cells.draws)


def tally(table: pd.DataFrame) -> list[str]:
    """A sentence for each paradigm: how often it is ahead of the supervised backbones, and how often surely.

    Args:
        table: As `same_architecture` gives it.
    """
    lines = []
    for paradigm, own in table.groupby("paradigm"):
        ahead, behind = own["ahead"] == paradigm, own["ahead"] == "supervised"
        lines.append(
            f"{paradigm} is ahead of supervised in {ahead.sum()} of {len(own)} comparisons (surely in "
            f"{(ahead & own['sure']).sum()}) and behind in {behind.sum()} (surely in {(behind & own['sure']).sum()})."
        )
    return lines


def _best(table: pd.DataFrame, kinds: pd.DataFrame) -> pd.DataFrame:
    """The best cell of each setting, architecture and paradigm; by name among equals; `place` is its row of draws."""
    rows = table.assign(place=np.arange(len(table))).join(kinds[["paradigm", "architecture"]], on="backbone")
    rows = rows[rows["score"].notna() & ~rows["architecture"].isin(_NO_ARCHITECTURE)]
    rows = rows[rows["paradigm"].isin(("supervised", *CHALLENGERS))]
    merit = np.where(rows["higher_is_better"].astype(bool), rows["score"], -rows["score"])
    keys = ["setting", "architecture", "paradigm"]
    ordered = rows.assign(merit=merit).sort_values(["merit", "backbone"], ascending=[False, True])
    best = ordered.drop_duplicates(keys)
    return best.join(ordered.groupby(keys).size().rename("backbones"), on=keys)


def _compared(pairs: pd.DataFrame, draws: NDArray[np.float32]) -> pd.DataFrame:
    difference = pairs["score"] - pairs["score_supervised"]
    low, high = _bounds(draws, pairs["place"].to_numpy(), pairs["place_supervised"].to_numpy())
    better = np.where(pairs["higher_is_better"].astype(bool), difference > 0, difference < 0)
    ahead = np.where(better, pairs["paradigm"], "supervised")
    return pd.DataFrame(
        {
            "setting": pairs["setting"],
            "architecture": pairs["architecture"],
            "metric": pairs["metric"],
            "paradigm": pairs["paradigm"],
            "backbone": pairs["backbone"],
            "score": pairs["score"],
            "supervised": pairs["backbone_supervised"],
            "supervised_score": pairs["score_supervised"],
            "backbones": pairs["backbones"],
            "supervised_backbones": pairs["backbones_supervised"],
            "difference": difference,
            "low": low,
            "high": high,
            "ahead": np.where(difference == 0, "tie", ahead),
            "sure": (low > 0) | (high < 0),
        }
    )


def _bounds(
    draws: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The middle 95% of the difference of two rows of draws, for each pair of rows."""
    low, high = np.full(len(first), np.nan), np.full(len(first), np.nan)
    for start in range(0, len(first), 4096):  # a few tens of megabytes at a time
        part = slice(start, start + 4096)
        apart = draws[first[part]].astype(np.float64) - draws[second[part]]
        low[part], high[part] = np.quantile(apart, _INTERVAL, axis=1)  # NaN where a draw is
    return low, high
