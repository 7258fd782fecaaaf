"""The page of results: one HTML file that asks for nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape
from importlib import resources

import numpy as np
import pandas as pd

from bob import __version__
from bob.extras import import_extra
from bob.report.chart import Chart
from bob.report.encode import as_json, compact
from bob.report.findings import Findings
from bob.report.payload import payload
from bob.report.words import footer, methods, summary

# In this order: each uses what those before it define.
_SCRIPTS = ("data", "theme", "columns", "cell", "table", "charts", "backbone", "main")


def plotly_script() -> str:
    """The library that draws the charts, as the installed package bundles it.

    Raises:
        UserError: If it is not installed; gives the command that installs it.
    """
    script: str = import_extra("plotly.offline", "report").get_plotlyjs()
    return script


def render(findings: Findings, charts: Sequence[Chart], library: str, title: str) -> str:
    """The page; the same findings, charts, library and bob give the same bytes.

    Args:
        findings: What it is about.
        charts: In the order of the page; none leaves their section out.
        library: Source of plotly.js; see `plotly_script`.
        title: Of the page.
    """
    scripts = [_inline("(() => {\n" + "\n".join(map(_page_script, _SCRIPTS)) + "})();")]
    if charts:
        scripts.append(_inline(library))  # last: the table does not wait for it
    parts = {
        "policy": escape(_security_policy(scripts), quote=True),
        "version": escape(__version__),
        "title": escape(title),
        "style": _asset("style.css"),
        "charts_link": '<a href="#charts">Charts</a>' if charts else "",
        "summary": summary(findings),
        "charts": _chart_section(charts) if charts else "",
        "methods": methods(findings.policy),
        "footer": escape(footer(findings, __version__)),
        "data": as_json(payload(findings)),
        "chart_data": "\n".join(map(_chart_data, charts)),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    # In one pass, so that nothing inside a part is taken for a place.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return resources.files("bob.report").joinpath("assets", name).read_text(encoding="utf-8")


def _page_script(name: str) -> str:
    return _asset(f"{name}.js")


def _inline(script: str) -> str:
    """A script that nothing in it can end early, with the line ends that a browser would read."""
    lines = script.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"</(script)", r"<\\/\1", lines, flags=re.IGNORECASE)


def _security_policy(scripts: Sequence[str]) -> str:
    """Nothing may be loaded, and no script run but these: by the hash of each."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _chart_section(charts: Sequence[Chart]) -> str:
    figures = "\n".join(map(_figure, charts))
    return (
        '<section id="charts" class="wrap" aria-labelledby="charts-title">\n'
        f'<h2 id="charts-title" tabindex="-1">Charts</h2>\n<div class="charts">\n{figures}\n</div>\n</section>'
    )


def _figure(chart: Chart) -> str:
    name, height = escape(chart.id, quote=True), int(chart.spec.get("layout", {}).get("height", 420))
    return (
        f'<figure data-chart="{name}" aria-labelledby="title-{name}"><h3 id="title-{name}">{escape(chart.title)}</h3>\n'
        f"<figcaption>{escape(chart.description)}</figcaption>\n"
        f'<div class="plot" style="height: {height}px"></div></figure>'
    )


def _chart_data(chart: Chart) -> str:
    name = escape(chart.id, quote=True)
    return (
        f'<script type="application/json" id="chart-{name}">{as_json(chart.spec)}</script>\n'
        f'<script type="application/json" id="table-{name}">{as_json(_table(chart.table))}</script>'
    )


def _table(table: pd.DataFrame) -> dict[str, object]:
    """A frame by rows, numbers with six digits."""
    numeric = [place for place, name in enumerate(table) if pd.api.types.is_numeric_dtype(table[name])]
    columns = [
        compact(table[name].astype(np.float64)) if place in numeric else table[name].fillna("").astype(str).tolist()
        for place, name in enumerate(table)
    ]
    return {"columns": list(map(str, table)), "rows": list(zip(*columns, strict=True)), "numeric": numeric}
