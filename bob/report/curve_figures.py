"""Charts of runs that say more than a score: curves along the blocks of backbones, and error ratios by factor."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bob.report.chart import GREY, Chart, axis, layout, narrow, numbers, reach, short
from bob.report.chart_data import best_curves, best_models
from bob.report.looks import MOST_MODELS
from bob.results.factor_table import AVERAGE

MOST_CURVES, MOST_CHARTS = 12, 12
# Okabe and Ito's, without black and yellow, which are lost on a dark page and on a light one.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "x", "star", "cross", "hexagon")
_DASHES = ("solid", "dash")
_ROOM = 0.7  # of a factor's row, for its models


def depth_charts(table: pd.DataFrame) -> list[Chart]:
    """A chart for each task and protocol with layer-wise runs, up to twelve, in the order of their names.

    Args:
        table: As `chart_data.depth_rows` makes it.
    """
    if table.empty:
        return []
    groups = [(f"{task}/{protocol}", own) for (task, protocol), own in table.groupby(["task", "protocol"])]
    return [_depth_chart(number, *group) for number, group in enumerate(groups[:MOST_CHARTS], start=1)]


def factor_charts(table: pd.DataFrame) -> list[Chart]:
    """A chart for each task and protocol with factors, up to twelve, in the order of their names.

    Args:
        table: As `chart_data.factor_rows` makes it.
    """
    groups = [(f"{task}/{protocol}", own) for (task, protocol), own in table.groupby(["task", "protocol"])]
    return [_factor_chart(number, *group) for number, group in enumerate(groups[:MOST_CHARTS], start=1)]


def _depth_chart(number: int, setting: str, table: pd.DataFrame) -> Chart:
    shown = best_curves(table, MOST_CURVES)
    metric = str(table["metric"].iloc[0])
    data: list[dict[str, Any]] = []
    for place, (backbone, own) in enumerate(shown.groupby("backbone", sort=False)):
        data += _curve(own, str(backbone), place)
    spec = {
        "data": data,
        "layout": layout(
            400,
            xaxis=axis("depth (share of blocks)", range=[0, 1.04]),
            yaxis=axis(metric),
            meta=narrow(400, shown["backbone"].nunique()),
        ),
    }
    count, drawn = table["backbone"].nunique(), shown["backbone"].nunique()
    title = f"Along the blocks: {setting}" + (f", the best {drawn} of {count:,}" if drawn < count else "")
    columns = ["backbone", "block", "depth", "score", "low", "high", "seeds"]
    return Chart(f"depth-{number}", title, _depth_sentence(shown, setting, metric), spec, shown[columns])


def _curve(own: pd.DataFrame, backbone: str, place: int) -> list[dict[str, Any]]:
    """A band, a line and, for the declared feature, a hollow marker."""
    colour, symbol = _COLOURS[place % len(_COLOURS)], _SYMBOLS[place % len(_SYMBOLS)]
    line = {"color": colour, "dash": _DASHES[place // len(_COLOURS) % len(_DASHES)], "width": 2}
    common: dict[str, Any] = {"type": "scatter", "legendgroup": backbone, "name": short(backbone)}
    blocks, plain = own[own["block"].notna()], own[own["block"].isna()]
    around = pd.concat([blocks["high"], blocks["low"][::-1]])
    band: dict[str, Any] = {
        "mode": "lines",
        "x": numbers(pd.concat([blocks["depth"], blocks["depth"][::-1]])),
        "y": numbers(around),
        "fill": "toself",
        "fillcolor": f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.15)",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    hover = f"{backbone}<br>%{{customdata}}<br>%{{y:.3f}}<extra></extra>"
    curve: dict[str, Any] = {
        "mode": "lines+markers",
        "x": numbers(blocks["depth"]),
        "y": numbers(blocks["score"]),
        "line": line,
        "marker": {"color": colour, "symbol": symbol, "size": 8},
        "customdata": [f"block {block}" for block in blocks["block"]],
        "hovertemplate": hover,
    }
    declared: dict[str, Any] = {
        "mode": "markers",
        "x": numbers(plain["depth"]),
        "y": numbers(plain["score"]),
        "marker": {"color": colour, "symbol": f"{symbol}-open", "size": 13, "line": {"width": 2}},
        "customdata": ["declared feature"] * len(plain),
        "hovertemplate": hover,
        "showlegend": False,
    }
    return [common | trace for trace in (band, curve, *([declared] if len(plain) else []))]


def _depth_sentence(shown: pd.DataFrame, setting: str, metric: str) -> str:
    blocks = shown[shown["block"].notna()]
    rising = bool(blocks["higher_is_better"].iloc[0])
    better = blocks.sort_values("score", ascending=not rising, kind="stable").iloc[0]
    return (
        f"{metric} of {setting} at every block of {shown['backbone'].nunique()} backbones: the best is "
        f"{better['backbone']} with {better['score']:.3f} at block {better['block']}, depth {better['depth']:.2f}."
    )


def _factor_chart(number: int, setting: str, table: pd.DataFrame) -> Chart:
    shown = best_models(table, MOST_MODELS)
    models = list(dict.fromkeys(shown["model"]))
    rows = shown[shown["factor"] != AVERAGE]
    factors = list(dict.fromkeys(rows["factor"]))
    images = rows.drop_duplicates("factor").set_index("factor")["n"]
    data = [
        _ratios(rows[rows["model"] == model], model, place, len(models), factors) for place, model in enumerate(models)
    ]
    names = [f"{factor.replace('_', ' ')} ({images[factor]:,})" for factor in factors]
    line = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1.5}}
    yaxis = axis(tickvals=list(range(len(factors))), ticktext=names, range=[len(factors) - 0.5, -0.5], showgrid=False)
    xaxis = axis("error ratio", rangemode="tozero")
    height = int(len(factors) * (14 + 9 * len(models)) + 120)
    spec = {
        "data": data,
        "layout": layout(height, xaxis=xaxis, yaxis=yaxis, shapes=[line], meta=narrow(height, len(data))),
    }
    count = table["model"].nunique()
    title = f"Errors by factor: {setting}" + (f", the best {len(models)} of {count:,}" if len(models) < count else "")
    columns = ["model", "factor", "n", "accuracy", "error_ratio", "error_ratio_low", "error_ratio_high"]
    return Chart(f"factors-{number}", title, _factor_sentence(rows, setting), spec, shown[columns])


def _ratios(rows: pd.DataFrame, model: str, place: int, models: int, factors: list[str]) -> dict[str, Any]:
    offset = (place - (models - 1) / 2) * _ROOM / models
    return {
        "type": "scatter",
        "mode": "markers",
        "name": short(model),
        "marker": {"color": _COLOURS[place], "symbol": _SYMBOLS[place], "size": 8},
        "x": numbers(rows["error_ratio"]),
        "y": [factors.index(factor) + offset for factor in rows["factor"]],
        "error_x": reach(rows, "error_ratio", "error_ratio_low", "error_ratio_high"),
        "customdata": list(rows["factor"].str.replace("_", " ")),
        "hovertemplate": f"{model}<br>%{{customdata}}: %{{x:.2f}}<extra></extra>",
    }


def _factor_sentence(rows: pd.DataFrame, setting: str) -> str:
    means = rows.groupby("factor")["error_ratio"].mean()
    if means.isna().all():
        return f"{setting}: no model errs, so there are no error ratios."
    ordered = means.dropna().sort_values(kind="stable")
    names = [str(name).replace("_", " ") for name in ordered.index]
    return (
        f"{setting}: of {len(names)} factors, {names[-1]} has the largest error ratio "
        f"({ordered.iloc[-1]:.2f} in the mean of {rows['model'].nunique()} models) and "
        f"{names[0]} the smallest ({ordered.iloc[0]:.2f})."
    )
