"""The page: one well-formed file that loads nothing, runs no script but its own, and is the same each time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from bob.errors import UserError
from bob.report.backbones import details_of
from bob.report.chart import Chart
from bob.report.findings import Findings
from bob.report.page import plotly_script, render
from bob.results.runs import select
from bob.standings.cells import Cells, cells_of
from bob.standings.grid import Grid
from bob.standings.policy import Policy
from bob.standings.standings import standings

LIBRARY = "window.Plotly = {}; // a library\r\n"
CHART = Chart(
    "one",
    "Ranks & <such>",
    "What it shows.",
    {"data": [{"type": "scatter", "x": [1], "text": ["</script>"]}], "layout": {"height": 300}},
    pd.DataFrame({"backbone": ["a", None], "rank": [1.0, float("nan")]}),
)
VOID = {"meta", "input", "br", "wbr", "img", "link", "hr"}


class Reader(HTMLParser):
    """Every element with its attributes, the text of scripts and of headings, and whether all that opens closes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.append((self._open[-1], data))

    def values(self, attribute: str) -> list[str]:
        return [found for _, attributes in self.elements if (found := attributes.get(attribute))]


@pytest.fixture
def findings(results: Path, runs: pd.DataFrame, cells: Cells, grid: Grid, ranking: pd.DataFrame) -> Findings:
    own = select(runs, [], [], [])
    return Findings(own, cells, grid, ranking, Policy(), details_of(results, own))


def test_well_formed(findings: Findings) -> None:
    read = Reader(render(findings, [CHART], LIBRARY, "A title"))
    ids = read.values("id")
    assert len(ids) == len(set(ids))
    late = {"cell-title"}  # made when the dialog opens
    for attribute in ("aria-labelledby", "for"):
        assert set(read.values(attribute)) <= {*ids, *late}
    assert {href[1:] for href in read.values("href")} <= set(ids)
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert [tag for tag, _ in read.elements if tag in ("header", "nav", "main", "footer")] == [
        "header", "nav", "main", "footer",
    ]  # fmt: skip
    assert ("html", {"lang": "en"}) in read.elements and ("title", "A title") in read.texts


def test_same_bytes(findings: Findings) -> None:
    pages = {
        render(replace(findings, runs=findings.runs.sample(frac=1, random_state=n)), [CHART], "", "t") for n in (0, 1)
    }
    assert len(pages) == 1
    newest = findings.runs["created"].max()[:10]
    assert f"from 48 records, the newest of {newest}." in pages.pop()


def test_loads_nothing(findings: Findings) -> None:
    page = render(findings, [CHART], LIBRARY, "t")
    read = Reader(page)
    assert read.values("src") == [] and all(href.startswith("#") for href in read.values("href"))
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in read.elements}
    assert "url(" not in page and "@import" not in page
    policy = next(said["content"] for _, said in read.elements if said.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert scripts[1] == "window.Plotly = {}; // a library\n" and len(scripts) == 2
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert policy.count("sha256-") == 2


def test_hostile_names(findings: Findings) -> None:
    name = "</script><script>alert(1)</script><!--"
    runs = findings.runs.assign(backbone=findings.runs["backbone"].replace("convnext_base", name))
    cells = cells_of(runs)
    grid = Grid.of(cells)
    hostile = replace(findings, runs=runs, cells=cells, grid=grid, standings=standings(grid), details={})
    page = render(hostile, [CHART], LIBRARY, "<img src=x onerror=alert(1)>{{data}}")
    read = Reader(page)
    assert [tag for tag, _ in read.elements].count("script") == 5 and "img" not in {tag for tag, _ in read.elements}
    assert "<script>alert" not in page and "<!--" not in page
    data = json.loads(next(text for tag, text in read.texts if tag == "script" and text.startswith('{"policy"')))
    assert name in data["backbones"]["name"]
    assert ("title", "<img src=x onerror=alert(1)>{{data}}") in read.texts


def test_scripts_write_no_markup() -> None:
    """Texts reach the page as text, and no script asks for anything."""
    sources = [path.read_text() for path in resources.files("bob.report").joinpath("assets").iterdir()]
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\bfetch\(|XMLHttpRequest|"
        r"WebSocket|sendBeacon|import\("
    )
    assert not any(forbidden.search(source) for source in sources)


def test_charts(findings: Findings) -> None:
    page = render(findings, [CHART], LIBRARY, "t")
    assert "Ranks &amp; &lt;such&gt;" in page and 'style="height: 300px"' in page
    table = re.search(r'id="table-one">(.*?)</script>', page)
    assert table and json.loads(table[1]) == {
        "columns": ["backbone", "rank"],
        "rows": [["a", 1], ["", None]],
        "numeric": [1],
    }
    without = render(findings, [], LIBRARY, "t")
    assert 'href="#charts"' not in without and "a library" not in without


def test_plotly() -> None:
    script = plotly_script()
    assert "plotly.js" in script[:200] and "</script" not in script.lower() and "\0" not in script


def test_plotly_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ModuleNotFoundError("No module named 'plotly'", name="plotly")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(UserError, match=r"plotly is not installed\. Run `pip install 'plotly>=5\.24'`"):
        plotly_script()
