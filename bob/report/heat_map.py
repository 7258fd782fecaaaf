"""The chart of how alike tasks rank the backbones: a heat map of Spearman correlations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bob.report.chart import Chart, axis, layout, numbers, short, span
from bob.report.chart_data import Likeness, likeness
from bob.report.looks import NUMBERED, colour_scale

if TYPE_CHECKING:
    from bob.standings.grid import Grid

_MOST_NAMED = 40  # tasks up to which each has its name on both axes
_MOST_LISTED = 66  # pairs in the table beside the chart: those of twelve tasks


def correlation_chart(grid: Grid) -> Chart | None:
    """The heat map; None where there are too few backbones or settings."""
    found = likeness(grid)
    if found is None:
        return None
    count = len(found.names)
    names = [short(name, 22) for name in found.names]
    ticks: dict[str, Any] = (
        {"tickvals": list(range(count)), "ticktext": names} if count <= _MOST_NAMED else {"showticklabels": False}
    )
    square: dict[str, Any] = {"showgrid": False, "range": [-0.5, count - 0.5], **ticks}
    spec = {
        "data": [_heat(found)],
        "layout": layout(
            min(44 * count + 190, 860),
            xaxis=axis(**square, tickangle=-45),
            yaxis=axis(**square | {"range": [count - 0.5, -0.5]}),
        ),
    }
    of = "tasks" if grid.settings["task"].nunique() > 1 else "settings"
    return Chart("correlation", f"How alike {of} rank the backbones", _sentence(found, of), spec, _table(found.pairs))


def _heat(found: Likeness) -> dict[str, Any]:
    blank = found.spearman.copy()
    np.fill_diagonal(blank, np.nan)
    hover = [[_hover(found, row, column) for column in range(len(blank))] for row in range(len(blank))]
    bar = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "thickness": 12, "outlinewidth": 0, "len": 0.8}
    heat = {
        "type": "heatmap",
        "z": [numbers(row) for row in blank],
        "zmin": -1,
        "zmax": 1,
        "colorscale": [list(stop) for stop in colour_scale()],
        "colorbar": {
            **bar,
            "title": {"text": "Spearman's correlation", "side": "top"},
            "tickvals": [-1, -0.5, 0, 0.5, 1],
        },
        **dict.fromkeys(["xgap", "ygap"], 1 if len(blank) <= _MOST_NAMED else 0),
        "text": hover,
        "hovertemplate": "%{text}<extra></extra>",
        "hoverongaps": False,
    }
    return heat | ({"texttemplate": "%{z:.2f}"} if len(blank) <= NUMBERED else {})


def _hover(found: Likeness, row: int, column: int) -> str:
    value, low, high = (matrix[row, column] for matrix in (found.spearman, found.low, found.high))
    return f"{found.names[row]}<br>{found.names[column]}<br>{value:.2f} {span(low, high, '.2f')}"


def _sentence(found: Likeness, of: str) -> str:
    pairs = found.pairs.dropna(subset="spearman")
    ordered = pairs.sort_values("spearman", kind="stable")
    least, most = ordered.iloc[0], ordered.iloc[-1]
    words = f"Of {len(pairs):,} pairs of {of}, {most['first']} and {most['second']} rank backbones most alike"
    sentence = f"{words} (Spearman's correlation {most['spearman']:.2f}, 95% {most['low']:.2f} to {most['high']:.2f})"
    if len(pairs) < 2:
        return f"{most['first']} and {most['second']} have a {sentence[sentence.index('Spearman') : -1]}."
    return f"{sentence}, {least['first']} and {least['second']} least ({least['spearman']:.2f})."


def _table(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs, strongest first, where they are many, only the strongest and the weakest."""
    ordered = pairs.dropna(subset="spearman").sort_values("spearman", ascending=False, kind="stable")
    if len(ordered) > _MOST_LISTED:
        ordered = pd.concat([ordered.head(_MOST_LISTED // 2), ordered.tail(_MOST_LISTED // 2)])
    return ordered.rename(columns={"low": "from", "high": "to", "n": "backbones"}).reset_index(drop=True)
