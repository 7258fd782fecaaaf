"""The `bob shift` command: what shifted sets cost each backbone, and whether more than its clean accuracy foretells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_lines, print_table
from bob.errors import UserError
from bob.options import OnlyBackbones, Results, split_commas

if TYPE_CHECKING:
    import pandas as pd


def shift(
    task: Annotated[list[str] | None, typer.Option("--task", "-t", help="Needed if there are several.")] = None,
    protocol: Annotated[list[str] | None, typer.Option("--protocol", "-p", help="Needed if there are several.")] = None,
    backbone: OnlyBackbones = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="Backbones that the line is fitted on; default: all of the table.")
    ] = None,
    results: Results = Path("results"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the table: NAME.csv.")] = None,
) -> None:
    """Show clean and shifted accuracy of each set and, of three backbones or more, effective robustness."""
    from bob.results.effective_robustness import effective_robustness, shift_table
    from bob.results.files import require_suffix, write_csv
    from bob.results.index import read_runs, records_of
    from bob.results.runs import comparable, select

    if out:
        require_suffix(out, (".csv",))
    filters = (split_commas(names or []) for names in (backbone, task, protocol))
    runs = comparable(select(read_runs(results), *filters))
    table = _one_setting(shift_table(records_of(results, runs)))
    few = table["backbone"].nunique() < 3
    shown = table if few else effective_robustness(table, split_commas(baseline or []))
    _print(shown, few)
    if out:
        write_csv(shown, out)
        print_lines([f"Written: {out.absolute()}"])


def _one_setting(table: pd.DataFrame) -> pd.DataFrame:
    """The table, of one task and protocol.

    Raises:
        UserError: If there are none, or several.
    """
    settings = table[["task", "protocol"]].drop_duplicates().to_numpy().tolist()
    if not settings:
        raise UserError("No record is about shifted sets.", "Make some: `bob run -t shapes_shift -b BACKBONE`.")
    if len(settings) > 1:
        several = "; ".join(f"--task {task} --protocol {protocol}" for task, protocol in settings)
        raise UserError(f"There are records of {len(settings)} settings.", f"Choose one: {several}.")
    return table


def _print(table: pd.DataFrame, few: bool) -> None:
    columns = ["set", "backbone", "clean", "shifted", "drop", *([] if few else ["expected", "effective robustness"])]
    rows = []
    for row in table.sort_values(["set", "shifted_top1"], ascending=[True, False]).to_dict("records"):
        clean, shifted = row["clean_top1"], row["shifted_top1"]
        more = [] if few else [f"{row['expected']:.3f}", f"{row['effective_robustness']:+.1f}"]
        rows.append([row["set"], row["backbone"], f"{clean:.3f}", f"{shifted:.3f}", f"{clean - shifted:+.3f}", *more])
    print_table(columns, rows, numeric_from=2)
    if few:
        print_lines(["Effective robustness needs three backbones."])
    else:
        print_lines(["Effective robustness: points of accuracy above what the line through the others expects."])
