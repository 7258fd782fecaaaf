"""The charts of the report as plotly's JSON: ranks, likeness of tasks, score against cost, depth, factors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bob.report.chart import GREY, Chart, axis, layout, narrow, numbers, reach, short, span
from bob.report.chart_data import cost_points, depth_rows, facts, group_spans, named_points, rank_rows
from bob.report.curve_figures import depth_charts, factor_charts
from bob.report.heat_map import correlation_chart
from bob.report.looks import (
    AXES,
    BARRED,
    LOOKS,
    MOST_RANKED,
    Axis,
    Cost,
    decade_ticks,
    log_range,
    score_range,
    staircase,
)

if TYPE_CHECKING:
    from bob.standings.cells import Cells
    from bob.standings.grid import Grid

_RECTANGLE = {
    "type": "rect",
    "x0": 0,
    "x1": 1,
    "fillcolor": "rgba(128, 128, 128, 0.15)",
    "line": {"width": 0},
    "layer": "below",
}
_WIDTH, _HEIGHT = 760, 460  # pixels that labels are placed for


def plotly_figures(
    standings: pd.DataFrame,
    cells: Cells,
    grid: Grid,
    runs: pd.DataFrame,
    *,
    factors: pd.DataFrame | None = None,
) -> list[Chart]:
    """The charts that the data have numbers for, in the order of the page.

    Args:
        standings: As `standings` makes them, of `grid`.
        cells: What the standings were made from.
        grid: Likewise.
        runs: All runs of our own, layer-wise ones among them.
        factors: As `chart_data.factor_rows` makes it.
    """
    known = facts(cells, runs)
    costs = [_cost_chart(standings, known, cost) for cost in AXES]
    found = [_rank_chart(standings, known), correlation_chart(grid), *costs]
    charts = [chart for chart in found if chart is not None]
    charts += depth_charts(depth_rows(runs))
    return charts if factors is None else [*charts, *factor_charts(factors)]


def _rank_chart(standings: pd.DataFrame, known: pd.DataFrame) -> Chart | None:
    rows = rank_rows(standings, known, MOST_RANKED)
    if rows.empty:
        return None
    count = int(standings["rank"].notna().sum())
    ends = rows[["rank", "rank_low", "rank_high"]].to_numpy(dtype=float)
    positions: dict[str, Any] = {
        "tickvals": list(range(len(rows))),
        "ticktext": [short(name) for name in rows["backbone"]],
        "range": [len(rows) - 0.4, -0.6],
        "showgrid": False,
    }
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    shapes, annotations = _groups(rows)
    data = [_ranks(own, rows) for own in _by_paradigm(rows)]
    spec = {
        "data": data,
        "layout": layout(
            24 * len(rows) + 110,
            xaxis=axis("rank (95% interval)", range=[low - 0.5, high + 0.5], nticks=8, tickformat="d"),
            yaxis=axis(**positions),
            shapes=shapes,
            annotations=annotations,
            meta=narrow(24 * len(rows) + 110, len(data)),
            margin={"l": 8, "r": 44, "t": 8, "b": 8},
        ),
    }
    title = "Ranks" if count == len(rows) else f"Ranks: the first {len(rows)} of {count:,}"
    table = rows.rename(columns={"rank_low": "from", "rank_high": "to"})
    return Chart("ranks", title, _rank_sentence(rows, count), spec, table)


def _ranks(own: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    ends = [
        f"ranks {low:g} to {high:g}, group {group:g}" if np.isfinite(low) else "interval unknown"
        for low, high, group in zip(own["rank_low"], own["rank_high"], own["group"], strict=True)
    ]
    return _look(own) | {
        "x": numbers(own["rank"]),
        "y": [int(place) for place in own.index],
        "error_x": reach(own, "rank", "rank_low", "rank_high"),
        "text": list(own["backbone"]),
        "customdata": ends,
        "hovertemplate": "%{text}<br>rank %{x:g}, %{customdata}<extra></extra>",
    }


def _groups(rows: pd.DataFrame) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A band behind every other group, a bracket and a number beside each."""
    shapes: list[dict[str, Any]] = []
    beside = {"xref": "paper", "xanchor": "left", "showarrow": False}
    annotations: list[dict[str, Any]] = []
    for place, (first, last, group) in enumerate(each for each in group_spans(rows) if each[2]):
        ends = {"y0": first - 0.5, "y1": last + 0.5, "xref": "paper"}
        if place % 2 == 0:
            shapes.append(_RECTANGLE | ends)
        bracket = {"y0": first - 0.35, "y1": last + 0.35, "xref": "paper", "x0": 1.012, "x1": 1.012}
        shapes.append({"type": "line", "line": {"width": 2, "color": GREY}} | bracket)
        annotations.append(beside | {"text": str(group), "x": 1.02, "y": (first + last) / 2})
    head = {"text": "group", "x": 1.0, "y": 1, "yref": "paper", "yanchor": "bottom"}
    return shapes, [*annotations, *([beside | head] if annotations else [])]


def _rank_sentence(rows: pd.DataFrame, count: int) -> str:
    first = rows.iloc[0]
    sentence = f"{first['backbone']} is first of {count:,} backbones"
    if np.isfinite(first["rank_low"]):
        low, high = first["rank_low"], first["rank_high"]
        sentence += ", surely so at 95%" if low == high else f", with ranks {low:g} to {high:g} at 95%"
    if np.isfinite(first["group"]):
        tied = int((rows["group"] == first["group"]).sum()) - 1
        sentence += f"; {tied or 'no'} other{'s are' if tied > 1 else ' is'} tied with it"
    return sentence + "."


def _cost_chart(standings: pd.DataFrame, known: pd.DataFrame, cost: Cost) -> Chart | None:
    points = cost_points(standings, known, cost)
    if len(points) < 2:
        return None
    scale = AXES[cost].scale
    points = points.assign(cost=points[cost] / scale)
    xaxis, yaxis = log_range(points["cost"]), score_range(points)
    data = [_front(points, cost), *(_scores(own, cost, len(points)) for own in _by_paradigm(points))]
    data.append(_names(named_points(points, cost, (xaxis, yaxis), (_WIDTH, _HEIGHT))))
    ticks = decade_ticks(10 ** xaxis[0], 10 ** xaxis[1])
    across = axis(AXES[cost].label, type="log", range=list(xaxis), tickvals=ticks, ticktext=[f"{t:,g}" for t in ticks])
    up = axis("mean z", range=list(yaxis))
    spec = {"data": data, "layout": layout(_HEIGHT, xaxis=across, yaxis=up, meta=narrow(_HEIGHT, len(data) - 1))}
    sentence, table = _cost_sentence(points, AXES[cost]), _cost_table(points, AXES[cost].label)
    return Chart(f"cost-{cost.replace('_', '-')}", f"Score against {AXES[cost].name}", sentence, spec, table)


def _scores(own: pd.DataFrame, cost: Cost, count: int) -> dict[str, Any]:
    label = AXES[cost].label
    trace = _look(own, 11 if count <= BARRED else 6) | {
        "x": numbers(own["cost"]),
        "y": numbers(own["mean_z"]),
        "text": list(own["backbone"]),
        "customdata": [span(low, high, "+.2f") for low, high in own[["mean_z_low", "mean_z_high"]].to_numpy(float)],
        "hovertemplate": f"%{{text}}<br>mean z %{{y:+.2f}} %{{customdata}}<br>{label} %{{x:,.3~g}}<extra></extra>",
    }
    return trace | ({"error_y": reach(own, "mean_z", "mean_z_low", "mean_z_high")} if count <= BARRED else {})


def _front(points: pd.DataFrame, cost: Cost) -> dict[str, Any]:
    across, up = staircase(points, cost)
    line = {"dash": "dot", "width": 2, "color": GREY}
    shape = {"type": "scatter", "mode": "lines", "name": "Pareto front", "line": line, "hoverinfo": "skip"}
    return shape | {"x": numbers(across), "y": numbers(up)}


def _names(points: pd.DataFrame) -> dict[str, Any]:
    """The names of some points beside them."""
    return {
        "type": "scatter",
        "mode": "markers+text",
        "marker": {"size": 13, "opacity": 0},  # keeps the names off the points
        "meta": "labels",  # the page hides them where it is narrow
        "x": numbers(points["cost"]),
        "y": numbers(points["mean_z"]),
        "text": [short(name) for name in points["backbone"]],
        "textposition": list(points["side"]),
        "textfont": {"size": 11},
        "cliponaxis": False,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _by_paradigm(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for paradigm in LOOKS:
        if len(own := rows[rows["paradigm"] == paradigm]):
            yield own


def _look(own: pd.DataFrame, size: int = 11) -> dict[str, Any]:
    """The markers of one paradigm."""
    look = LOOKS[own["paradigm"].iloc[0]]
    marker = {"color": look.colour, "symbol": look.symbol, "size": size}
    return {"type": "scatter", "mode": "markers", "name": look.name, "marker": marker}


def _cost_table(points: pd.DataFrame, label: str) -> pd.DataFrame:
    """The best backbones and all of the front; the page has the rest in its main table."""
    best = points["mean_z"].rank(ascending=False) <= MOST_RANKED
    shown = points[points["front"] | best].sort_values("mean_z", ascending=False)
    columns = ["backbone", "paradigm", "cost", "mean_z", "mean_z_low", "mean_z_high"]
    names = {"cost": label, "mean_z": "mean z", "mean_z_low": "from", "mean_z_high": "to"}
    front = np.where(shown["front"], "yes", "")
    return shown[columns].rename(columns=names).assign(**{"Pareto front": front}).reset_index(drop=True)


def _cost_sentence(points: pd.DataFrame, axis: Axis) -> str:
    front = points[points["front"]]
    rows = front[["backbone", "cost", "mean_z"]].itertuples(index=False)
    listed = [f"{name} ({_rounded(cost)} {axis.unit}, {z:+.2f})" for name, cost, z in rows]
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    what = f"Of {len(points):,} backbones, {len(listed)} are on the Pareto front of mean z against {axis.name}"
    return f"{what}: {', '.join(listed[:5])}{more}."


def _rounded(value: float) -> str:
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
