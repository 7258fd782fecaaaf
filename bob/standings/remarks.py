"""What has to be said beside a leaderboard: what its columns mean, and what was left out of it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bob.results.protocols import is_layerwise
from bob.standings.cells import Cells
from bob.standings.grid import Grid

_COSTS = {"flops": "FLOPs", "images_per_second": "images/s"}


def about_ranks(tables: Sequence[pd.DataFrame], by: str, over: str, front: str | None = None) -> list[str]:
    """What rank, its interval, group and Pareto mark mean.

    Args:
        tables: As `wide_table` makes them.
        by: What ranks.
        over: What counts alike.
        front: The cost that the marks are about, if there are any.
    """
    score = by.replace("_", " ")
    lines = [f"Ranked by {score} over {over}."]
    if any(table["rank_low"].notna().any() for table in tables):
        lines[0] += (
            " 95%: the ranks that other test samples and seeds could give; backbones of one group are not told apart "
            "from its first."
        )
    elif any(table["rank"].notna().any() for table in tables):
        lines[0] += " No rank has an interval: of some score it is not known how sure it is."
    if front:
        cost = _COSTS.get(front, front)
        lines.append(f"Pareto: * where no other is at least as good in both {score} and {cost}, and better in one.")
    return lines


def about_gaps(grid: Grid, shown: Grid) -> list[str]:
    """What became of backbones that lack a setting.

    Args:
        grid: All there is.
        shown: What is left of it.
    """
    n, lines = len(grid.backbones), []
    if left := n - len(shown.backbones):
        lines.append(f"{left} of {n} backbones lack a setting and are left out.")
    if left := len(grid.settings) - len(shown.settings):
        lines.append(f"{left} of {len(grid.settings)} settings that not all backbones have are left out.")
    if unranked := int((~shown.complete).sum()):
        lines.append(f"{unranked} of {n} backbones lack a setting: they have no rank, and no cell is filled in.")
        lines.append("--missing common ranks by the settings that all have, --missing drop those that have all.")
    return lines


def about_draws(cells: Cells) -> list[str]:
    """How many scores are compared as if their test samples were not the same."""
    count = int(cells.independent.sum())
    what = f"{count} of {len(cells.table)} scores are of older records"
    return [f"{what}: their differences are taken as unpaired, and less sure."] if count else []


def about_pairs(table: pd.DataFrame) -> list[str]:
    """What the intervals of `same_architecture` do not tell."""
    chance = f"of {len(table)} pairs of equals, about {0.05 * len(table):.1f} would be called sure by chance"
    return [f"Each interval is of the two that are named, chosen as the best of as many as in brackets; {chance}."]


def about_costs(runs: pd.DataFrame, hours: bool) -> list[str]:
    """What costs do not tell.

    Args:
        runs: Those of the table.
        hours: Whether these are shown.
    """
    lines = ["Hours count each run as if alone: features that several runs read are counted in each."] if hours else []
    devices = sorted(runs["device"].unique())
    if len(devices) > 1:
        lines.append(f"Rates, memory and hours were measured on several devices: {', '.join(devices)}.")
    return lines


def about_filters(every: pd.DataFrame, chosen: pd.DataFrame) -> str:
    """How much the filters left of the runs; layer-wise ones, which have to be asked for, count only where they are."""
    of_every, left = _settings(every), _settings(chosen)
    settings = left | {(task, protocol) for task, protocol in of_every if not is_layerwise(protocol)}
    backbones = f"{chosen['backbone'].nunique()} of {every['backbone'].nunique()} backbones"
    return f"The filters leave {backbones} and {len(left)} of {len(settings)} settings."


def about_stale(chosen: pd.DataFrame, comparable: pd.DataFrame) -> list[str]:
    """How many runs may not stand beside newer ones."""
    stale = len(chosen) - len(comparable)
    what = f"{stale} runs on other weights, data or protocol versions than the newest"
    return [f"{what} are left out."] if stale else []


def _settings(runs: pd.DataFrame) -> set[tuple[str, str]]:
    return set(runs[["task", "protocol"]].drop_duplicates().itertuples(index=False, name=None))
