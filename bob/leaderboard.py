"""The `bob leaderboard` command: backbones ranked by their records. `python -m bob.leaderboard --help`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_lines, print_table
from bob.errors import UserError
from bob.options import (
    By,
    Correlations,
    Ddof,
    Missing,
    OnlyBackbones,
    OnlyProtocols,
    OnlyTasks,
    Over,
    Results,
    Scaling,
    split_commas,
)

if TYPE_CHECKING:
    import pandas as pd

    from bob.standings.cells import Cells
    from bob.standings.formats import Show
    from bob.standings.grid import Grid
    from bob.standings.policy import Policy

_MOST_CELLS = 8  # settings that a terminal has room for; beyond, each category is one column
_GROUPS = ("overall", "category", "task")
# Options that go together with those which ask for another table.
_WITH_COMPARE = {"results", "out", "task", "protocol", "category"}
_WITH_SAME = {*_WITH_COMPARE, "backbone", "paradigm", "min_params", "max_params", "small", "without"}

_Globs = list[str] | None


def leaderboard(
    context: typer.Context,
    results: Results = Path("results"),
    out: Annotated[
        list[Path] | None, typer.Option("--out", "-o", help="Write the table: .csv, .md, .tex, .parquet; repeatable.")
    ] = None,
    backbone: OnlyBackbones = None,
    task: OnlyTasks = None,
    protocol: OnlyProtocols = None,
    paradigm: Annotated[
        _Globs, typer.Option("--paradigm", help="Only these: supervised, ssl, vlm, generative, depth, baseline.")
    ] = None,
    category: Annotated[
        _Globs, typer.Option("--category", help="Only these kinds of task: classification, detection, ...")
    ] = None,
    without: Annotated[_Globs, typer.Option("--without", help="Backbones to leave out; globs work.")] = None,
    min_params: Annotated[str | None, typer.Option("--min-params", help="At least so many, as 30M or 1.2G.")] = None,
    max_params: Annotated[str | None, typer.Option("--max-params", help="At most so many, as 30M or 1.2G.")] = None,
    small: Annotated[bool, typer.Option("--small", help="Only backbones below 30 M parameters.")] = False,
    by: By = "mean_z",
    over: Over = "categories",
    missing: Missing = "show",
    ddof: Ddof = 1,
    group: Annotated[
        str, typer.Option("--group", help="One table (overall), or one for each category or task.")
    ] = "overall",
    cost: Annotated[bool, typer.Option("--cost", help="Also GFLOPs, memory and hours; Pareto marks.")] = False,
    pareto: Annotated[
        str | None,
        typer.Option("--pareto", help="Mark whom no other beats in score and parameters, flops or images_per_second."),
    ] = None,
    scaling: Scaling = False,
    correlations: Correlations = "",
    wide: Annotated[bool, typer.Option("--wide", help="Print every cell, however many settings there are.")] = False,
    tidy: Annotated[bool, typer.Option("--tidy", help="Write a row a cell (for `bob rank`), not a backbone.")] = False,
    same_architecture: Annotated[
        bool,
        typer.Option("--same-architecture", help="Compare ssl and vlm with supervised, architecture by architecture."),
    ] = False,
    compare: Annotated[
        tuple[str, str] | None, typer.Option("--compare", metavar="A B", help="Does B beat A, where, and how sure?")
    ] = None,
) -> None:
    """Rank the backbones whose records are in the results folder: scores, intervals, ranks that are sure, and costs."""
    from bob.results.index import read_runs
    from bob.results.runs import comparable, select
    from bob.standings.filters import Filters, narrow, parse_count
    from bob.standings.policy import Policy
    from bob.standings.remarks import about_filters, about_stale

    asked = _Asked(
        Policy(by, over, ddof, missing), group, cost, pareto, wide, tidy, scaling, correlations, tuple(out or [])
    )
    _check(asked, context, compare is not None, same_architecture)
    filters = Filters(
        split_commas(paradigm or []),
        split_commas(category or []),
        split_commas(without or []),
        None if min_params is None else parse_count(min_params, "--min-params"),
        None if max_params is None else parse_count(max_params, "--max-params"),
        small,
    )
    every = read_runs(results)
    chosen = narrow(select(every, *(split_commas(globs or []) for globs in (backbone, task, protocol))), filters)
    runs = comparable(chosen)
    if compare:
        _compare(runs, results, *compare, asked.out)
    elif same_architecture:
        _same_architecture(runs, asked.out)
    else:
        _rank(runs, asked)
    print_lines(about_stale(chosen, runs))
    if backbone or task or protocol or filters:
        print_lines([about_filters(every, chosen)])


@dataclass(frozen=True)
class _Asked:
    """The options about the table itself; see the command."""

    policy: Policy
    group: str
    cost: bool
    pareto: str | None
    wide: bool
    tidy: bool
    scaling: bool
    correlations: str
    out: tuple[Path, ...]

    @property
    def front(self) -> str | None:
        """The cost that Pareto marks are about."""
        return self.pareto or ("parameters" if self.cost else None)


def _check(asked: _Asked, context: typer.Context, compare: bool, same: bool) -> None:
    """Refuse values that are not known, and options that would do nothing.

    Raises:
        UserError: If there is one.
    """
    from bob.results.files import require_suffix
    from bob.standings.filters import one_of
    from bob.standings.formats import FORMATS, TIDY_FORMATS
    from bob.standings.wide import PARETO

    one_of(asked.group, _GROUPS, "--group")
    if asked.correlations:
        from bob.standings.correlation import OF

        one_of(asked.correlations, OF, "--correlations")
    if asked.pareto is not None:
        one_of(asked.pareto, PARETO, "--pareto")
    for path in asked.out:
        require_suffix(path, TIDY_FORMATS if compare or same or asked.tidy else FORMATS)
    if asked.tidy and not asked.out:
        raise UserError("--tidy is about the file that is written.", "Add --out NAME.csv.")
    for applies, name, fitting in ((compare, "compare", _WITH_COMPARE), (same, "same_architecture", _WITH_SAME)):
        if applies:
            _refuse_others(context, name, fitting)


def _refuse_others(context: typer.Context, name: str, fitting: set[str]) -> None:
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params if parameter.name}
    for other, option in options.items():
        source = context.get_parameter_source(other)
        if source and source.name == "COMMANDLINE" and other != name and other not in fitting:
            raise UserError(f"{options[name]} and {option} do not go together.", "Leave one of them away.")


def _rank(runs: pd.DataFrame, asked: _Asked) -> None:
    from bob.standings.cells import cells_of
    from bob.standings.formats import parts_of_names
    from bob.standings.grid import Grid
    from bob.standings.remarks import about_costs, about_draws, about_ranks

    cells = cells_of(runs)
    parts, tables = _parts(Grid.of(cells), asked.group), []
    for (name, part), added in zip(parts.items(), parts_of_names([*parts]), strict=True):
        print_lines([f"{asked.group} {name}:"] if name else [])
        tables.append(_one_table(runs, cells, part, asked, added))
        print_lines([""] if name else [])
    print_lines(about_ranks(tables, asked.policy.by, asked.policy.over, asked.front))
    if asked.tidy:
        from bob.standings.long_table import to_long

        _write(to_long(cells), asked.out)
    print_lines(about_draws(cells))
    if asked.cost or asked.front == "images_per_second":
        print_lines(about_costs(runs, asked.cost))


def _parts(grid: Grid, group: str) -> dict[str, Grid]:
    """The grid itself, or that of each category or task with the backbones that have some setting of it."""
    if group == "overall":
        return {"": grid}
    parts = {}
    for name in sorted(grid.settings[group].unique()):
        own = grid.take(settings=(grid.settings[group] == name).to_numpy())
        parts[name] = own.take(backbones=(own.scores == own.scores).any(axis=1))  # NaN is not itself
    return parts


def _one_table(runs: pd.DataFrame, cells: Cells, grid: Grid, asked: _Asked, added: str) -> pd.DataFrame:
    """Print one ranking with what has to be said of it, write it, and give its wide table."""
    from bob.standings.formats import COST_COLUMNS, Show, compact
    from bob.standings.remarks import about_gaps, about_ranks
    from bob.standings.wide import facts_of, wide_table, with_pareto

    policy, shown = asked.policy, asked.policy.sifted(grid)
    facts = facts_of(runs, shown.settings.index)
    table = wide_table(cells.table, shown, policy.ranked(shown), facts, policy.ddof)
    if asked.front:
        table = with_pareto(table, policy.by, asked.front)
    costs = [*COST_COLUMNS] if asked.cost else ["parameters", "images_per_second", *filter(None, [asked.front])]
    many = not asked.wide and len(shown.settings) > _MOST_CELLS
    categories = dict(zip(shown.settings.index, shown.settings["category"], strict=True)) if many else {}
    printed = compact(table, Show(policy.by, categories, costs))
    print_table(printed.columns, printed.to_numpy().tolist(), numeric_from=4)
    print_lines(about_gaps(grid, shown))
    if many:
        print_lines([f"{len(categories)} settings as the mean z of each category; --wide and --out have every cell."])
    _print_trends(table, shown, facts, asked)
    if not asked.tidy:
        meaning = about_ranks([table], asked.policy.by, asked.policy.over, asked.front)
        _write_wide(table, shown, Show(policy.by, costs=costs), asked.out, added, meaning)
    return table


def _print_trends(table: pd.DataFrame, grid: Grid, facts: pd.DataFrame, asked: _Asked) -> None:
    from bob.trends import print_correlations, print_scaling

    if asked.scaling:
        sizes = facts[["architecture", "parameters", "pretraining_images"]]
        print_scaling(table[["backbone", "mean_z"]].join(sizes, on="backbone"))
    if asked.correlations:
        print_correlations(grid, asked.correlations, asked.policy.ddof)


def _write_wide(
    table: pd.DataFrame, grid: Grid, show: Show, paths: Sequence[Path], added: str, meaning: Sequence[str]
) -> None:
    """Write the table, under the given names or, if it is one of several, with its own added to them."""
    from bob.standings.formats import best_cells, write_table

    for path in paths:
        place = path.with_name(f"{path.stem}{added}{path.suffix}")
        marks = best_cells(grid) if path.suffix == ".tex" else None
        write_table(table, place, show, marks, " ".join(meaning))
        print_lines([f"Written: {place.absolute()}"])


def _compare(runs: pd.DataFrame, results: Path, a: str, b: str, paths: Sequence[Path]) -> None:
    from bob.standings.formats import compact_versus
    from bob.standings.versus import verdict, versus

    table = versus(runs, results, a, b)
    shown = compact_versus(table, a, b)
    print_table(shown.columns, shown.to_numpy().tolist(), numeric_from=2)
    print_lines(verdict(table, a, b))
    _write(table, paths)


def _same_architecture(runs: pd.DataFrame, paths: Sequence[Path]) -> None:
    from bob.standings.cells import cells_of
    from bob.standings.formats import compact_same_architecture
    from bob.standings.remarks import about_draws, about_pairs
    from bob.standings.same_architecture import same_architecture, tally
    from bob.standings.wide import facts_of

    cells = cells_of(runs)
    table = same_architecture(cells, facts_of(runs))
    shown = compact_same_architecture(table)
    print_table(shown.columns, shown.to_numpy().tolist())
    print_lines([*tally(table), *about_pairs(table), *about_draws(cells)])
    _write(table, paths)


def _write(table: pd.DataFrame, paths: Sequence[Path]) -> None:
    from bob.standings.formats import write_frame

    for path in paths:
        write_frame(table, path)
        print_lines([f"Written: {path.absolute()}"])


if __name__ == "__main__":
    import sys

    from bob.cli import main

    main(["leaderboard", *sys.argv[1:]])
