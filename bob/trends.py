"""What commands that rank can say beside: how scores go with size, and how alike tasks rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bob.console import number, print_table, span

if TYPE_CHECKING:
    import pandas as pd

    from bob.standings.grid import Grid


def print_scaling(table: pd.DataFrame) -> None:
    """Print how mean z goes with parameters and pretraining images, by family.

    Args:
        table: Columns mean_z, architecture, parameters and pretraining_images, a row a backbone.
    """
    from bob.standings.scaling import scaling

    rows = [
        [
            row["family"],
            str(row["against"]).replace("_", " "),
            row["n"],
            number(row["spearman"], "+.2f"),
            span(row["spearman_low"], row["spearman_high"], "+.2f", ", "),
            number(row["slope"], "+.2f"),
            span(row["slope_low"], row["slope_high"], "+.2f", ", "),
        ]
        for row in scaling(table).to_dict("records")
    ]
    print_table(
        ["family", "mean z with", "backbones", "Spearman", "95%", "z for 10 times", "95%"], rows, numeric_from=2
    )


def print_correlations(grid: Grid, of: str, ddof: int) -> None:
    """Print the rank correlations between any two tasks, categories or settings, over backbones."""
    from bob.standings.correlation import correlations

    rows = [
        [
            row["first"],
            row["second"],
            row["n"],
            number(row["spearman"], "+.2f"),
            span(row["low"], row["high"], "+.2f", ", "),
        ]
        for row in correlations(grid, of, ddof).to_dict("records")
    ]
    print_table([of, "", "backbones", "Spearman", "95%"], rows, numeric_from=2)
