"""The tables that the page can show: all settings, those of a category or a task, or a single one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bob.report.encode import compact
from bob.standings.grid import Grid

if TYPE_CHECKING:
    from bob.report.findings import Findings

# Pairs of backbones that all views together may compare: rank intervals of a view of n backbones take n x n
# comparisons, each over all draws. A thousand backbones reach it with ten views.
MOST_PAIRS = 10_000_000
_OF_RANK = ("rank", "rank_low", "rank_high", "group")
_OF_SCORES = ("mean_z", "mean_z_low", "mean_z_high", "mean_rank", "borda", "win_rate")


@dataclass(frozen=True)
class View:
    """Some settings under a name.

    Attributes:
        kind: overall, category, task or setting.
        name: Of the category, the task or the setting.
        mask: Which of the grid's settings it has: (S,).
    """

    kind: str
    name: str
    mask: NDArray[np.bool_]

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return "All settings" if self.kind == "overall" else f"{self.kind.capitalize()} {self.name}"

    @property
    def label(self) -> str:
        """What it is called in a list of its kind."""
        return "All settings" if self.kind == "overall" else self.name


def views(findings: Findings, backbones: Mapping[str, int], settings: Mapping[str, int]) -> list[dict[str, Any]]:
    """The standings of each view by column, as the page reads them; the first is the overall one.

    Rank intervals are left out of the last views where there are too many backbones and views for all (`MOST_PAIRS`);
    such a view says so in its `note`.

    Args:
        findings: What the report is about.
        backbones: Number of each backbone.
        settings: Number of each setting.
    """
    found = []
    left = MOST_PAIRS
    for view in _distinct(findings.grid.settings):
        grid = _part(findings.grid, view)
        left -= len(grid.backbones) ** 2
        table = findings.standings if view.kind == "overall" else _standings(grid, findings, whole=left >= 0)
        within = [settings[name] for name in findings.grid.settings.index[view.mask]]
        found.append(_columns(view, table, backbones, within, whole=view.kind == "overall" or left >= 0))
    return found


def _distinct(settings: pd.DataFrame) -> Iterator[View]:
    """All views; none that has the same settings as a wider one before it, but single settings."""
    yield View("overall", "", np.ones(len(settings), dtype=bool))
    seen = {b"\1" * len(settings)}
    for kind in ("category", "task"):
        owner = settings[kind].to_numpy()
        for name in sorted(set(owner)):
            mask = np.asarray(owner == name)
            # With one setting, a task is that setting; a category remains, for it is a column of the overall view.
            if mask.tobytes() not in seen and (kind == "category" or mask.sum() > 1):
                seen.add(mask.tobytes())
                yield View(kind, str(name), mask)
    for place, name in enumerate(settings.index):
        yield View("setting", str(name), np.arange(len(settings)) == place)


def _part(grid: Grid, view: View) -> Grid:
    """The view's settings, and the backbones that have any of them."""
    part = grid.take(settings=view.mask)
    return part.take(backbones=np.asarray(~np.isnan(part.scores).all(axis=1)))


def _standings(grid: Grid, findings: Findings, whole: bool) -> pd.DataFrame:
    policy = findings.policy
    if not whole:  # without draws there are no intervals, and nothing to compare
        grid = Grid(grid.backbones, grid.settings, grid.scores, grid.draws[:0])
    return policy.ranked(grid)


def _columns(
    view: View, table: pd.DataFrame, backbones: Mapping[str, int], settings: list[int], whole: bool
) -> dict[str, Any]:
    names = _OF_RANK if view.kind == "setting" else (*_OF_RANK, *_OF_SCORES)
    known = {name: compact(table[name]) for name in names if table[name].notna().any()}
    return {
        "id": f"{view.kind} {view.name}".strip(),
        "kind": view.kind,
        "label": view.label,
        "title": view.title,
        "note": "" if whole else "Rank intervals were left out of this view: there are too many backbones and views.",
        "settings": settings,
        "ranked": int(table["rank"].notna().sum()),
        "backbone": [backbones[name] for name in table["backbone"]],
        **{name: known.get(name) for name in (*_OF_RANK, *_OF_SCORES)},
        "settings_run": compact(table["settings"]),
    }
