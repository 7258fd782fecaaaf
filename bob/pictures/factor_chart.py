"""Error ratios by factor, as bars with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bob.errors import UserError
from bob.pictures.draw import colours
from bob.results.factor_table import AVERAGE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 6  # colours that stay apart
# Beside the colour, so that bars are told apart in grey print, too.
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")
_BAR_INCHES, _GAP_INCHES = 0.13, 0.16
_BARS = 0.8  # of the room for a factor


def require_drawable(models: Sequence[str]) -> None:
    """Refuse more models than a reader can tell apart.

    Raises:
        UserError: Naming the number.
    """
    if len(models) > _MOST:
        raise UserError(
            f"A picture shows at most {_MOST} models, but there are {len(models)}.",
            "Name fewer, or write a table (--out NAME.csv).",
        )


def draw_error_ratios(table: pd.DataFrame, title: str) -> Figure:
    """Draw the error ratio of each factor with its interval, a bar for each model.

    Args:
        table: Rows of `factor_table` with a column `model`; the models have the same factors in the same order.
        title: Of the picture.

    Raises:
        UserError: If there are more models than colours.
    """
    from matplotlib.figure import Figure

    models = list(table["model"].unique())
    require_drawable(models)
    every = [_factors(table[table["model"] == model]) for model in models]
    names = [f"{factor} ({n:,})" for factor, n in zip(every[0]["factor"], every[0]["n"], strict=True)]
    height = len(names) * (len(models) * _BAR_INCHES + _GAP_INCHES) + 1.1
    figure = Figure(figsize=(7, max(height, 2.5)), layout="constrained", dpi=150)
    axes = figure.subplots()
    for number, (model, rows) in enumerate(zip(models, every, strict=True)):
        offset = (number - (len(models) - 1) / 2) * _BARS / len(models)
        _draw_bars(axes, np.arange(len(names)) + offset, _BARS / len(models), rows, model, number)
    axes.axvline(1, color="black", linewidth=0.9)
    axes.set_yticks(np.arange(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("error ratio (1: as the mean image), with 95% interval", fontsize=8)
    figure.suptitle(title, fontsize=8)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=min(len(models), 3))
    return figure


def _draw_bars(axes: Axes, where: np.ndarray, thickness: float, rows: pd.DataFrame, model: str, number: int) -> None:
    """The bars of one model, each with its interval."""
    ratio = rows["error_ratio"].to_numpy(float)
    reach = np.abs(rows[["error_ratio_low", "error_ratio_high"]].to_numpy(float).T - ratio)
    bars = axes.barh(where, ratio, thickness * 0.92, label=model, color=tuple(colours(_MOST)[number]))
    for bar in bars:
        bar.set(hatch=_HATCHES[number], edgecolor="white", linewidth=0.5)
    axes.errorbar(ratio, where, xerr=reach, fmt="none", ecolor="0.25", elinewidth=0.8, capsize=1.5)


def _factors(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of factors, which end where the average begins."""
    end = int(np.flatnonzero((rows["factor"] == AVERAGE).to_numpy())[0])
    return rows.iloc[:end]
