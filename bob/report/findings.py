"""What a report is about, and by which rules it ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from bob.report.backbones import Details
    from bob.standings.cells import Cells
    from bob.standings.grid import Grid
    from bob.standings.policy import Policy


@dataclass(frozen=True)
class Findings:
    """What a report is about.

    Attributes:
        runs: Our own, that may stand in one table (`runs.comparable`).
        cells: Of these, and of published tables joined to them.
        grid: Of the cells, without the gaps that the policy takes out.
        standings: Of the grid.
        policy: How they were made.
        details: Of each backbone that has records, by its name.
    """

    runs: pd.DataFrame
    cells: Cells
    grid: Grid
    standings: pd.DataFrame
    policy: Policy
    details: Mapping[str, Details]
