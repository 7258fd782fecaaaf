"""One chart of the report, and what all charts share: as plotly's JSON, as wide as the page, in its type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

GREY = "#888888"  # seen on white and on black
_NOTHING = "rgba(0, 0, 0, 0)"
_LONGEST = 28  # letters of a name beside an axis


@dataclass(frozen=True)
class Chart:
    """One chart of the report.

    Args:
        id: Of its place in the page: letters, digits and hyphens.
        title: Above it.
        description: What it shows, one sentence with its main numbers, for those who do not see it.
        spec: plotly's `{"data": [...], "layout": {...}}`; colours of text and grid are left to the page.
        table: The same numbers, for those who would rather read them.
    """

    id: str
    title: str
    description: str
    spec: dict[str, Any]
    table: pd.DataFrame


def layout(height: int, **more: Any) -> dict[str, Any]:
    """What all charts share: as wide as the page lets them be, transparent, in the page's own type."""
    common = {
        "autosize": True,
        "height": height,
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "paper_bgcolor": _NOTHING,
        "plot_bgcolor": _NOTHING,
        "font": {"family": "inherit", "size": 12},
        "hovermode": "closest",
        "dragmode": False,  # a finger that moves over the chart scrolls the page
        "legend": {"orientation": "h", "xref": "container", "x": 0, "yref": "container", "y": 1, "yanchor": "top"},
    }
    return common | more


def narrow(height: int, entries: int) -> dict[str, int]:
    """What the page needs on a phone, where the legend stands in one column and not in a row."""
    return {"narrow_height": height + 19 * (entries - 1)}


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis with room for its labels."""
    common = {
        "automargin": True,
        "ticks": "",
        "zeroline": False,
        "fixedrange": True,
        "title": {"text": title, "standoff": 8},
    }
    return common | more


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers as JSON has them, with six digits; what is not known is null."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def short(name: str, longest: int = _LONGEST) -> str:
    """A name that is not too long to stand beside an axis."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def span(low: float, high: float, form: str) -> str:
    """An interval as text; nothing where it is not known."""
    return f"[{low:{form}}, {high:{form}}]" if np.isfinite(low) and np.isfinite(high) else ""


def reach(rows: pd.DataFrame, value: str, low: str, high: str) -> dict[str, Any]:
    """Error bars from `low` to `high` about `value`."""
    return {
        "type": "data",
        "symmetric": False,
        "array": numbers(rows[high] - rows[value]),
        "arrayminus": numbers(rows[value] - rows[low]),
        "thickness": 1.5,
        "width": 3,
    }
