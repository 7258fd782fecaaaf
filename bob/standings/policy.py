"""How a table is ranked: what ranks, what counts alike, and what becomes of gaps."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bob.standings.aggregate import BY, MISSING, OVER, without_gaps
from bob.standings.filters import one_of
from bob.standings.grid import Grid
from bob.standings.standings import standings


@dataclass(frozen=True)
class Policy:
    """The options that commands about ranks share; see `standings`.

    Raises:
        UserError: If one has a value that is not known.
    """

    by: str = "mean_z"
    over: str = "categories"
    ddof: int = 1
    missing: str = "show"

    def __post_init__(self) -> None:
        for name, known in (("by", BY), ("over", OVER), ("missing", MISSING)):
            one_of(getattr(self, name), known, f"--{name}")

    def sifted(self, grid: Grid) -> Grid:
        """The part of a grid that is ranked.

        Raises:
            UserError: If nothing is left.
        """
        return without_gaps(grid, self.missing)

    def ranked(self, grid: Grid) -> pd.DataFrame:
        """The standings of what `sifted` left."""
        return standings(grid, self.by, self.over, self.ddof)
