"""The `bob rank` command: published tables of scores ranked as our own are, alone or together with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import number, print_lines, print_table, span
from bob.errors import UserError, did_you_mean
from bob.options import By, Correlations, Ddof, Missing, OnlyBackbones, OnlyTasks, Over, Results, Scaling, split_commas

if TYPE_CHECKING:
    import pandas as pd

    from bob.standings.cells import Cells
    from bob.standings.grid import Grid

_SOURCES = 3  # named of a table at most
_SIZES = ("parameters", "pretraining_images")


def rank(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="TABLE...", help="NAME.csv or NAME.parquet of one score a row; bob_retrieval, timm_imagenet."
        ),
    ],
    join: Annotated[
        bool, typer.Option("--join", "-j", help="Together with our own records; by the tables' column `card`.")
    ] = False,
    results: Results = Path("results"),
    backbone: OnlyBackbones = None,
    without: Annotated[list[str] | None, typer.Option(help="Backbones left out; globs work.")] = None,
    task: OnlyTasks = None,
    category: Annotated[list[str] | None, typer.Option(help="Only these kinds of task; globs work.")] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", "-m", help="Only these; globs work.")] = None,
    by: By = "mean_z",
    over: Over = "categories",
    missing: Missing = "show",
    ddof: Ddof = 1,
    scaling: Scaling = False,
    correlations: Correlations = "",
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "--out", "-o", help="Write NAME.csv, NAME.parquet, NAME.md or NAME.tex, scores and all; repeatable."
        ),
    ] = None,
) -> None:
    """Rank published scores: mean z, mean rank and win rate, with 95% intervals where tables say how sure they are."""
    from bob.results.files import require_suffix
    from bob.standings.correlation import OF
    from bob.standings.filters import one_of
    from bob.standings.formats import FORMATS, write_table
    from bob.standings.grid import Grid
    from bob.standings.policy import Policy
    from bob.standings.remarks import about_gaps, about_ranks
    from bob.standings.wide import wide_table
    from bob.trends import print_correlations, print_scaling

    policy = Policy(by, over, ddof, missing)
    for path in out or []:
        require_suffix(path, FORMATS)
    if correlations:
        one_of(correlations, OF, "--correlations")
    cells, notes = _read(tables, join)
    facts = _published_facts(cells.table)
    if join:
        own, own_facts, more = _own(results)
        cells, facts, notes = _joined(cells, own), own_facts.replace("", None).combine_first(facts), [*notes, *more]
    asked = {"backbone": backbone, "task": task, "category": category, "metric": metric}
    cells = _filtered(cells, {name: split_commas(globs or []) for name, globs in asked.items()}, without or [])
    every = Grid.of(cells)
    grid = policy.sifted(every)
    table = policy.ranked(grid)
    shown = _of(cells.table, grid)
    _print(table, shown, [*notes, *about_ranks([table], by, over), *about_gaps(every, grid), *_how_sure(shown, table)])
    if scaling:
        print_scaling(table.join(facts[["architecture", *_SIZES]], on="backbone"))
    if correlations:
        print_correlations(grid, correlations, ddof)
    for path in out or []:
        write_table(wide_table(cells.table, grid, table, facts, ddof), path)
        print_lines([f"Written: {path.absolute()}"])


def _read(tables: Sequence[Path], by_their_cards: bool) -> tuple[Cells, list[str]]:
    """The tables as one, each row knowing which file it is from, and what a reader should know."""
    from dataclasses import replace
    from functools import reduce

    from bob.standings.long_table import by_card, join, read_long_table
    from bob.standings.published import find_table

    read, notes = [], []
    for path in map(find_table, tables):
        cells, more = read_long_table(path)
        cells = by_card(cells) if by_their_cards else cells
        read.append(replace(cells, table=cells.table.assign(file=path.name)))
        notes += more
    return reduce(join, read), notes


def _own(results: Path) -> tuple[Cells, pd.DataFrame, list[str]]:
    """The cells of our own runs, facts of their backbones, and how many runs are left out."""
    from bob.results.index import read_runs
    from bob.results.runs import comparable, select
    from bob.standings.cells import cells_of
    from bob.standings.remarks import about_stale
    from bob.standings.wide import facts_of

    every = select(read_runs(results), [], [], [])
    runs = comparable(every)
    return cells_of(runs), facts_of(runs), about_stale(every, runs)


def _joined(published: Cells, own: Cells) -> Cells:
    from bob.standings.long_table import join

    joined = join(published, own)
    joined.table["file"] = joined.table["file"].fillna("")
    return joined


def _published_facts(table: pd.DataFrame) -> pd.DataFrame:
    """What the tables say of backbones, with the columns of `wide.facts_of`; NaN where they do not."""
    from bob.standings.wide import COSTS

    facts = table.replace("", None).groupby("backbone")[["paradigm", "architecture", *_SIZES]].first()
    return facts.reindex(columns=[*facts.columns, *(cost for cost in COSTS if cost not in facts)])


def _filtered(cells: Cells, only: dict[str, list[str]], without: Sequence[str]) -> Cells:
    """The cells whose columns match one of their globs each.

    Raises:
        UserError: If a glob matches nothing, or nothing is left.
    """
    import numpy as np

    from bob.standings.long_table import keep

    rows = np.ones(len(cells.table), dtype=bool)
    for column, globs in only.items():
        if globs:
            rows &= np.logical_or.reduce([_matching(cells.table[column], glob, f"--{column}") for glob in globs])
    for glob in split_commas(without):
        rows &= ~_matching(cells.table["backbone"], glob, "--without")
    if not rows.any():
        raise UserError("No score is left.", "Loosen --backbone, --without, --task, --category or --metric.")
    return keep(cells, rows)


def _of(cells: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """The cells that a grid has."""
    return cells[cells["backbone"].isin(grid.backbones) & cells["setting"].isin(grid.settings.index)]


def _matching(values: pd.Series[str], glob: str, option: str) -> pd.Series[bool]:
    from bob.results.globs import matches_any

    names = values.unique()
    found = [name for name in names if matches_any(name, [glob])]
    if not found:
        hint = did_you_mean(glob, names) or f"There are {', '.join(sorted(names)[:5])}{', ...' * (len(names) > 5)}."
        raise UserError(f"{option} {glob} matches nothing in these tables.", hint)
    return values.isin(found)


def _how_sure(cells: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """What to say of scores of which nobody says how sure they are, and of those that are compared unpaired."""
    lines = []
    if unknown := int(cells["standard_error"].isna().sum()):
        lines.append(f"{unknown} of {len(cells)} scores come without n, standard error or bounds.")
    if table["rank_low"].notna().any():
        lines.append("Differences of published scores are taken as unpaired, and less sure than on the same samples.")
    return lines


def _print(table: pd.DataFrame, cells: pd.DataFrame, notes: Sequence[str]) -> None:
    """Print who stands where, then where the numbers are from."""
    columns = ["rank", "95%", "group", "backbone", "mean z", "95%", "mean rank", "win rate", "Borda", "settings"]
    rows = [
        [
            number(row["rank"], "g"),
            span(row["rank_low"], row["rank_high"], "g", "-"),
            number(row["group"], "g"),
            row["backbone"],
            number(row["mean_z"], "+.3f"),
            span(row["mean_z_low"], row["mean_z_high"], "+.3f", ", "),
            number(row["mean_rank"], ".2f"),
            number(row["win_rate"], ".3f"),
            number(row["borda"], ".2f"),
            row["settings"],
        ]
        for row in table.to_dict("records")
    ]
    print_table(columns, rows, numeric_from=4)
    kinds = ", ".join(f"{count} {name}" for name, count in cells.groupby("category")["setting"].nunique().items())
    print_lines([f"Backbones: {len(table)}. Settings: {cells['setting'].nunique()} ({kinds}).", *notes])
    print_lines(_sources(cells))


def _sources(cells: pd.DataFrame) -> list[str]:
    """A line for each table: how many scores it gave, and where it has them from."""
    lines = []
    for file in cells["file"].unique():
        own = cells[cells["file"] == file]
        named = [source for source in own["source"].unique() if source and source != file]
        more = f" and {len(named) - _SOURCES} more" if len(named) > _SOURCES else ""
        whence = f", from {'; '.join(named[:_SOURCES])}{more}" if named else ""
        lines.append(f"{file or 'Our own runs'}: {len(own)} scores{whence}.")
    return lines
