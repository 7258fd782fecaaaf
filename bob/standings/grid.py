"""Backbones by settings: the cells of a leaderboard as arrays, on which everything about ranks is computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bob.results.statistics import Floats
from bob.standings.cells import Cells, Draws

_OF_SETTING = ["category", "task", "metric", "higher_is_better"]


@dataclass(frozen=True)
class Grid:
    """A table of n backbones and s settings.

    Attributes:
        backbones: n names.
        settings: Its index is the s names; columns category, task, metric and higher_is_better.
        scores: (n, s), NaN where a backbone was not run.
        draws: (b, n, s): what the scores would have been on other samples and seeds, see `Cells`; NaN where not known.
            The numbers of one cell lie side by side in memory.
    """

    backbones: tuple[str, ...]
    settings: pd.DataFrame
    scores: Floats
    draws: Draws

    @classmethod
    def of(cls, cells: Cells) -> Grid:
        """Spread cells out; backbones and settings are in the order of their names."""
        rows, backbones = pd.factorize(cells.table["backbone"], sort=True)
        columns, names = pd.factorize(cells.table["setting"], sort=True)
        settings = cells.table.drop_duplicates("setting").set_index("setting").loc[list(names), _OF_SETTING]
        scores = np.full((len(backbones), len(names)), np.nan)
        scores[rows, columns] = cells.table["score"]
        size = cells.draws.shape[1]
        if np.array_equal(rows * len(names) + columns, np.arange(scores.size)):
            draws = cells.draws.reshape(*scores.shape, size)  # all there and in order: no copy, it may be large
        else:
            draws = np.full((*scores.shape, size), np.nan, np.float32)
            draws[rows, columns] = cells.draws
        return cls(tuple(map(str, backbones)), settings, scores, draws.transpose(2, 0, 1))

    def take(self, backbones: NDArray[np.bool_] | None = None, settings: NDArray[np.bool_] | None = None) -> Grid:
        """The part of the table with these backbones (n,) and settings (s,); None for all."""
        rows = np.ones(len(self.backbones), dtype=bool) if backbones is None else backbones
        columns = np.ones(len(self.settings), dtype=bool) if settings is None else settings
        return Grid(
            tuple(name for name, kept in zip(self.backbones, rows, strict=True) if kept),
            self.settings[columns],
            self.scores[np.ix_(rows, columns)],
            self.draws[:, rows][:, :, columns],
        )

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Which backbones have every setting: (n,)."""
        whole: NDArray[np.bool_] = np.asarray(~np.isnan(self.scores).any(axis=1))
        return whole
