"""The report's charts: plotly takes them, they hold the numbers they say, and what has no data is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bob.report.chart import short
from bob.report.chart_data import factor_rows
from bob.report.figures import Chart, plotly_figures
from bob.results.protocols import is_layerwise
from bob.standings.cells import Cells
from bob.standings.grid import Grid
from bob.standings.standings import standings

KINDS = ["ranks", "correlation", "cost-parameters", "cost-images-per-second", "cost-flops", "depth-1", "factors-1"]


@pytest.fixture
def charts(ranking: pd.DataFrame, cells: Cells, grid: Grid, runs: pd.DataFrame, results: Path) -> dict[str, Chart]:
    made = plotly_figures(ranking, cells, grid, runs, factors=factor_rows(runs, results))
    return {chart.id: chart for chart in made}


def test_all_charts(charts: dict[str, Chart]) -> None:
    assert list(charts) == KINDS
    for chart in charts.values():
        assert re.fullmatch(r"[a-z][a-z0-9-]*", chart.id) and chart.title
        assert chart.description.endswith(".") and "nan" not in chart.description
        assert len(chart.table)


@pytest.mark.parametrize("kind", KINDS)
def test_plotly_takes_it(charts: dict[str, Chart], kind: str) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects", reason="the extra `report` is not installed")
    graph_objects.Figure(charts[kind].spec)  # raises on anything that plotly does not know
    json.dumps(charts[kind].spec, allow_nan=False)


@pytest.mark.parametrize("kind", KINDS)
def test_colours_of_text_and_grid_are_left_to_the_page(charts: dict[str, Chart], kind: str) -> None:
    layout = charts[kind].spec["layout"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0, 0, 0, 0)"
    assert layout["font"] == {"family": "inherit", "size": 12}
    assert "width" not in layout and layout["height"] > 200 and "template" not in layout
    assert not {"gridcolor", "color", "tickfont"} & {*layout["xaxis"], *layout["yaxis"]}


def test_ranks(charts: dict[str, Chart], ranking: pd.DataFrame) -> None:
    chart = charts["ranks"]
    points = _points(chart)
    expected = ranking.set_index("backbone")
    assert list(points) == list(expected.index)
    for name, (rank, place, trace, index) in points.items():
        assert rank == expected.loc[name, "rank"] and ranking["backbone"].iloc[place] == name
        reach = trace["error_x"]
        assert rank - reach["arrayminus"][index] == expected.loc[name, "rank_low"]
        assert rank + reach["array"][index] == expected.loc[name, "rank_high"]
    numbers = [note["text"] for note in chart.spec["layout"]["annotations"]]
    assert numbers[:-1] == [f"{group:g}" for group in ranking["group"].unique()] and numbers[-1] == "group"
    assert chart.description.startswith("convnext_base is first of 8 backbones, with ranks 1 to")


def test_many_backbones() -> None:
    rng = np.random.default_rng(0)
    grid = _grid(rng.normal(size=(1000, 3)))
    runs = _runs(grid.backbones, rng)
    table = standings(grid)
    charts = {chart.id: chart for chart in plotly_figures(table, _cells(grid), grid, runs)}
    assert charts["ranks"].title == "Ranks: the first 50 of 1,000"
    assert list(_points(charts["ranks"])) == list(table["backbone"][:50])
    cost = charts["cost-parameters"]
    assert len(_points(cost)) == 1000
    assert all("error_y" not in trace for trace in cost.spec["data"])
    [names] = [trace for trace in cost.spec["data"] if trace.get("meta") == "labels"]
    assert set(names["text"]) <= set(cost.table.loc[cost.table["Pareto front"] == "yes", "backbone"])
    assert len(json.dumps(cost.spec)) < 200_000


def test_cost(charts: dict[str, Chart], ranking: pd.DataFrame) -> None:
    z = ranking.set_index("backbone")["mean_z"]
    points = _points(charts["cost-parameters"])
    assert points["dinov2_vits14"][:2] == (22.1, float(f"{z['dinov2_vits14']:.6g}"))
    assert _points(charts["cost-flops"])["dinov2_vits14"][0] == pytest.approx(4.641)
    assert _points(charts["cost-images-per-second"])["dinov2_vits14"][0] == 620
    front = charts["cost-images-per-second"].spec["data"][0]
    assert front["name"] == "Pareto front" and front["y"] == sorted(front["y"], reverse=True)
    assert set(front["y"]) <= {float(f"{value:.6g}") for value in z}


def test_correlation(charts: dict[str, Chart]) -> None:
    chart = charts["correlation"]
    [heat] = chart.spec["data"]
    names = chart.spec["layout"]["xaxis"]["ticktext"]
    for pair in chart.table.to_dict("records"):
        row, column = names.index(pair["first"]), names.index(pair["second"])
        assert heat["z"][row][column] == heat["z"][column][row] == pytest.approx(pair["spearman"], abs=1e-5)
        assert f"[{pair['from']:.2f}, {pair['to']:.2f}]" in heat["text"][row][column]
    assert [heat["z"][place][place] for place in range(5)] == [None] * 5
    assert heat["texttemplate"] and (heat["zmin"], heat["zmax"]) == (-1, 1)


def test_curves(charts: dict[str, Chart]) -> None:
    chart = charts["depth-1"]
    lines = [trace for trace in chart.spec["data"] if trace["mode"] == "lines+markers"]
    assert [line["name"] for line in lines] == ["dinov2_vits14", "mae_vitb16"]
    assert lines[0]["x"] == pytest.approx([place / 6 for place in range(1, 7)], abs=1e-5)
    hollow = [trace for trace in chart.spec["data"] if str(trace.get("marker", {}).get("symbol")).endswith("-open")]
    assert [trace["x"] for trace in hollow] == [[1.0], [1.0]]
    assert chart.title == "Along the blocks: birds/knn"


def test_factors(charts: dict[str, Chart]) -> None:
    chart = charts["factors-1"]
    assert chart.title == "Errors by factor: objects_x/linear, the best 6 of 8" and len(chart.spec["data"]) == 6
    first = chart.spec["data"][0]
    own = chart.table[(chart.table["model"] == first["name"]) & (chart.table["factor"] != "average")]
    assert first["x"] == pytest.approx(list(own["error_ratio"]), rel=1e-5)


def test_what_has_no_data_is_left_out(ranking: pd.DataFrame, cells: Cells, grid: Grid, runs: pd.DataFrame) -> None:
    plain = runs[~runs["protocol"].map(is_layerwise)]
    assert [chart.id for chart in plotly_figures(ranking, cells, grid, plain)] == KINDS[:5]
    unranked = ranking.assign(rank=np.nan, mean_z=np.nan)
    assert [chart.id for chart in plotly_figures(unranked, cells, grid, plain)] == ["correlation"]
    one = grid.take(settings=np.arange(len(grid.settings)) == 0)
    assert "correlation" not in {chart.id for chart in plotly_figures(standings(one), cells, one, plain)}


def test_unknown_intervals(ranking: pd.DataFrame, cells: Cells, grid: Grid, runs: pd.DataFrame) -> None:
    unsure = ranking.assign(**dict.fromkeys(["rank_low", "rank_high", "group", "mean_z_low", "mean_z_high"], np.nan))
    charts = {chart.id: chart for chart in plotly_figures(unsure, cells, grid, runs)}
    assert charts["ranks"].spec["layout"]["annotations"] == [] and charts["ranks"].spec["layout"]["shapes"] == []
    assert charts["ranks"].description == "convnext_base is first of 8 backbones."
    assert "nan" not in json.dumps([chart.spec for chart in charts.values()], allow_nan=False)


def _points(chart: Chart) -> dict[str, tuple[float, float, dict[str, Any], int]]:
    """Name -> x, y, its trace and its place there; in the order of y from the top for ranks."""
    traces = [trace for trace in chart.spec["data"] if trace["mode"] == "markers"]
    rows = [
        (name, (x, y, trace, index))
        for trace in traces
        for index, (name, x, y) in enumerate(zip(trace["text"], trace["x"], trace["y"], strict=True))
    ]
    return dict(sorted(rows, key=lambda row: row[1][1]))


def _grid(scores: np.ndarray) -> Grid:
    names = [f"t{place}" for place in range(scores.shape[1])]
    columns = {"category": "c", "task": names, "metric": "top1", "higher_is_better": True}
    draws = scores + np.random.default_rng(1).normal(scale=0.1, size=(50, *scores.shape))
    backbones = tuple(f"backbone_{place:04d}" for place in range(len(scores)))
    return Grid(backbones, pd.DataFrame(columns, index=[f"{name}/p" for name in names]), scores, draws.astype("f4"))


def _cells(grid: Grid) -> Cells:
    """Cells without what published tables say of backbones, which is all that charts ask of them."""
    table = pd.DataFrame({"backbone": grid.backbones})
    return Cells(table, np.empty((len(table), 0), np.float32), np.zeros(len(table), bool))


def _runs(backbones: tuple[str, ...], rng: np.random.Generator) -> pd.DataFrame:
    parameters = 10 ** rng.uniform(6, 9, len(backbones))
    common: dict[str, object] = {
        "protocol": "p",
        "category": "c",
        "architecture": "x",
        "created": "",
        "run_id": "",
        "device": "cpu",
    }
    common["pretraining_images"] = np.nan
    costs = {"flops": 2 * parameters, "images_per_second": 1e9 / parameters, "peak_memory_bytes": 1, "seconds": 1.0}
    paradigm = np.resize(["ssl", "supervised", "vlm"], len(backbones))
    return pd.DataFrame({"backbone": backbones, "paradigm": paradigm, "parameters": parameters, **common, **costs})


def test_long_names_are_cut_in_the_middle() -> None:
    assert short("a" * 20 + "b" * 20, 11) == "aaaaa…bbbbb" and short("convnext_base") == "convnext_base"
