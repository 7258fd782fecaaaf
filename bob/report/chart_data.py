"""The numbers behind each chart, one function a chart; the page's figures and the pictures draw the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from bob.report.labels import label_sides
from bob.report.looks import AXES, BARRED, LABELLED, LOOKS, MOST_RANKED, UNKNOWN, Cost, staircase
from bob.results.depth import depth_table
from bob.results.factor_table import AVERAGE
from bob.results.index import records_of
from bob.results.protocols import is_layerwise
from bob.results.runs import comparable
from bob.results.terms import Floats
from bob.standings.cells import Cells
from bob.standings.correlation import FEWEST, correlations
from bob.standings.grid import Grid
from bob.standings.pareto import pareto_front
from bob.standings.wide import facts_of

_LARGE = 20_000  # scores from which correlations get fewer resamples


@dataclass(frozen=True)
class Likeness:
    """How alike tasks (or settings) rank the backbones.

    Args:
        names: K tasks, like ones side by side.
        spearman: (K, K), NaN where it is not known; 1 on the diagonal.
        low: (K, K), lower ends of 95% intervals.
        high: (K, K), upper ends.
        pairs: As `correlations` gives them.
    """

    names: list[str]
    spearman: Floats
    low: Floats
    high: Floats
    pairs: pd.DataFrame


def facts(cells: Cells, runs: pd.DataFrame) -> pd.DataFrame:
    """What backbones are and cost: by our own runs or, for those without, by the published tables that name them.

    Speeds are compared on one device only, the one that most backbones ran on.

    Returns:
        Index: backbones. Columns as `wide.facts_of` gives them; what is not known is NaN.
    """
    own = facts_of(runs).assign(images_per_second=facts_of(_one_device(runs))["images_per_second"])
    said = ["paradigm", "architecture", "parameters"]
    if not set(said) <= set(cells.table):
        return own
    return own.combine_first(cells.table.groupby("backbone")[said].first())


def _one_device(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs on the device that most backbones ran on; speeds of several devices compare nothing."""
    if runs.empty:
        return runs
    return runs[runs["device"] == runs.groupby("device")["backbone"].nunique().idxmax()]


def paradigms(backbones: pd.Series[str], runs: pd.DataFrame) -> pd.Series[str]:
    """The paradigm of each backbone by its newest run; `unknown` for those without."""
    return _paradigms(backbones, facts_of(runs))


def _paradigms(backbones: pd.Series[str], known: pd.DataFrame) -> pd.Series[str]:
    return backbones.map(known["paradigm"]).where(lambda found: found.isin(list(LOOKS)), UNKNOWN)


def rank_rows(standings: pd.DataFrame, known: pd.DataFrame, most: int = MOST_RANKED) -> pd.DataFrame:
    """The best backbones with their ranks, 95% rank intervals and groups of equals.

    Args:
        standings: As `standings` makes them.
        known: As `facts` gives it.
        most: How many rows at most.

    Returns:
        Columns rank, rank_low, rank_high, group, backbone, paradigm; best first. Backbones without a rank are left out.
    """
    ranked = standings[standings["rank"].notna()].sort_values(["rank", "backbone"], kind="stable").head(most)
    rows = ranked[["rank", "rank_low", "rank_high", "group", "backbone"]].reset_index(drop=True)
    return rows.assign(paradigm=_paradigms(rows["backbone"], known))


def group_spans(rows: pd.DataFrame) -> list[tuple[int, int, int]]:
    """Neighbouring rows of one group: first row, last row, group. Where intervals are uneven a group may come twice."""
    groups = rows["group"].fillna(0).astype(int).to_numpy()
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    ends = [*(starts[1:] - 1), len(groups) - 1]
    return [(int(start), int(end), int(groups[start])) for start, end in zip(starts, ends, strict=True)]


def likeness(grid: Grid, ddof: int = 1) -> Likeness | None:
    """Spearman correlations between tasks, or settings where there is one task; None if there is nothing to say.

    Args:
        grid: Backbones by settings.
        ddof: Of the standard deviation behind z.
    """
    of = "tasks" if grid.settings["task"].nunique() > 1 else "settings"
    if len(grid.settings) < 2 or len(grid.backbones) < FEWEST:
        return None
    resamples = 1000 if grid.scores.size < _LARGE else 200
    pairs = correlations(grid, of, ddof, resamples=resamples)
    if pairs["spearman"].isna().all():
        return None
    names = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    matrices = {column: _matrix(pairs, names, column) for column in ("spearman", "low", "high")}
    order = _alike(matrices["spearman"])
    ordered = {column: matrix[np.ix_(order, order)] for column, matrix in matrices.items()}
    return Likeness([names[place] for place in order], **ordered, pairs=pairs)


def _matrix(pairs: pd.DataFrame, names: list[str], column: str) -> Floats:
    """Pairs as a symmetric matrix with 1 on its diagonal."""
    matrix = np.eye(len(names))
    first, second = (pd.Index(names).get_indexer(pd.Index(pairs[end])) for end in ("first", "second"))
    matrix[first, second] = matrix[second, first] = pairs[column]
    return matrix


def _alike(spearman: Floats) -> list[int]:
    """An order in which like ones are neighbours: the leaves of an average-linkage tree, turned to fit."""
    distances = np.where(np.isnan(spearman), 1.0, 1.0 - spearman)
    np.fill_diagonal(distances, 0.0)
    near = squareform(distances, checks=False)
    return [int(leaf) for leaf in leaves_list(optimal_leaf_ordering(linkage(near, "average"), near))]


def cost_points(standings: pd.DataFrame, known: pd.DataFrame, cost: Cost) -> pd.DataFrame:
    """Mean z of each backbone against what it costs, and whether it is on the Pareto front.

    Args:
        standings: As `standings` makes them.
        known: As `facts` gives it.
        cost: One of its columns.

    Returns:
        Columns backbone, paradigm, mean_z, mean_z_low, mean_z_high, `cost` and front; by cost. Backbones without a
        mean z or without that cost are left out.
    """
    points = standings[["backbone", "mean_z", "mean_z_low", "mean_z_high"]].copy()
    points[cost] = points["backbone"].map(known[cost]).astype(float)
    points = points[points["mean_z"].notna() & (points[cost] > 0)]
    points.insert(1, "paradigm", _paradigms(points["backbone"], known))
    sign = 1.0 if AXES[cost].less_is_better else -1.0
    points["front"] = pareto_front(points["mean_z"].to_numpy(float), sign * points[cost].to_numpy(float))
    return points.sort_values([cost, "backbone"]).reset_index(drop=True)


def named_points(
    points: pd.DataFrame,
    cost: Cost,
    ends: tuple[tuple[float, float], tuple[float, float]],
    size: tuple[float, float],
) -> pd.DataFrame:
    """The points with a name beside them: all, or those of the Pareto front where there are too many.

    A name stands clear of other points, of their intervals and of the front, as far as it can; one that would cover
    another name is left out.

    Args:
        points: As `cost_points` gives them.
        cost: What they are drawn against.
        ends: Of the axes, as `log_range` and `score_range` give them.
        size: Width and height of the plot, in pixels.

    Returns:
        Rows of the points with a column more, `side`; see `label_sides`.
    """

    def across(values: ArrayLike) -> Floats:
        return (np.log10(np.asarray(values, float) / AXES[cost].scale) - ends[0][0]) / (ends[0][1] - ends[0][0])

    def up(values: ArrayLike) -> Floats:
        return (np.asarray(values, float) - ends[1][0]) / (ends[1][1] - ends[1][0])

    x, low, high = across(points[cost]), up(points["mean_z_low"]), up(points["mean_z_high"])
    bars = np.column_stack([x, low, x, high])[: len(x) if len(x) <= BARRED else 0]
    corners = np.array(staircase(points, cost)).T * (AXES[cost].scale, 1)
    corners = np.column_stack([across(corners[:, 0]), up(corners[:, 1])])
    marks = np.column_stack([x, up(points["mean_z"])] * 2)
    lines = np.vstack([bars, marks, np.hstack([corners[:-1], corners[1:]])])
    named = points if len(points) <= LABELLED else points[points["front"]].head(LABELLED)
    sides = label_sides(across(named[cost]), up(named["mean_z"]), list(named["backbone"]), lines, size)
    return named.assign(side=sides)[[side != "" for side in sides]]


def depth_rows(runs: pd.DataFrame) -> pd.DataFrame:
    """The layer-wise curves among all runs, as `depth_table` makes them; no rows where there are none.

    Raises:
        UserError: If a layer-wise run does not say which block it is about.
    """
    if not runs["protocol"].map(is_layerwise).any():
        return pd.DataFrame()
    table = depth_table(runs)
    better = runs.groupby("metric")["higher_is_better"].last()
    return table.assign(higher_is_better=table["metric"].map(better).astype(bool))


def best_curves(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """The rows of one setting's backbones with the best scores at any block, best first."""
    blocks = rows[rows["block"].notna()]
    sign = np.where(blocks["higher_is_better"], 1, -1)
    best = (sign * blocks["score"]).groupby(blocks["backbone"]).max().sort_values(ascending=False, kind="stable")
    return _first_of(rows, "backbone", list(best.index[:most]))


def factor_rows(runs: pd.DataFrame, results: Path) -> pd.DataFrame | None:
    """What the records of tasks with factors (ImageNet-X) say of each factor; None where there are none.

    Args:
        runs: All runs; of several seeds, the first counts.
        results: The folder they were read from.

    Returns:
        Rows of `factor_table` with the columns task, protocol and model before them.

    Raises:
        UserError: If a record cannot be read.
    """
    own = comparable(runs[runs["category"] == "factors"])
    own = own[~own["protocol"].map(is_layerwise).astype(bool)]
    own = own.sort_values("seed", kind="stable").drop_duplicates(["task", "protocol", "backbone"])
    tables = []
    for record in records_of(results, own.sort_values(["task", "protocol", "backbone"])):
        request, rows = record.request, record.breakdown.get("per_factor", [])
        names = {"task": request.task, "protocol": request.protocol["name"], "model": request.backbone}
        tables += [pd.DataFrame(rows).assign(**names)] if rows else []
    if not tables:
        return None
    table = pd.concat(tables, ignore_index=True)
    first = ["task", "protocol", "model"]
    return table[[*first, *(column for column in table.columns if column not in first)]]


def best_models(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """The rows of one setting's models with the highest average accuracy, best first."""
    average = rows[rows["factor"] == AVERAGE].sort_values(["accuracy", "model"], ascending=[False, True])
    return _first_of(rows, "model", list(average["model"].head(most)))


def _first_of(rows: pd.DataFrame, column: str, names: list[str]) -> pd.DataFrame:
    """The rows with one of these names, in the order of the names."""
    place = rows[column].map({name: number for number, name in enumerate(names)})
    return rows.loc[place.dropna().sort_values(kind="stable").index].reset_index(drop=True)
