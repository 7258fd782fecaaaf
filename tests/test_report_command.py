"""`bob report`: the file it writes, what it says is missing, and its mistakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bob.errors import UserError
from bob.report_command import report
from bob.results.draws import KEPT_RESAMPLES
from bob.results.predictions import Predictions
from bob.results.record import Record

Run = Callable[..., str]


@pytest.fixture
def run(home: Path, tmp_path: Path, make_record: Callable[..., Record], run_command: Run) -> Run:
    """Run the command on records of two backbones in two settings, in an empty folder."""
    made = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab")
    rng = np.random.default_rng(0)
    for score, name in ((0.7, "a"), (0.5, "b")):
        for protocol in ("knn", "linear"):
            draws = score + rng.normal(scale=0.01, size=KEPT_RESAMPLES)
            make_record(name, score, protocol=protocol, draws=draws).write(tmp_path, made)
    return partial(run_command, report, "--results", tmp_path)


def test_page(run: Run) -> None:
    Image.new("RGB", (2, 2)).save("check-a.png")
    lines = run("--out", "page.html", "--title", "Mine").splitlines()
    page = Path("page.html").read_text(encoding="utf-8")
    assert lines[0].startswith(f"Written: {Path('page.html').absolute()} (") and lines[0].endswith(" MB)")
    assert lines[1:] == [f"Without a contact sheet in {Path.cwd()}: b.", "One is made by `bob check b`."]
    assert "<title>Mine</title>" in page and "a leads 2 ranked backbones by mean z, surely better" in page
    assert "data:image/png;base64," in page and "plotly.js" in page and "from 4 records" in page
    run("--out", "again.html", "--title", "Mine")
    assert Path("again.html").read_text(encoding="utf-8") == page


def test_choices(run: Run) -> None:
    run("-p", "knn", "--by", "win_rate", "--over", "settings", "--ddof", 0, "--missing", "drop")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "Ranked by win rate" in page and "ddof 0" in page and "from 2 records" in page
    assert "t/linear" not in page


def test_published(run: Run) -> None:
    Path("theirs.csv").write_text(
        "backbone,task,dataset,setting,metric,value,standard_error,extra,source\n"
        "c,classification,t,knn,top1,0.4,0.01,?,https://example.org/paper\n"
    )
    shown = run("--join", "theirs.csv")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "theirs.csv: columns that are not read: extra." in shown
    assert "https://example.org/paper" in page and "published scores" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "page.pdf"], r"Give a name that ends in \.html"),
        (["--by", "mean"], "--by mean is not known"),
        (["--over", "all"], "--over all is not known"),
        (["--missing", "fill"], "--missing fill is not known"),
        (["--sheets", "nowhere"], "--sheets nowhere is no folder"),
        (["-b", "zzz"], "No record matches"),
        (["--join", "none.csv"], r"There is no table none\.csv\. Give a file, or a published table"),
    ],
)
def test_mistakes(run: Run, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(*arguments)
    assert not list(Path().glob("*.html"))


def test_no_records(home: Path, run_command: Run) -> None:
    with pytest.raises(UserError, match="There are no records in"):
        run_command(report, "--results", "empty")


def test_no_plotly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ModuleNotFoundError("No module named 'plotly'", name="plotly")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(UserError, match="plotly is not installed"):
        run()
    assert not Path("report.html").exists()
