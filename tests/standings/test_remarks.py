"""What is said beside a table: each line when it applies, and only then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from bob.results.record import Record
from bob.results.runs import tidy
from bob.standings.aggregate import without_gaps
from bob.standings.cells import cells_of
from bob.standings.grid import Grid
from bob.standings.remarks import about_costs, about_draws, about_filters, about_gaps, about_ranks, about_stale

Make = Callable[..., Record]


def test_ranks() -> None:
    sure = pd.DataFrame({"rank": [1.0, 2.0], "rank_low": [1.0, 1.0]})
    unsure, unranked = sure.assign(rank_low=np.nan), sure.assign(rank=np.nan, rank_low=np.nan)
    [line] = about_ranks([unsure, sure], "mean_rank", "tasks")
    assert line.startswith("Ranked by mean rank over tasks. 95%: ")
    assert about_ranks([unsure], "mean_z", "settings") == [
        "Ranked by mean z over settings. No rank has an interval: of some score it is not known how sure it is."
    ]
    assert about_ranks([unranked], "mean_z", "settings") == ["Ranked by mean z over settings."]
    assert about_ranks([sure], "borda", "tasks", "flops")[1] == (
        "Pareto: * where no other is at least as good in both borda and FLOPs, and better in one."
    )


def test_gaps(make_record: Make) -> None:
    records = [make_record(n, task=t) for n, t in (("a", "t"), ("a", "u"), ("b", "t"), ("c", "t"), ("c", "u"))]
    grid = Grid.of(cells_of(tidy(records)))
    said = {missing: about_gaps(grid, without_gaps(grid, missing)) for missing in ("show", "common", "drop")}
    assert said["show"][0].startswith("1 of 3 backbones lack a setting: they have no rank") and len(said["show"]) == 2
    assert said["common"] == ["1 of 2 settings that not all backbones have are left out."]
    assert said["drop"] == ["1 of 3 backbones lack a setting and are left out."]
    whole = grid.take(backbones=grid.complete)
    assert about_gaps(whole, whole) == []


def test_draws(make_record: Make) -> None:
    cells = cells_of(tidy([make_record("a", draws=np.full(500, 0.5)), make_record("b")]))
    assert about_draws(cells) == [
        "1 of 2 scores are of older records: their differences are taken as unpaired, and less sure."
    ]
    assert about_draws(replace(cells, independent=np.zeros(2, dtype=bool))) == []


def test_costs(make_record: Make) -> None:
    runs = tidy([make_record("a", environment={"device": "cpu"}), make_record("b", environment={"device": "mps"})])
    assert about_costs(runs, hours=False) == ["Rates, memory and hours were measured on several devices: cpu, mps."]
    assert [line.split()[0] for line in about_costs(runs, hours=True)] == ["Hours", "Rates,"]
    assert about_costs(runs[:1], hours=False) == []


def test_filters_count_layerwise_runs_where_they_were_asked_for(make_record: Make) -> None:
    runs = tidy([make_record(n, protocol=p) for n in "ab" for p in ("knn", "linear", "knn@block1", "knn@block2")])
    plain = runs[runs["protocol"] == "knn"]
    assert about_filters(runs, plain) == "The filters leave 2 of 2 backbones and 1 of 2 settings."
    block = runs[(runs["protocol"] == "knn@block1") & (runs["backbone"] == "a")]
    assert about_filters(runs, block) == "The filters leave 1 of 2 backbones and 1 of 3 settings."


def test_stale(make_record: Make) -> None:
    runs = tidy([make_record(n) for n in "abc"])
    assert about_stale(runs, runs) == []
    assert about_stale(runs, runs[:1]) == [
        "2 runs on other weights, data or protocol versions than the newest are left out."
    ]
