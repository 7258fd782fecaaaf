"""Whether the page of very many results is quick in a browser: `python scripts/bench/report.py`, see --help.

Makes the report of so many backbones and tasks out of runs that never were, as `bob report` does, and opens it in
Chromium from the disk. Prints the file's size; over several openings, the time until the table is drawn; over several
repeats, the time from a click (or a letter typed) until its frame is on the screen; tasks of the main thread that took
longer than 50 ms; and the memory of JavaScript. --trace keeps a trace for ui.perfetto.dev
(or chrome://tracing), compressed if its name ends in .gz.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from playwright.sync_api import Browser, Page, sync_playwright

from bob.console import print_lines, print_table
from bob.report.backbones import Details
from bob.report.figures import plotly_figures
from bob.report.findings import Findings
from bob.report.page import plotly_script, render
from bob.results.draws import KEPT_RESAMPLES
from bob.results.runs import SCHEMA
from bob.standings.cells import cells_of
from bob.standings.grid import Grid
from bob.standings.policy import Policy
from bob.standings.standings import standings

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PARADIGMS = ("supervised", "ssl", "vlm", "generative", "depth", "baseline")
_CATEGORIES = ("classification", "detection", "segmentation", "retrieval", "ood")
_SAMPLES = 2000  # of each test split
# What a trace keeps: without the rest it is small enough to send.
_TRACED = ("-*", "devtools.timeline", "blink.user_timing")
_MAIN_THREAD = "CrRendererMain"
_KINDS = {
    "scripts": ("EvaluateScript", "EventDispatch"),
    "style": ("UpdateLayoutTree",),
    "layout": ("Layout",),
    "paint": ("PrePaint", "Paint", "Layerize", "Commit"),
}
# Set before the page's own scripts: when the first rows are on the screen, and every long task.
_WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => list.getEntries().forEach((entry) => longTasks.push(entry.duration)))
  .observe({ type: "longtask", buffered: true });
requestAnimationFrame(function look() {
  if (document.querySelector("#table tbody tr")) requestAnimationFrame(() => { window.ready = performance.now(); });
  else requestAnimationFrame(look);
});
"""
# Until the frame after the act has been drawn: a message posted in a frame arrives when that frame is done.
_ACT = """async ([selector, act]) => {
  const target = document.querySelector(selector);
  const start = performance.now();
  if (act === "click") target.click();
  else { target.value = act; target.dispatchEvent(new Event("input", { bubbles: true })); }
  await new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(null);
  }));
  return performance.now() - start;
}"""


@dataclass
class Times:
    """Milliseconds of one thing, over its repeats."""

    what: str
    values: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        """As the table has it."""
        return [self.what, str(len(self.values)), f"{median(self.values):.0f}", f"{max(self.values):.0f}"]


def main() -> None:
    """Make the page, open it, use it, print what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--openings", type=int, default=5)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="leave the page there")
    parser.add_argument("--reuse", type=Path, metavar="FILE", help="use a page that --keep left")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="leave a trace of the last opening and use")
    given = parser.parse_args()
    path = next(filter(None, map(shutil.which, _BROWSERS)), None) or parser.error("no browser: scripts/install-browser")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        page = given.reuse or given.keep or Path(temporary) / "report.html"
        if not given.reuse:
            write_page(page, given.backbones, given.tasks)
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has none; the page is our own
        browser = driver.chromium.launch(executable_path=path, args=flags)
        print_lines([f"Chromium {browser.version}, {os.cpu_count()} cores, page of {page.stat().st_size / 1e6:.1f} MB"])
        measure(browser, page.resolve().as_uri(), given)
        browser.close()


def write_page(path: Path, backbones: int, tasks: int) -> None:
    """Write the report of runs out of thin air, and say how long each step took."""
    runs = make_runs(backbones, tasks)
    steps = [time.perf_counter()]
    cells = cells_of(runs)
    grid = Grid.of(cells)
    table = standings(grid)
    steps.append(time.perf_counter())
    charts = plotly_figures(table, cells, grid, runs)
    steps.append(time.perf_counter())
    fields = [("Source of weights", "timm"), ("Model", "vit_base_patch16_224"), ("Licence", "Apache-2.0")]
    details = {name: Details(fields, [], []) for name in grid.backbones}
    findings = Findings(runs, cells, grid, table, Policy(), details)
    path.write_text(render(findings, charts, plotly_script(), "Benchmark"), encoding="utf-8")
    steps.append(time.perf_counter())
    ranked, drawn, rendered = np.diff(steps)
    print_lines([f"{len(runs):,} runs: ranked in {ranked:.1f} s, charts in {drawn:.1f} s, page in {rendered:.1f} s"])


def make_runs(backbones: int, tasks: int, seed: int = 0) -> pd.DataFrame:
    """One run of each backbone on each task, whose scores move together over resamples of the test images."""
    rng = np.random.default_rng(seed)
    ability, shared = rng.normal(size=backbones), rng.normal(size=(tasks, KEPT_RESAMPLES))
    environment = json.dumps({"bob": "0.1.0", "device": "cpu", "packages": {"torch": "2.9.0", "timm": "1.0.22"}})
    rows = []
    for backbone in range(backbones):
        paradigm = _PARADIGMS[backbone % len(_PARADIGMS)]
        name, parameters = f"{paradigm}_backbone_{backbone:04d}", int(10 ** rng.uniform(6.5, 9))
        for task in range(tasks):
            score = 1 / (1 + np.exp(-0.5 * ability[backbone] - rng.normal(scale=0.3) - 0.8))
            error = np.sqrt(score * (1 - score) / _SAMPLES)
            draws = score + error * (0.9 * shared[task] + 0.45 * rng.normal(size=KEPT_RESAMPLES))
            rows.append(
                {
                    "backbone": name,
                    "paradigm": paradigm,
                    "method": paradigm,
                    "architecture": f"ViT-{'SBL'[backbone % 3]}/16",
                    "category": _CATEGORIES[task % len(_CATEGORIES)],
                    "task": f"task_{task:03d}",
                    "protocol": "linear",
                    "seed": 0,
                    "metric": "top1",
                    "higher_is_better": True,
                    **{"score": score, "low": score - 1.96 * error, "high": score + 1.96 * error, "n": _SAMPLES},
                    **{"parameters": parameters, "flops": 200 * parameters, "images_per_second": 3e10 / parameters},
                    **{"peak_memory_bytes": 10**9, "seconds": 60.0, "device": "cpu", "precision": "float32"},
                    **{"created": "2026-01-01T00:00:00.000+00:00", "run_id": f"{backbone:08x}{task:08x}", "bob": "0.1"},
                    "folder": f"{name}__{task}",
                    "environment": environment,
                    "command": f"bob run --backbone {name} --task task_{task:03d} --protocol linear --seed 0",
                    **{"backbone_identity": name, "setting_identity": str(task)},
                    "resampled": draws.astype("<f4").tobytes(),
                }
            )
    return pd.DataFrame(rows, columns=SCHEMA.names)


def measure(browser: Browser, address: str, given: argparse.Namespace) -> None:
    """Open the page several times, use the last one, and print what that took."""
    opened, loaded = Times("open, until the table is drawn"), Times("open, until the charts can be drawn")
    long_tasks: list[float] = []
    for number in range(given.openings):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(_WATCH)
        if given.trace and number == given.openings - 1:
            browser.start_tracing(page=page, categories=list(_TRACED))
        page.goto(address)
        page.wait_for_function("window.ready")
        opened.values.append(page.evaluate("window.ready"))
        page.wait_for_function("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
        loaded.values.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        long_tasks.append(page.evaluate("Math.max(0, ...longTasks.splice(0))"))
        if number < given.openings - 1:
            page.close()
    heap = _heap(page)
    rows = [opened.row(), loaded.row(), *(times.row() for times in use(page, given.repeats))]
    page.wait_for_timeout(200)  # long tasks are reported a little later
    longer = page.evaluate("longTasks")
    if given.trace:
        _write_trace(browser.stop_tracing(), given.trace)
    print_table(["what", "repeats", "median ms", "worst ms"], rows, numeric_from=1)
    worst = f", the longest {max(longer):.0f} ms" if longer else ""
    print_lines(
        [
            f"Longest task while opening: median {median(long_tasks):.0f} ms. While in use: {len(longer)} of more than "
            f"50 ms{worst}.",
            f"Memory of JavaScript: {heap:.0f} MB after opening, {_heap(page):.0f} MB after use.",
            *([f"Trace: {given.trace} ({given.trace.stat().st_size / 1e6:.1f} MB)"] if given.trace else []),
        ]
    )


def use(page: Page, repeats: int) -> list[Times]:
    """Sort, filter, change the view, draw a chart, look at a backbone and come back."""
    views = page.locator("#view option").evaluate_all("all => all.map((option) => option.value)")
    acts = {
        "sort by name": ("[data-sort=backbone]", ("click",)),
        "sort by mean z": ("[data-sort=mean_z]", ("click",)),
        "sort by parameters": ("[data-sort=parameters]", ("click",)),
        "sort by rank": ("[data-sort=rank]", ("click",)),
        "filter by text": ("#search", ("s", "ss", "ssl", "")),
        "filter by paradigm": ("#paradigms input", ("click",)),
        "next settings": ("#later", ("click",)),
        "previous settings": ("#earlier", ("click",)),
        "change the view": ("#view", (views[1], views[len(views) // 2], views[-1], views[0])),
    }
    alone = Times("a frame in which nothing happens", [page.evaluate(_ACT, ["body", "click"]) for _ in range(repeats)])
    found = [alone, _visit(page, repeats)]
    for what, (selector, values) in acts.items():
        times = Times(what)
        for number in range(repeats):
            times.values.append(page.evaluate(_ACT, [selector, values[number % len(values)]]))
        found.append(times)
    return found


def _visit(page: Page, repeats: int) -> Times:
    """Time until the page of a backbone is drawn, of one with as many runs as there are tasks."""
    times = Times("open a backbone's page")
    for number in range(repeats):
        times.values.append(page.evaluate(_ACT, [f"#table tbody tr:nth-child({number + 1}) a", "click"]))
        page.go_back()
        page.locator("#standings").wait_for()
    return times


def _write_trace(trace: bytes, path: Path) -> None:
    """Write a trace, compressed if its name says so, and print what the page's main thread was busy with."""
    path.write_bytes(gzip.compress(trace, mtime=0) if path.suffix == ".gz" else trace)
    events = json.loads(trace)["traceEvents"]
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == "thread_name"}
    own = [event for event in events if event["ph"] == "X" and names.get((event["pid"], event["tid"])) == _MAIN_THREAD]
    listed = []
    for kind, members in _KINDS.items():
        spent = sum(event.get("dur", 0) for event in own if event["name"] in members)
        listed.append(f"{kind} {spent / 1e6:.1f} s")
    print_lines([f"Main thread over the trace: {', '.join(listed)}."])


def _heap(page: Page) -> float:
    """Megabytes of JavaScript's objects that are still needed."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics: dict[str, Any] = {
        each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]
    }
    session.detach()
    return float(metrics["JSHeapUsedSize"]) / 1e6


if __name__ == "__main__":
    main()
