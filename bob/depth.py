"""The `bob depth` command: how a protocol's score grows along the blocks of a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_lines, print_table
from bob.options import OnlyBackbones, OnlyTasks, Results, split_commas

if TYPE_CHECKING:
    import pandas as pd


def depth(
    backbone: OnlyBackbones = None,
    task: OnlyTasks = None,
    protocol: Annotated[
        list[str] | None, typer.Option("--protocol", "-p", help="Only these, without @block: knn; globs work.")
    ] = None,
    results: Results = Path("results"),
    out: Annotated[
        list[Path] | None, typer.Option("--out", "-o", help="Write NAME.png, NAME.svg or NAME.csv; repeatable.")
    ] = None,
) -> None:
    """Show score against depth, from runs of PROTOCOL@blocks (`bob run -p knn@blocks` makes them)."""
    from bob.results.depth import depth_figure, depth_table, select_layerwise
    from bob.results.files import PICTURES, require_suffix, write_csv, write_figure
    from bob.results.index import read_runs

    for path in out or []:
        require_suffix(path, (".csv", *PICTURES))
    filters = [split_commas(names or []) for names in (backbone, task, protocol)]
    table = depth_table(select_layerwise(read_runs(results), *filters))
    _print_depth(table)
    for path in out or []:
        if path.suffix == ".csv":
            write_csv(table, path)
        else:
            write_figure(depth_figure(table), path)
        print_lines([f"Written: {path.absolute()}"])


def _print_depth(table: pd.DataFrame) -> None:
    import pandas as pd

    rows = [
        [
            row["backbone"],
            f"{row['task']}/{row['protocol']}",
            row["metric"],
            "plain" if pd.isna(row["block"]) else row["block"],
            f"{row['depth']:.2f}",
            f"{row['score']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
        ]
        for row in table.to_dict("records")
    ]
    print_table(["backbone", "setting", "metric", "block", "depth", "score"], rows, numeric_from=3)
