"""The same charts by matplotlib: marks where the numbers are, and equal bytes for equal numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.report.chart_data import cost_points, facts, likeness, rank_rows
from bob.report.pictures import correlation_picture, cost_picture, rank_picture
from bob.results.files import write_figure
from bob.standings.cells import Cells
from bob.standings.grid import Grid


@pytest.fixture
def known(cells: Cells, runs: pd.DataFrame) -> pd.DataFrame:
    return facts(cells, runs)


def test_ranks(ranking: pd.DataFrame, known: pd.DataFrame) -> None:
    rows = rank_rows(ranking, known)
    figure = rank_picture(rows, 8)
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ranking["backbone"])
    marks = {(x, y) for bars in axes.containers for x, y in zip(*bars[0].get_data(), strict=True)}
    assert marks == set(zip(ranking["rank"], range(8), strict=True))
    reach = sorted(tuple(segment[:, 0]) for bars in axes.containers for segment in bars[2][0].get_segments())
    assert reach == sorted(zip(ranking["rank_low"], ranking["rank_high"], strict=True))
    assert [text.get_text() for text in axes.texts] == [*(f"{g:g}" for g in ranking["group"].unique()), "group"]
    figure.draw_without_rendering()


def test_a_part_says_so(ranking: pd.DataFrame, known: pd.DataFrame) -> None:
    figure = rank_picture(rank_rows(ranking, known, most=3), 8)
    assert figure.get_supxlabel() == "The first 3 of 8 backbones"


def test_correlation(grid: Grid) -> None:
    found = likeness(grid)
    assert found is not None
    figure = correlation_picture(found)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == found.names
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(said) == 20 and said[(1, 0)] == said[(0, 1)] == f"{found.spearman[0, 1]:.2f}"
    np.testing.assert_allclose(axes.images[0].get_array().compressed(), found.spearman[~np.eye(5, dtype=bool)])


def test_cost(ranking: pd.DataFrame, known: pd.DataFrame) -> None:
    points = cost_points(ranking, known, "parameters")
    figure = cost_picture(points, "parameters")
    [axes] = figure.axes
    marks = {(x, y) for bars in axes.containers for x, y in zip(*bars[0].get_data(), strict=True)}
    assert marks == set(zip(points["parameters"] / 1e6, points["mean_z"], strict=True))
    assert {text.get_text() for text in axes.texts} == set(points["backbone"])
    figure.draw_without_rendering()
    # No name leaves the picture, nor lies on another.
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_same_bytes(ranking: pd.DataFrame, known: pd.DataFrame, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png", "a.svg", "b.svg")]
    for path in paths:
        write_figure(cost_picture(cost_points(ranking, known, "flops"), "flops"), path)
    png, again, svg, svg_again = (path.read_bytes() for path in paths)
    assert png == again and svg == svg_again
