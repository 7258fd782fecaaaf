"""Score against depth: one protocol at every block of a backbone (layer-wise probing), as a table and as curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bob.errors import UserError
from bob.results.globs import matches_any
from bob.results.protocols import base_of, is_layerwise
from bob.results.runs import comparable, select, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito, Color Universal Design: told apart whatever one's colour vision. Yellow is left out, too light on white.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
_COLUMNS = ["backbone", "task", "protocol", "metric", "block", "depth", "score", "low", "high", "seeds"]


def depth_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each block of each backbone, task and protocol, and one for the plain run where there is one.

    Args:
        runs: Of `PROTOCOL@blockN`, whose protocols say `block` (from 0) and `blocks` (how many there are), and of the
            plain protocol, as `runs.tidy` makes them. What has no layer-wise run of its backbone, task and protocol is
            left out.

    Returns:
        Columns backbone, task, protocol (without the block), metric, block (empty for the plain run, which is on the
        backbone's declared feature), depth ((block + 1) / blocks; 1 for the plain run), score, low, high (95%, over
        seeds if there are several), seeds.

    Raises:
        UserError: If no run is layer-wise, or one of them does not say which block it is.

    Source: Bordes et al. 2022, Guillotine Regularization, arXiv 2206.13378.
    """
    layerwise = runs["protocol"].map(is_layerwise).astype(bool)
    if not layerwise.any():
        raise UserError("There are no layer-wise runs.", "Make some: `bob run -b BACKBONE -t TASK -p knn@blocks`.")
    _require_blocks(runs[layerwise])
    curves = runs["backbone"] + "\n" + runs["task"] + "\n" + runs["protocol"].map(base_of)
    kept = comparable(runs[curves.isin(curves[layerwise].unique())])
    rows = []
    for (backbone, task, protocol), own in kept.groupby(["backbone", "task", "protocol"]):
        block, depth = _block(own.iloc[0])
        names = {
            "backbone": backbone,
            "task": task,
            "protocol": base_of(str(protocol)),
            "metric": own["metric"].iloc[0],
        }
        rows.append({**names, "block": block, "depth": depth, **summary(own)})
    table = pd.DataFrame(rows)[_COLUMNS].astype({"block": "Int64"})
    return table.sort_values(["task", "protocol", "backbone", "block"], na_position="last").reset_index(drop=True)


def select_layerwise(
    runs: pd.DataFrame, backbones: Sequence[str], tasks: Sequence[str], protocols: Sequence[str]
) -> pd.DataFrame:
    """Keep the runs that belong to curves: of the named backbones, tasks and plain protocols (`knn`); globs work.

    Raises:
        UserError: If nothing is left.
    """
    plain = runs["protocol"].map(base_of)
    named = [name for name in plain.unique() if not protocols or matches_any(name, protocols)]
    return select(runs[plain.isin(named)], backbones, tasks, ["*", "*@*"])


def depth_figure(table: pd.DataFrame) -> Figure:
    """Draw a panel for each task and protocol: score against depth, a curve with a 95% band for each backbone.

    The plain run is a hollow marker at depth 1: it lies off the curve's end where the backbone's declared feature is
    not its pooled last block. Backbones differ by colour and by marker.

    Args:
        table: As `depth_table` makes it.
    """
    from matplotlib.figure import Figure

    panels = list(table.groupby(["task", "protocol"]))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.8 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    backbones = list(dict.fromkeys(table["backbone"].sort_values()))
    for panel, ((task, protocol), own) in zip(axes, panels, strict=False):
        for number, backbone in enumerate(backbones):
            _draw(panel, own[own["backbone"] == backbone], str(backbone), number)
        panel.set(title=f"{task}/{protocol}", xlabel="depth (share of blocks)", ylabel=own["metric"].iloc[0])
        panel.set_xlim(0, 1.03)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    for panel in axes[len(panels) :]:
        panel.remove()
    return figure


def _draw(panel: Axes, runs: pd.DataFrame, backbone: str, number: int) -> None:
    if runs.empty:
        return
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    at_blocks, plain = runs[runs["block"].notna()], runs[runs["block"].isna()]
    depth = at_blocks["depth"].to_numpy(dtype=np.float64)
    panel.plot(depth, at_blocks["score"].to_numpy(), color=colour, marker=marker, markersize=4, label=backbone)
    panel.fill_between(depth, at_blocks["low"].to_numpy(), at_blocks["high"].to_numpy(), color=colour, alpha=0.2, lw=0)
    panel.plot(plain["depth"], plain["score"], color=colour, marker=marker, markersize=9, fillstyle="none", ls="none")


def _require_blocks(runs: pd.DataFrame) -> None:
    for run in runs.to_dict("records"):
        if not 0 <= run["block"] < run["blocks"]:
            problem = f"The run {run['run_id']} of {run['protocol']} does not say which of how many blocks it is about."
            raise UserError(problem, f"Run it again: `bob run -b {run['backbone']} -p {run['protocol']}`.")


def _block(run: pd.Series[Any]) -> tuple[int | None, float]:
    """The block of a run and its depth; None and 1 for a plain run."""
    if not is_layerwise(run["protocol"]):
        return None, 1.0
    return int(run["block"]), (run["block"] + 1) / run["blocks"]
