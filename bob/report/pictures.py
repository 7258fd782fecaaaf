"""The charts of the report as pictures for papers and slides, by matplotlib, of the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bob.report.chart_data import Likeness, group_spans, named_points
from bob.report.labels import SIDES
from bob.report.looks import (
    AXES,
    BARRED,
    LOOKS,
    NUMBERED,
    Cost,
    Look,
    colour_scale,
    decade_ticks,
    log_range,
    score_range,
    staircase,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150
_ROW_INCHES = 0.2
_POINTS = 8  # size of type
_AWAY = 6  # points between a marker and its name
_PIXELS = (680, 400)  # of the plot that names are placed in, in units of `label_sides`


def rank_picture(rows: pd.DataFrame, count: int) -> Figure:
    """Ranks with their 95% intervals; groups of equals are shaded in turn and numbered.

    Args:
        rows: As `rank_rows` gives them.
        count: How many backbones have a rank.
    """
    figure = _figure(7, _ROW_INCHES * len(rows) + 1.3)
    axes = figure.subplots()
    spans = [span for span in group_spans(rows) if span[2]]
    beside: dict[str, Any] = {"size": _POINTS, "transform": axes.get_yaxis_transform()}
    for place, (first, last, group) in enumerate(spans):
        if place % 2 == 0:
            axes.axhspan(first - 0.5, last + 0.5, color="0.92", lw=0, zorder=0)
        axes.text(
            1.015, (first + last) / 2, str(group), va="center", size=_POINTS, transform=axes.get_yaxis_transform()
        )
    if spans:
        axes.text(1.0, -0.7, "group", va="bottom", **beside)
    for look, own in _by_look(rows):
        reach = np.abs(own[["rank_low", "rank_high"]].to_numpy(float).T - own["rank"].to_numpy(float))
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "label": look.name}
        axes.errorbar(own["rank"], own.index, xerr=reach, ls="none", markersize=5, elinewidth=1.2, capsize=2, **style)
    axes.set_yticks(range(len(rows)), list(rows["backbone"]), size=_POINTS)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("rank (95% interval)", size=_POINTS)
    axes.grid(axis="x", alpha=0.3)
    note = "" if count == len(rows) else f"The first {len(rows)} of {count:,} backbones"
    _finish(figure, axes, note)
    return figure


def correlation_picture(found: Likeness) -> Figure:
    """Spearman correlations between tasks, with the numbers where there is room for them.

    Args:
        found: As `likeness` gives it.
    """
    from matplotlib.colors import LinearSegmentedColormap

    count = len(found.names)
    side = min(2.2 + 0.42 * count, 12)
    figure = _figure(side + 0.6, side)
    axes = figure.subplots()
    shown = found.spearman.copy()
    np.fill_diagonal(shown, np.nan)
    image = axes.imshow(shown, cmap=LinearSegmentedColormap.from_list("diverging", colour_scale()), vmin=-1, vmax=1)
    for row, column in np.argwhere(~np.isnan(shown)) if count <= NUMBERED else ():
        value = shown[row, column]
        colour = "white" if abs(value) > 0.6 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", size=7, color=colour)
    size = _POINTS if count <= 40 else 4
    axes.set_xticks(range(count), found.names, rotation=45, ha="right", rotation_mode="anchor", size=size)
    axes.set_yticks(range(count), found.names, size=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30)
    bar.set_label("Spearman's correlation", size=_POINTS)
    bar.ax.tick_params(labelsize=_POINTS)
    bar.outline.set_visible(False)
    _settle(figure)
    return figure


def cost_picture(points: pd.DataFrame, cost: Cost) -> Figure:
    """Mean z against what a backbone costs, with the Pareto front.

    Args:
        points: As `cost_points` gives them.
        cost: What they are drawn against.
    """
    figure = _figure(7.6, 4.8)
    axes = figure.subplots()
    axis = AXES[cost]
    axes.plot(*staircase(points, cost), color="0.5", ls=":", lw=1.5, label="Pareto front", zorder=1)
    few = len(points) <= BARRED
    for look, own in _by_look(points):
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "label": look.name, "ls": "none"}
        z = own["mean_z"].to_numpy(float)
        reach = np.abs(own[["mean_z_low", "mean_z_high"]].to_numpy(float).T - z) if few else None
        style |= {"yerr": reach, "elinewidth": 1, "capsize": 2, "markersize": 6 if few else 3}
        axes.errorbar(own[cost] / axis.scale, z, **style)
    across, up = log_range(points[cost] / axis.scale), score_range(points)
    _name_points(axes, points, cost, (across, up))
    axes.set_xscale("log")
    ticks = decade_ticks(10 ** across[0], 10 ** across[1])
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlim=(10 ** across[0], 10 ** across[1]), ylim=up)
    axes.set_xlabel(axis.label, size=_POINTS)
    axes.set_ylabel("mean z", size=_POINTS)
    axes.grid(alpha=0.3)
    _finish(figure, axes)
    return figure


def _name_points(
    axes: Axes, points: pd.DataFrame, cost: Cost, ends: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    for row in named_points(points, cost, ends, _PIXELS).to_dict("records"):
        across, up = SIDES[row["side"]]
        axes.annotate(
            row["backbone"],
            (row[cost] / AXES[cost].scale, row["mean_z"]),
            (across * _AWAY, up * _AWAY),
            textcoords="offset points",
            ha=("center", "left", "right")[across],
            va=("center", "bottom", "top")[up],
            size=_POINTS,
        )


def _by_look(rows: pd.DataFrame) -> list[tuple[Look, pd.DataFrame]]:
    """The rows of each paradigm there is."""
    parts = [(look, rows[rows["paradigm"] == paradigm]) for paradigm, look in LOOKS.items()]
    return [(look, own) for look, own in parts if len(own)]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=_DPI)


def _finish(figure: Figure, axes: Axes, note: str = "") -> None:
    """A legend above the plot, small numbers, no frame; and what has to be said of the whole."""
    axes.tick_params(labelsize=_POINTS)
    axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=_POINTS, frameon=False)
    if note:
        figure.supxlabel(note, size=_POINTS)
    _settle(figure)


def _settle(figure: Figure) -> None:
    """Lay the figure out now, once: each further drawing would move things by a hair, and so the bytes of a file."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
