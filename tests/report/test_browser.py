"""The report in a browser: it opens alone, sorts, filters and shows what is behind a score, for everyone."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bob.report_command import report
from bob.standings.grid import Grid
from bob.standings.standings import standings

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
pytest.importorskip("plotly", reason="plotly is not installed (extra `report`)")
NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
LOCAL = ("file:", "data:", "blob:")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium of the distribution; without one the tests are skipped, unless BOB_REQUIRE_BROWSER=1 forbids that."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = f"none of {', '.join(NAMES)} is installed; scripts/install-browser does that"
        (pytest.fail if os.environ.get("BOB_REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    with playwright.sync_playwright() as driver:
        # Root has no sandbox of Chromium's; the page is our own.
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def written(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report as the command writes it."""
    folder = tmp_path_factory.mktemp("report")
    pixels = np.random.default_rng(0).integers(0, 255, (120, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "check-convnext_base.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOB_HOME", str(folder / "home"))
        report(results=results, sheets=folder, out=folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def visit(browser: Any, written: Path) -> Iterator[Callable[..., Any]]:
    """Open the report in a page of its own; at the end, nothing was complained about and nothing was fetched."""
    contexts, complaints, fetched = [], [], []

    def open_page(size: dict[str, int] = DESK, scheme: str = "light", fragment: str = "") -> Any:
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, offline=True, reduced_motion="reduce"))
        contexts[-1].set_default_timeout(10_000)
        page = contexts[-1].new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(f"{written.as_uri()}{fragment}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in fetched if not url.startswith(LOCAL)] == []


@pytest.fixture
def page(visit: Callable[..., Any]) -> Any:
    return visit()


def test_all_charts_are_drawn(page: Any) -> None:
    drawn = _draw_charts(page)
    assert drawn == [
        *("ranks", "correlation", "cost-parameters", "cost-images-per-second", "cost-flops", "depth-1", "factors-1")
    ]


def test_first_order_is_the_ranking(page: Any, ranking: pd.DataFrame) -> None:
    assert _names(page) == list(ranking["backbone"])
    assert _sorted_columns(page) == [("Rank", "ascending")]


@pytest.mark.parametrize("keys", [(), ("Enter", "Space")], ids=["click", "keyboard"])
def test_sorts(page: Any, grid: Grid, keys: tuple[str, ...]) -> None:
    scores = grid.scores[:, list(grid.settings.index).index("textures/linear")]
    best_first = [grid.backbones[place] for place in np.argsort(-scores, kind="stable")]
    _choose(page, "classification")
    _press(page, "textures", keys[:1])
    assert _names(page) == best_first
    assert _sorted_columns(page) == [("textures", "descending")]
    _press(page, "textures", keys[1:])
    assert _names(page) == best_first[::-1]
    assert _sorted_columns(page) == [("textures", "ascending")]
    _press(page, "Backbone", keys[:1])
    assert _names(page) == sorted(grid.backbones)


def test_keyboard_stays_where_it_was(page: Any) -> None:
    _press(page, "Parameters", ("Enter",))
    assert page.evaluate("document.activeElement.innerText").startswith("Parameters")
    page.keyboard.press("Tab")  # the next header, not the start of the page
    assert page.evaluate("document.activeElement.closest('thead') !== null")


def test_filters(page: Any, ranking: pd.DataFrame) -> None:
    page.get_by_label("Backbone contains").fill("VIT")
    assert _names(page) == [name for name in ranking["backbone"] if "vit" in name]
    assert page.locator("#status").inner_text().startswith("3 of 8 backbones")
    page.get_by_role("checkbox", name="vision-language").uncheck()
    assert _names(page) == ["dinov2_vits14", "mae_vitb16"]
    page.get_by_label("At most, M parameters").fill("30")
    assert _names(page) == ["dinov2_vits14"]
    page.get_by_label("Backbone contains").fill("nobody")
    assert _names(page) == [] and "No backbone" in page.locator("#status").inner_text()
    page.get_by_role("button", name="Reset").click()
    playwright.expect(page.locator("#table tbody tr")).to_have_count(8)
    assert _names(page) == list(ranking["backbone"])


def test_views(page: Any, grid: Grid) -> None:
    _choose(page, "birds")
    own = grid.take(settings=(grid.settings["task"] == "birds").to_numpy())
    assert _names(page) == list(standings(own)["backbone"])
    heads = page.locator("#table thead th").all_inner_texts()
    assert sum("birds" in head for head in heads) == 2 and not any("textures" in head for head in heads)


def test_behind_a_score(page: Any, runs: pd.DataFrame) -> None:
    [run] = runs[(runs["backbone"] == "clip_vit_b16") & (runs["task"] == "satellite")].to_dict("records")
    _choose(page, "classification")
    opener = page.get_by_role("button", name=re.compile("satellite.linear, clip_vit_b16"))
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    said = dialog.inner_text()
    assert run["command"] in said and run["run_id"] in said
    assert f"{run['score']:.3f}" in said and f"{run['low']:.3f} to {run['high']:.3f}" in said
    page.keyboard.press("Escape")
    playwright.expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").endswith("clip_vit_b16: show its runs")


def test_there_and_back(page: Any, runs: pd.DataFrame) -> None:
    page.get_by_label("Backbone contains").fill("conv")
    page.locator("#table").get_by_role("link", name="convnext_base").click()
    heading = page.get_by_role("heading", level=2, name="convnext_base")
    playwright.expect(heading).to_be_visible()
    assert page.title().startswith("convnext_base")
    assert heading.evaluate("element => element === document.activeElement")
    assert not page.locator("#standings").is_visible()
    said = page.locator("#backbone").inner_text()
    assert all(command in said for command in runs.loc[runs["backbone"] == "convnext_base", "command"])
    sheet = page.get_by_role("img", name=re.compile("Contact sheet"))
    sheet.scroll_into_view_if_needed()
    assert sheet.evaluate("image => image.decode().then(() => image.naturalWidth)") == 200
    page.go_back()
    playwright.expect(page.locator("#standings")).to_be_visible()
    assert _names(page) == ["convnext_base"]  # the filter is as it was left
    page.go_forward()
    page.get_by_role("link", name="All backbones").click()
    playwright.expect(page.locator("#standings")).to_be_visible()


def test_a_link_to_one_backbone(visit: Callable[..., Any]) -> None:
    known, unknown = visit(fragment="#backbone=mae_vitb16"), visit(fragment="#backbone=%3Cb%3Enobody")
    playwright.expect(known.get_by_role("heading", level=2, name="mae_vitb16")).to_be_visible()
    playwright.expect(unknown.locator("#backbone")).to_contain_text("no backbone called \u201c<b>nobody\u201d")


def test_theme(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("figure[data-chart=ranks]").scroll_into_view_if_needed()
    page.locator("figure[data-chart=ranks] .main-svg").first.wait_for()
    light, ink = _brightness(page, "body", "backgroundColor"), _brightness(page, ".plot .xtick text", "fill")
    button = page.locator("#theme")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert _brightness(page, "body", "backgroundColor") < 64 < 192 < light
    page.wait_for_timeout(300)  # charts are drawn again
    assert _brightness(page, ".plot .xtick text", "fill") > 128 > ink
    assert _brightness(visit(scheme="dark"), "body", "backgroundColor") < 64  # as the system asks


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_for_everyone(visit: Callable[..., Any], scheme: str, size: dict[str, int]) -> None:
    page = visit(size, scheme)
    _draw_charts(page)
    page.locator("#charts details summary").first.click()
    assert _violations(page) == []
    _choose(page, "classification")
    page.locator("#table tbody button").first.click()
    assert _violations(page) == []
    page.keyboard.press("Escape")
    page.locator("#table tbody a").first.click()
    playwright.expect(page.locator("#backbone")).to_be_visible()
    assert _violations(page) == []


def test_nothing_sticks_out_of_a_phone(visit: Callable[..., Any]) -> None:
    page = visit(PHONE)
    _draw_charts(page)
    for details in page.locator("details > summary").all():
        details.click()
    assert _overflow(page) == 0
    page.locator("#table tbody a").first.click()
    playwright.expect(page.locator("#backbone")).to_be_visible()
    assert _overflow(page) == 0


def _draw_charts(page: Any) -> list[str]:
    """Scroll past every chart, so that it is drawn; return their ids."""
    figures = page.locator("figure[data-chart]")
    for figure in figures.all():
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for()
    return figures.evaluate_all("all => all.map((figure) => figure.dataset.chart)")


def _names(page: Any) -> list[str]:
    """The backbones of the table's rows, from the top."""
    return page.locator("#table tbody th a").all_inner_texts()


def _choose(page: Any, view: str) -> None:
    """Show the view that is called so."""
    options = page.get_by_label("View").locator("option")
    [label] = [name for name in options.all_inner_texts() if re.match(rf"{view}(?! */)\b", name)]
    page.get_by_label("View").select_option(label=label)


def _press(page: Any, header: str, keys: tuple[str, ...]) -> None:
    """Click the button in a column's head, or press it by keys."""
    button = page.locator("#table thead button").filter(has_text=re.compile(rf"^{header}")).first
    if not keys:
        button.click()
        return
    button.focus()
    for key in keys:
        page.keyboard.press(key)


def _sorted_columns(page: Any) -> list[tuple[str, str]]:
    """First line of the head, and direction, of every column that says it is sorted."""
    heads = page.locator("#table thead th[aria-sort]:not([aria-sort=none])")
    said = heads.evaluate_all("all => all.map((head) => [head.querySelector('button').firstChild.data, head.ariaSort])")
    return [(str(name), str(order)) for name, order in said]


def _violations(page: Any) -> list[str]:
    """What axe finds: the rule, and what breaks it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (extra `test`)")
    found = axe.Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


def _overflow(page: Any) -> int:
    """Pixels by which the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def _brightness(page: Any, selector: str, style: str) -> float:
    """Mean of red, green and blue of the first such element, 0 to 255."""
    said = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{style}")
    return float(np.mean([int(number) for number in re.findall(r"\d+", said)[:3]]))
