"""How charts look, in the page and in pictures alike: colours, shapes, how much is shown, where axes end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd

from bob.standings.wide import PARETO

Cost = Literal["parameters", "images_per_second", "flops"]
MOST_RANKED = 50  # backbones in a chart of ranks
LABELLED = 15  # points up to which each has its name beside it
NUMBERED = 12  # tasks up to which a heat map says its numbers
MOST_MODELS = 6  # in a chart of factors
BARRED = 60  # points up to which each has its interval
UNKNOWN = "unknown"
INK = "#000000"  # of what has no colour of its own; the page draws it in the colour of its text


@dataclass(frozen=True)
class Look:
    """How a paradigm is drawn: never by colour alone.

    Args:
        name: For people.
        colour: Okabe and Ito's, told apart whatever one's colour vision.
        symbol: Shape of its marker in plotly.
        marker: The same in matplotlib.
    """

    name: str
    colour: str
    symbol: str
    marker: str


LOOKS = {
    "supervised": Look("supervised", "#0072B2", "circle", "o"),
    "ssl": Look("self-supervised", "#E69F00", "square", "s"),
    "vlm": Look("vision-language", "#009E73", "triangle-up", "^"),
    "generative": Look("generative", "#CC79A7", "diamond", "D"),
    "depth": Look("depth", "#56B4E9", "triangle-down", "v"),
    "baseline": Look("baseline", "#999999", "x", "X"),
    UNKNOWN: Look("unknown", INK, "cross", "P"),
}


@dataclass(frozen=True)
class Axis:
    """A cost that scores are drawn against.

    Args:
        name: Of the cost, for people.
        label: Of the axis.
        unit: Of its numbers, in a sentence.
        scale: What the numbers are divided by.
        less_is_better: Whether a backbone is ahead that needs less.
    """

    name: str
    label: str
    unit: str
    scale: float
    less_is_better: bool


AXES: dict[Cost, Axis] = {
    "parameters": Axis("parameters", "parameters (millions)", "M", 1e6, not PARETO["parameters"]),
    "images_per_second": Axis("images/s", "images/s", "images/s", 1.0, not PARETO["images_per_second"]),
    "flops": Axis("FLOPs", "GFLOPs of one image", "GFLOPs", 1e9, not PARETO["flops"]),
}


def colour_scale(stops: int = 11) -> list[tuple[float, str]]:
    """Places from 0 to 1 and colours, from blue over light grey to red: even steps, and safe for colour-blind readers.

    Source: Moreland 2009, Diverging Color Maps for Scientific Visualization; matplotlib has it as `coolwarm`.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [(float(place), to_hex(colormaps["coolwarm"](place))) for place in np.linspace(0, 1, stops)]


def log_range(values: pd.Series[float]) -> tuple[float, float]:
    """Decimal logarithms of an axis's ends, with room about the values."""
    low, high = float(np.log10(values.min())), float(np.log10(values.max()))
    room = max(0.12 * (high - low), 0.1)
    return low - room, high + room


def score_range(points: pd.DataFrame) -> tuple[float, float]:
    """The ends of the axis of mean z: scores, intervals where they are drawn, and room."""
    columns = ["mean_z", "mean_z_low", "mean_z_high"] if len(points) <= BARRED else ["mean_z"]
    values = points[columns].to_numpy(float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(0.08 * (high - low), 0.05)
    return low - room, high + room


def decade_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Ticks of a logarithmic axis: 1, 2 and 5 of each decade, or fewer if these are too many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    return ticks


def staircase(points: pd.DataFrame, cost: Cost) -> tuple[list[float], list[float]]:
    """The corners of the Pareto front: the best score that can be had for at most that cost.

    Args:
        points: As `cost_points` gives them, in the order of cost.
        cost: What they are drawn against.
    """
    front = points[points["front"]].sort_values([cost, "mean_z"])
    x, y = list(front[cost] / AXES[cost].scale), list(front["mean_z"])
    across, up = x[:1], y[:1]
    for (_, low), (right, high) in pairwise(zip(x, y, strict=True)):
        # Cheaper is left: one keeps the score until the next is affordable. Faster is right: the other way round.
        corner = (right, low) if AXES[cost].less_is_better else (across[-1], high)
        across, up = [*across, corner[0], right], [*up, corner[1], high]
    return across, up
