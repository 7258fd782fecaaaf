"""The `bob plot` command: the charts of the report as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bob.console import print_lines
from bob.errors import UserError, did_you_mean
from bob.options import By, Ddof, Join, Missing, OnlyBackbones, OnlyProtocols, OnlyTasks, Over, Results, split_commas

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from bob.standings.policy import Policy

_KINDS = {
    "ranks": "ranks with their 95% intervals and groups of equals",
    "correlation": "how alike tasks rank the backbones",
    "pareto": "score against cost, with the Pareto front",
    "depth": "score along the blocks of backbones",
    "factors": "error ratios by factor, as of ImageNet-X",
}


def plot(
    kind: Annotated[str, typer.Argument(help="; ".join(f"{kind}: {what}" for kind, what in _KINDS.items()) + ".")],
    out: Annotated[list[Path], typer.Option("--out", "-o", help="The picture: NAME.png or NAME.svg; repeatable.")],
    x: Annotated[
        str | None, typer.Option("--x", help="For pareto: parameters (default), images_per_second or flops.")
    ] = None,
    results: Results = Path("results"),
    backbone: OnlyBackbones = None,
    task: OnlyTasks = None,
    protocol: OnlyProtocols = None,
    by: By = "mean_z",
    over: Over = "categories",
    missing: Missing = "show",
    ddof: Ddof = 1,
    join: Join = None,
) -> None:
    """Draw a chart of the records as a picture, PNG or SVG; the same records give the same bytes."""
    from bob.results.files import PICTURES, require_suffix, write_figure
    from bob.results.index import read_runs
    from bob.standings.policy import Policy

    policy = Policy(by, over, ddof, missing)
    _check(kind, x)
    for path in out:
        require_suffix(path, PICTURES)
    filters = [split_commas(globs or []) for globs in (backbone, task, protocol)]
    every = read_runs(results)
    if kind == "depth":
        figure = _depth(every, filters)
    elif kind == "factors":
        figure = _factors(every, filters, results)
    else:
        figure = _ranking(kind, every, filters, x or "parameters", policy, join or [])
    for path in out:
        write_figure(figure, path)
        print_lines([f"Written: {path.absolute()}"])


def _check(kind: str, x: str | None) -> None:
    """Refuse values that are not known, and an option that would do nothing.

    Raises:
        UserError: If there is one.
    """
    from bob.report.looks import AXES
    from bob.standings.filters import one_of

    if kind not in _KINDS:
        hint = did_you_mean(kind, _KINDS) or f"Choose {', '.join(list(_KINDS)[:-1])} or {list(_KINDS)[-1]}."
        raise UserError(f"There is no chart '{kind}'.", hint)
    if x is not None:
        one_of(x, AXES, "--x")
        if kind != "pareto":
            raise UserError(f"--x is about pareto, not {kind}.", "Leave it away.")


def _ranking(
    kind: str,
    every: pd.DataFrame,
    filters: list[list[str]],
    x: str,
    policy: Policy,
    tables: list[Path],
) -> Figure:
    """A chart of what `bob leaderboard` says."""
    from typing import cast

    from bob.report.chart_data import cost_points, facts, likeness, rank_rows
    from bob.report.looks import Cost
    from bob.report.pictures import correlation_picture, cost_picture, rank_picture
    from bob.results.runs import comparable, select
    from bob.standings.cells import cells_of
    from bob.standings.grid import Grid
    from bob.standings.published import beside

    runs = comparable(select(every, *filters))
    cells, _ = beside(cells_of(runs), tables)
    grid = policy.sifted(Grid.of(cells))
    if kind == "correlation":
        found = likeness(grid, policy.ddof)
        if found is None:
            raise UserError("Correlations need two settings and four backbones that have both.", "Make more runs.")
        return correlation_picture(found)
    table, known = policy.ranked(grid), facts(cells, runs)
    if table["rank"].isna().all():
        raise UserError("No backbone has every setting, so none has a rank.", "Add --missing common, or run the rest.")
    if kind == "ranks":
        return rank_picture(rank_rows(table, known), int(table["rank"].notna().sum()))
    cost = cast(Cost, x)
    points = cost_points(table, known, cost)
    if points.empty:
        raise UserError(f"No backbone has a score and a known number of {x}.", "Give another --x.")
    return cost_picture(points, cost)


def _depth(every: pd.DataFrame, filters: list[list[str]]) -> Figure:
    from bob.results.depth import depth_figure, depth_table, select_layerwise

    return depth_figure(depth_table(select_layerwise(every, *filters)))


def _factors(every: pd.DataFrame, filters: list[list[str]], results: Path) -> Figure:
    from bob.pictures.factor_chart import draw_error_ratios
    from bob.report.chart_data import best_models, factor_rows
    from bob.report.looks import MOST_MODELS
    from bob.results.runs import select

    rows = factor_rows(select(every, *filters), results)
    if rows is None:
        raise UserError("No record is about factors.", "Make some: `bob run -b BACKBONE -t imagenet_x`.")
    settings = rows[["task", "protocol"]].drop_duplicates().to_numpy().tolist()
    if len(settings) > 1:
        several = "; ".join(f"--task {task} --protocol {protocol}" for task, protocol in settings)
        raise UserError(f"There are records of {len(settings)} settings with factors.", f"Choose one: {several}.")
    best, count = best_models(rows, MOST_MODELS), rows["model"].nunique()
    note = f", the best {MOST_MODELS} of {count:,} backbones" if count > MOST_MODELS else ""
    return draw_error_ratios(best, "/".join(settings[0]) + note)
