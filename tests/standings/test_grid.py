"""The grid: cells in their places, and parts of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bob.results.record import Record
from bob.results.runs import tidy
from bob.standings.cells import cells_of
from bob.standings.grid import Grid


@pytest.fixture
def grid(make_record: Callable[..., Record]) -> Grid:
    records = [
        make_record("b", 0.1, task="x", draws=np.full(500, 0.11), category="ood", metric="shifted_top1"),
        make_record("a", 0.2, task="y", draws=np.full(500, 0.22)),
        make_record("b", 0.3, task="y", draws=np.full(500, 0.33)),
    ]
    return Grid.of(cells_of(tidy(records)))


def test_cells_in_their_places(grid: Grid) -> None:
    assert grid.backbones == ("a", "b") and list(grid.settings.index) == ["x/linear", "y/linear"]
    assert list(grid.settings["category"]) == ["ood", "classification"]
    assert list(grid.settings["metric"]) == ["shifted_top1", "top1"]
    np.testing.assert_array_equal(grid.scores, [[np.nan, 0.2], [0.1, 0.3]])
    np.testing.assert_array_equal(grid.draws[0], np.array([[np.nan, 0.22], [0.11, 0.33]], np.float32))
    assert grid.draws.shape == (500, 2, 2) and list(grid.complete) == [False, True]


def test_parts(grid: Grid) -> None:
    part = grid.take(backbones=np.array([False, True]), settings=np.array([False, True]))
    assert part.backbones == ("b",) and list(part.settings.index) == ["y/linear"]
    assert part.scores.tolist() == [[0.3]] and part.draws.shape == (500, 1, 1)
    assert grid.take(settings=np.array([True, False])).backbones == ("a", "b")
