"""The numbers behind the charts, held against cases worked by hand and against scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bob.report.chart_data import (
    best_curves,
    best_models,
    cost_points,
    depth_rows,
    factor_rows,
    facts,
    group_spans,
    likeness,
    named_points,
    rank_rows,
)
from bob.report.labels import SIDES, label_sides
from bob.report.looks import LOOKS, colour_scale, decade_ticks, log_range, staircase
from bob.results.index import records_of
from bob.results.protocols import is_layerwise
from bob.standings.cells import Cells
from bob.standings.grid import Grid
from bob.standings.standings import by_task

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def table() -> pd.DataFrame:
    columns = {"rank": [1, 2, 3, np.nan], "rank_low": [1, 1, 3, np.nan], "rank_high": [2, 2, 3, np.nan]}
    z = [0.9, 0.5, 0.1, np.nan]
    bounds = {"mean_z_low": np.array(z) - 0.1, "mean_z_high": np.array(z) + 0.1}
    return pd.DataFrame({**columns, "group": [1, 1, 2, np.nan], "backbone": NAMES, "mean_z": z, **bounds})


@pytest.fixture
def known() -> pd.DataFrame:
    values = {
        "paradigm": ["ssl", "vlm", "strange", "ssl"],
        "parameters": [30e6, 20e6, 25e6, 1e6],
        "images_per_second": [10.0, np.nan, 40.0, 50.0],
        "flops": [3e9, 2e9, 2e9, 1e9],
    }
    return pd.DataFrame(values, index=NAMES)


def test_ranks(table: pd.DataFrame, known: pd.DataFrame) -> None:
    rows = rank_rows(table, known)
    assert list(rows["backbone"]) == ["a", "b", "c"]
    assert list(rows["paradigm"]) == ["ssl", "vlm", "unknown"]
    assert len(rank_rows(table, known, most=2)) == 2
    assert group_spans(rows) == [(0, 1, 1), (2, 2, 2)]
    assert group_spans(rows.assign(group=[1, 2, 1])) == [(0, 0, 1), (1, 1, 2), (2, 2, 1)]


def test_front_by_hand(table: pd.DataFrame, known: pd.DataFrame) -> None:
    points = cost_points(table, known, "parameters")
    assert list(points["backbone"]) == ["b", "c", "a"]  # cheap ones first; d has no score
    assert list(points["front"]) == [True, False, True]  # c costs more than b and is worse
    assert staircase(points, "parameters") == ([20, 30, 30], [0.5, 0.5, 0.9])
    fast = cost_points(table, known, "images_per_second")
    assert list(fast["backbone"]) == ["a", "c"] and fast["front"].all()  # b's speed is not known
    assert staircase(fast, "images_per_second") == ([10, 10, 40], [0.9, 0.1, 0.1])


def test_facts(cells: Cells, runs: pd.DataFrame) -> None:
    slow = runs["backbone"] == "mae_vitb16"
    moved = runs.assign(device=runs["device"].where(~slow, "cpu"))
    own = facts(cells, moved)
    assert np.isnan(own.loc["mae_vitb16", "images_per_second"])  # on another device than most
    assert own.loc["convnext_base", ["paradigm", "parameters", "images_per_second"]].tolist() == [
        *("supervised", 88_600_000, 210.0)
    ]
    published = cells.table.assign(paradigm="ssl", architecture="x", parameters=5e6)
    published.loc[published["backbone"] == "midas_hybrid", "backbone"] = "printed"
    joined = facts(Cells(published, cells.draws, cells.independent), runs)
    assert joined.loc["printed", ["paradigm", "parameters"]].tolist() == ["ssl", 5e6]
    assert joined.loc["convnext_base", "paradigm"] == "supervised"


def test_likeness_is_spearmans(grid: Grid) -> None:
    found = likeness(grid)
    assert found is not None
    np.testing.assert_array_equal(found.spearman, found.spearman.T)
    np.testing.assert_array_equal(np.diag(found.spearman), 1)
    z = by_task(grid)[found.names]
    np.testing.assert_allclose(found.spearman, stats.spearmanr(z).statistic)
    assert (found.low <= found.spearman).all() and (found.spearman <= found.high).all()


def test_like_tasks_are_neighbours() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(30, 2))
    scores = np.column_stack([kinds[:, kind] + 0.1 * rng.normal(size=30) for kind in (0, 1, 0, 1, 0, 1)])
    found = likeness(_grid(scores))
    assert found is not None
    parity = [int(name[1:]) % 2 for name in found.names]
    assert parity in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


def test_nothing_to_correlate() -> None:
    rng = np.random.default_rng(0)
    assert likeness(_grid(rng.normal(size=(3, 4)))) is None  # three backbones
    assert likeness(_grid(rng.normal(size=(9, 1)))) is None  # one setting
    assert likeness(_grid(np.ones((9, 4)))) is None  # nobody differs


def test_curves(runs: pd.DataFrame) -> None:
    rows = depth_rows(runs)
    assert set(rows["backbone"]) == {"dinov2_vits14", "mae_vitb16"} and len(rows) == 14
    assert list(rows["block"].dropna().unique()) == list(range(6))
    first = best_curves(rows, 1)
    assert list(first["backbone"].unique()) == ["dinov2_vits14"]
    turned = best_curves(rows.assign(higher_is_better=False), 1)
    assert list(turned["backbone"].unique()) == ["mae_vitb16"]
    assert depth_rows(runs[~runs["protocol"].map(is_layerwise)]).empty


def test_factors(runs: pd.DataFrame, results: Path) -> None:
    rows = factor_rows(runs, results)
    assert rows is not None and set(rows["task"]) == {"objects_x"}
    [record] = records_of(results, runs[(runs["task"] == "objects_x") & (runs["backbone"] == "clip_vit_b16")])
    own = rows[rows["model"] == "clip_vit_b16"].set_index("factor")
    for said in record.breakdown["per_factor"]:
        assert own.loc[said["factor"], ["n", "error_ratio"]].tolist() == [said["n"], said["error_ratio"]]
    best = best_models(rows, 2)
    average = rows[rows["factor"] == "average"].set_index("model")["accuracy"]
    assert list(best["model"].unique()) == list(average.sort_values(ascending=False).index[:2])
    assert factor_rows(runs[runs["task"] != "objects_x"], results) is None


def test_names_do_not_cover_each_other() -> None:
    x, y = np.array([0.50, 0.51, 0.52, 0.99]), np.array([0.50, 0.52, 0.48, 0.98])
    names = ["convnext_base", "swinv2_base", "clip_vit_b16", "at_the_edge"]
    bars = np.column_stack([x, y - 0.05, x, y + 0.05])
    sides = label_sides(x, y, names, bars, (700, 400))
    assert len(set(sides[:3])) == 3 and set(sides) <= set(SIDES)
    assert SIDES[sides[3]][0] == -1  # to the left, for there is no room to the right


def test_a_name_keeps_off_the_front(table: pd.DataFrame, known: pd.DataFrame) -> None:
    points = cost_points(table, known, "parameters")
    ends = log_range(points["parameters"] / 1e6), (0.0, 1.0)
    free = label_sides(np.array([0.5]), np.array([0.5]), ["b"], np.empty((0, 4)), (700, 400))
    assert free == ["middle right"]
    named = named_points(points, "parameters", ends, (700, 400))
    assert list(named["backbone"]) == ["b", "c", "a"]
    assert named["side"].iloc[0] != "middle right"  # the staircase leaves there


def test_a_name_without_a_place_is_left_out() -> None:
    x = y = np.full(20, 0.5)
    sides = label_sides(x, y, ["convnext_base"] * 20, np.empty((0, 4)), (700, 400))
    assert 2 <= sum(side != "" for side in sides) <= len(SIDES)


def test_ticks() -> None:
    assert decade_ticks(8, 150) == [10, 20, 50, 100]
    assert decade_ticks(1, 1e6) == [1, 10, 100, 1000, 10000, 100000, 1000000]


def test_looks() -> None:
    looks = LOOKS.values()
    assert len({look.colour for look in looks}) == len({look.symbol for look in looks}) == len(LOOKS)
    assert len({look.marker for look in looks}) == len(LOOKS)
    scale = colour_scale()
    assert [scale[0][0], scale[-1][0]] == [0, 1] and len({colour for _, colour in scale}) == len(scale)


def _grid(scores: np.ndarray) -> Grid:
    """A grid of one setting a task, without draws."""
    names = [f"t{place}" for place in range(scores.shape[1])]
    settings = pd.DataFrame(
        {"category": "c", "task": names, "metric": "top1", "higher_is_better": True}, index=[f"{n}/p" for n in names]
    )
    backbones = tuple(f"b{place}" for place in range(len(scores)))
    return Grid(backbones, settings, scores.astype(float), np.empty((0, *scores.shape), np.float32))
