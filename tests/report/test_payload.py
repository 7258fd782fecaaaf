"""The page's data: that it says what the frames say, command for command and rank for rank."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.report import views as views_module
from bob.report.backbones import details_of
from bob.report.encode import Numbered, as_json, compact
from bob.report.findings import Findings
from bob.report.payload import PLACE, payload
from bob.results.runs import select
from bob.standings.aggregate import without_gaps
from bob.standings.cells import Cells
from bob.standings.grid import Grid
from bob.standings.long_table import join, read_long_table
from bob.standings.policy import Policy
from bob.standings.standings import standings


@pytest.fixture
def findings(results: Path, runs: pd.DataFrame, cells: Cells, grid: Grid, ranking: pd.DataFrame) -> Findings:
    own = select(runs, [], [], [])
    return Findings(own, cells, grid, ranking, Policy(), details_of(results, own))


def found(findings: Findings) -> dict:
    """The payload as the page's script reads it."""
    return json.loads(as_json(payload(findings)))


def test_commands(findings: Findings) -> None:
    data = found(findings)
    rebuilt = [
        data["commands"][command].replace(PLACE, data["quoted"][backbone])
        for command, backbone in zip(data["runs"]["command"], data["runs"]["backbone"], strict=True)
    ]
    by_id = dict(zip(data["runs"]["run_id"], rebuilt, strict=True))
    assert by_id == dict(zip(findings.runs["run_id"], findings.runs["command"], strict=True)) and len(by_id) == 48
    assert len(data["commands"]) == 6  # one a setting


def test_notes(findings: Findings) -> None:
    noted = findings.runs.assign(notes=["few images", *[""] * (len(findings.runs) - 1)])
    data = found(replace(findings, runs=noted))
    said = [data["words"][number] for number in data["runs"]["notes"]]
    by_id = dict(zip(data["runs"]["run_id"], said, strict=True))
    assert by_id == dict(zip(noted["run_id"], noted["notes"], strict=True))


def test_cells(findings: Findings) -> None:
    data = found(findings)
    cells, table = data["cells"], findings.cells.table.set_index(["backbone", "setting"])
    assert len(cells["score"]) == len(table)
    for row, (backbone, setting) in enumerate(zip(cells["backbone"], cells["setting"], strict=True)):
        expected = table.loc[(data["backbones"]["name"][backbone], data["settings"]["name"][setting])]
        for name in ("score", "low", "high", "n"):
            assert math.isclose(cells[name][row], expected[name], rel_tol=1e-5)
    environments = [data["environments"][number] for number in data["runs"]["environment"]]
    assert all(said["bob"] == "0.1" for said in environments) and len(data["environments"]) == 1
    named = dict(zip(data["backbones"]["name"], data["backbones"]["paradigm"], strict=True))
    assert data["paradigms"][named["dinov2_vits14"]]["name"] == "ssl"
    assert [(said["name"], said["count"]) for said in data["paradigms"]][:2] == [("supervised", 2), ("ssl", 2)]


def test_views(findings: Findings) -> None:
    data = found(findings)
    kinds = [(view["kind"], view["label"]) for view in data["views"]]
    assert kinds[:4] == [
        ("overall", "All settings"),
        *(("category", name) for name in ("classification", "factors", "ood")),
    ]
    assert ("task", "birds") in kinds and ("task", "textures") not in kinds  # one setting, which has a view of its own
    assert [kind for kind, _ in kinds].count("setting") == 6
    names = data["backbones"]["name"]
    for view, mask in (
        (data["views"][0], np.ones(6, bool)),
        (data["views"][1], findings.grid.settings["category"] == "classification"),
    ):
        expected = standings(findings.grid.take(settings=np.asarray(mask)))
        assert [names[number] for number in view["backbone"]] == list(expected["backbone"])
        for name in ("rank", "rank_low", "rank_high", "group", "mean_z", "win_rate"):
            np.testing.assert_allclose(view[name], expected[name], rtol=1e-5)
    assert not any(view["note"] for view in data["views"])


def test_too_many_pairs(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found(findings)["views"]
    monkeypatch.setattr(views_module, "MOST_PAIRS", 0)
    first, *rest = found(findings)["views"]
    assert first["rank_low"] is not None and first["note"] == ""
    assert all(view["rank_low"] is None and view["note"].startswith("Rank intervals were left out") for view in rest)
    assert [view["rank"] for view in rest] == [view["rank"] for view in whole[1:]]


@pytest.mark.parametrize(("missing", "settings", "ranked"), [("show", 6, 7), ("common", 5, 8), ("drop", 6, 7)])
def test_gaps(findings: Findings, missing: str, settings: int, ranked: int) -> None:
    lacking = (findings.cells.table["backbone"] == "mae_vitb16") & (findings.cells.table["setting"] == "birds/knn")
    kept = (~lacking).to_numpy()
    cells = Cells(
        findings.cells.table[kept].reset_index(drop=True), findings.cells.draws[kept], findings.cells.independent[kept]
    )
    grid = without_gaps(Grid.of(cells), missing)
    data = found(replace(findings, cells=cells, grid=grid, standings=standings(grid), policy=Policy(missing=missing)))
    first = data["views"][0]
    assert len(first["settings"]) == settings and first["ranked"] == ranked
    if missing == "show":
        assert first["rank"][-1] is None and first["settings_run"][-1] == 5
    knn = data["settings"]["name"].index("birds/knn")
    assert [view for view in data["views"] if view["settings"] == [knn]] or missing == "common"
    assert data["cells"]["setting"].count(knn) == 7  # what is not counted is still told


def test_published(findings: Findings, tmp_path: Path) -> None:
    path = tmp_path / "there.csv"
    path.write_text(
        "backbone,task,dataset,setting,metric,value,paradigm,parameters,source\n"
        "theirs,classification,birds,linear,top1,0.5,vlm,3000000,https://example.org/paper\n"
    )
    cells = join(findings.cells, read_long_table(path)[0])
    grid = Grid.of(cells)
    data = found(replace(findings, cells=cells, grid=grid, standings=standings(grid)))
    number = data["backbones"]["name"].index("theirs")
    cell = data["cells"]["backbone"].index(number)
    assert data["sources"][data["cells"]["source"][cell]] == "https://example.org/paper"
    assert data["cells"]["low"][cell] is None and number not in data["runs"]["backbone"]
    assert data["cards"][number] is None and data["sheets"][number] is None
    assert data["paradigms"][data["backbones"]["paradigm"][number]]["name"] == "vlm"
    assert data["backbones"]["parameters"][number] == 3_000_000
    shared = next(view for view in data["views"] if view["label"] == "birds/linear")
    assert number in shared["backbone"] and shared["rank_low"] is None  # no rank is sure against what is not known
    assert data["views"][0]["rank"][-1] is None and data["views"][0]["rank_low"][0] == 1


def test_numbers() -> None:
    assert compact([1.0, 0.123456789, float("nan"), float("inf"), -0.0]) == [1, 0.123457, None, None, 0]
    words = Numbered()
    assert words.numbers(["a", None, "b", "a", float("nan")]) == [0, 1, 2, 0, 1] and words.texts == ["a", "", "b"]


def test_json_in_html() -> None:
    text = as_json({"a": "</script><!--<script>", "b": "\0 é"})
    assert "<" not in text and json.loads(text) == {"a": "</script><!--<script>", "b": "\0 é"}
    with pytest.raises(ValueError, match="Out of range float"):
        as_json(float("nan"))
