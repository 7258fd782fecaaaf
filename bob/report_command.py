"""The `bob report` command: all results as one page that opens anywhere, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_lines
from bob.errors import UserError
from bob.options import By, Ddof, Join, Missing, OnlyBackbones, OnlyProtocols, OnlyTasks, Over, Results, split_commas

if TYPE_CHECKING:
    import pandas as pd

    from bob.report.chart import Chart
    from bob.report.findings import Findings
    from bob.standings.policy import Policy

_MOST_NAMED = 5


def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write: NAME.html.")] = Path("report.html"),
    results: Results = Path("results"),
    backbone: OnlyBackbones = None,
    task: OnlyTasks = None,
    protocol: OnlyProtocols = None,
    by: By = "mean_z",
    over: Over = "categories",
    missing: Missing = "show",
    ddof: Ddof = 1,
    join: Join = None,
    sheets: Annotated[
        Path, typer.Option("--sheets", help="Folder of the contact sheets that `bob check` wrote: check-NAME.png.")
    ] = Path("."),
    title: Annotated[str, typer.Option("--title", help="Of the page.")] = "Battle of the Backbones",
) -> None:
    """Write all results as one page: a table to sort and filter, charts, and how every score was made."""
    from bob.report.page import plotly_script, render
    from bob.results.files import require_suffix, write_text
    from bob.results.index import read_runs
    from bob.standings.policy import Policy

    require_suffix(out, (".html",))
    policy = Policy(by, over, ddof, missing)
    if not sheets.is_dir():
        raise UserError(f"--sheets {sheets} is no folder.", "Give the folder that `bob check` was run in.")
    library = plotly_script()  # missed before anything is computed
    globs = [split_commas(given or []) for given in (backbone, task, protocol)]
    every = read_runs(results)
    findings, notes = _find(every, results, globs, policy, join or [], sheets)
    charts = _charts(findings, _with_layers(every, findings.runs, globs), results)
    write_text(render(findings, charts, library, title), out)
    print_lines([f"Written: {out.absolute()} ({out.stat().st_size / 1e6:.1f} MB)", *notes, *_lacking(findings, sheets)])


def _find(
    every: pd.DataFrame, results: Path, globs: list[list[str]], policy: Policy, tables: list[Path], sheets: Path
) -> tuple[Findings, list[str]]:
    """What the report is about, and what a reader of published tables should know."""
    from bob.report.backbones import details_of, with_sheets
    from bob.report.findings import Findings
    from bob.results.runs import comparable, select
    from bob.standings.cells import cells_of
    from bob.standings.grid import Grid
    from bob.standings.published import beside

    runs = comparable(select(every, *globs))
    cells, notes = beside(cells_of(runs), tables)
    grid = policy.sifted(Grid.of(cells))
    details = with_sheets(details_of(results, runs), sheets)
    return Findings(runs, cells, grid, policy.ranked(grid), policy, details), notes


def _charts(findings: Findings, runs: pd.DataFrame, results: Path) -> list[Chart]:
    from bob.report.chart_data import factor_rows
    from bob.report.figures import plotly_figures

    factors = factor_rows(runs, results)
    return plotly_figures(findings.standings, findings.cells, findings.grid, runs, factors=factors)


def _with_layers(every: pd.DataFrame, runs: pd.DataFrame, globs: list[list[str]]) -> pd.DataFrame:
    """The runs of the report, and the layer-wise ones of its backbones and tasks, which have charts of their own."""
    import pandas as pd

    from bob.results.protocols import base_of, is_layerwise, matches

    layerwise = every["protocol"].map(is_layerwise).astype(bool) & ~every["run_id"].isin(runs["run_id"])
    asked = every["protocol"].map(lambda name: matches(base_of(name), globs[2])).astype(bool)
    known = every["backbone"].isin(runs["backbone"]) & every["task"].isin(runs["task"])
    return pd.concat([runs, every[layerwise & asked & known]], ignore_index=True)


def _lacking(findings: Findings, sheets: Path) -> list[str]:
    """What the page could also show, and the command for it."""
    import shlex

    without = [name for name, details in findings.details.items() if details.sheet is None]
    if not without:
        return []
    names = ", ".join(without[:_MOST_NAMED]) + (
        f" and {len(without) - _MOST_NAMED:,} more" if len(without) > _MOST_NAMED else ""
    )
    return [
        f"Without a contact sheet in {sheets.absolute()}: {names}.",
        f"One is made by `bob check {shlex.quote(without[0])}`.",
    ]
