"""The analysis as one picture: spectra or rank over depth, who is like whom, and what ranks as the scores do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bob.analysis.moments import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito, Color Universal Design: told apart whatever one's colour vision. Yellow is left out, too light on white.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_NUMBERED = 8  # features up to which numbers stand in the cells of a matrix
_NAMED = 40  # and up to which rows and columns have names


def analysis_figure(
    table: pd.DataFrame, spectra: dict[str, Floats], similarity: pd.DataFrame, agreement: pd.DataFrame
) -> Figure:
    """Draw a panel for the spectra (with blocks: RankMe over depth), one for each likeness, one for the agreement.

    Args:
        table: As `Analysis.table` makes it.
        spectra: Eigenvalues by title.
        similarity: As `Analysis.similarity` makes it.
        agreement: As `bob.analysis.agreement.agreement` makes it; no panel if empty.
    """
    from matplotlib.figure import Figure

    several = len(spectra) > 1
    count = 1 + 2 * several + (not agreement.empty)
    figure = Figure(figsize=(5.2 * count, 4.4), layout="constrained")
    panels = iter(figure.subplots(1, count, squeeze=False).ravel())
    if table["block"].notna().any():
        _draw_depth(next(panels), table)
    else:
        _draw_spectra(next(panels), spectra)
    if several:
        _draw_matrix(next(panels), similarity, "cka", "linear CKA (unbiased)")
        _draw_matrix(next(panels), similarity, "mutual_neighbours", "mutual nearest neighbours")
    if not agreement.empty:
        _draw_agreement(next(panels), agreement)
    return figure


def _draw_spectra(panel: Axes, spectra: dict[str, Floats]) -> None:
    for number, (title, values) in enumerate(spectra.items()):
        shown = values[values > 1e-12 * values[0]] if values[0] > 0 else values[:0]
        place, colour = np.arange(1, len(shown) + 1), _COLOURS[number % len(_COLOURS)]
        style = ("-", "--", ":")[number // len(_COLOURS) % 3]
        panel.plot(place, shown / values.sum() if len(shown) else shown, color=colour, ls=style, label=title)
    panel.set(title="spectrum", xlabel="direction", ylabel="share of the variance", xscale="log", yscale="log")
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")


def _draw_depth(panel: Axes, table: pd.DataFrame) -> None:
    for number, (name, own) in enumerate(table.groupby("backbone", sort=False)):
        colour, blocks, plain = _COLOURS[number % len(_COLOURS)], own[own["block"].notna()], own[own["block"].isna()]
        panel.plot(blocks["depth"], blocks["rank_me"], color=colour, marker="o", markersize=4, label=str(name))
        panel.plot(
            plain["depth"], plain["rank_me"], color=colour, marker="o", markersize=9, fillstyle="none", ls="none"
        )
    panel.set(title="RankMe at every block (hollow: the feature)", xlabel="depth (share of blocks)", ylabel="RankMe")
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")


def _draw_matrix(panel: Axes, similarity: pd.DataFrame, column: str, title: str) -> None:
    titles = list(dict.fromkeys(similarity["first"]))
    values = similarity[column].to_numpy(dtype=np.float64).reshape(len(titles), len(titles))
    panel.imshow(values, vmin=0, vmax=1, cmap="viridis")
    panel.set_title(title)
    shown = range(len(titles)) if len(titles) <= _NAMED else []
    panel.set_xticks(list(shown), [titles[i] for i in shown], rotation=90, fontsize="small")
    panel.set_yticks(list(shown), [titles[i] for i in shown], fontsize="small")
    if len(titles) <= _NUMBERED:
        for (row, place), value in np.ndenumerate(values):
            colour = "black" if value > 0.6 else "white"
            panel.text(place, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize="small")


def _draw_agreement(panel: Axes, agreement: pd.DataFrame) -> None:
    wide = agreement.pivot(index="measure", columns="protocol", values="spearman")
    wide = wide.loc[list(dict.fromkeys(agreement["measure"]))[::-1]]
    place, thick = np.arange(len(wide)), 0.8 / len(wide.columns)
    for number, protocol in enumerate(wide.columns):
        colour = _COLOURS[number % len(_COLOURS)]
        panel.barh(place + thick * number, wide[protocol], height=thick, color=colour, label=str(protocol))
    panel.set_yticks(place + 0.4 - thick / 2, list(wide.index), fontsize="small")
    panel.axvline(0, color="black", lw=0.8)
    panel.set(title=f"rank correlation with scores, n = {agreement['n'].max()}", xlabel="Spearman's rho", xlim=(-1, 1))
    panel.legend(fontsize="small")
