"""`bob shift`: what it prints of records about shifted sets, what it writes, and its mistakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from bob.errors import UserError
from bob.results.predictions import Predictions
from bob.results.record import Record
from bob.shift import shift

Run = Callable[..., str]
# Clean and shifted accuracy; c lies well above the line through the others.
SCORES = {"a": (0.6, 0.4), "b": (0.7, 0.5), "c": (0.65, 0.6), "d": (0.8, 0.6)}


@pytest.fixture
def run(tmp_path: Path, run_command: Run) -> Run:
    """Run the command on the records in `tmp_path`, and give what it prints."""
    return partial(run_command, shift, "--results", tmp_path)


@pytest.fixture
def write(tmp_path: Path, make_record: Callable[..., Record]) -> Callable[..., None]:
    """Write records of backbones with one shifted set."""

    def make(*backbones: str, protocol: str = "linear", shifted: bool = True) -> None:
        made = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab")
        for name in backbones:
            clean, top1 = SCORES[name]
            row = {"set": "noise", "n": 100, "top1": top1, "clean_n": 100, "clean_top1": clean, "drop": clean - top1}
            record = make_record(name, top1, protocol=protocol)
            record.model_copy(update={"breakdown": {"per_set": [row]} if shifted else {}}).write(tmp_path, made)

    return make


def test_a_backbone_above_the_line(run: Run, write: Callable[..., None], tmp_path: Path) -> None:
    write(*SCORES)
    lines = run("--baseline", "a,b,d", "--out", tmp_path / "shift.csv").splitlines()
    assert lines[0].split() == ["set", "backbone", "clean", "shifted", "drop", "expected", "effective", "robustness"]
    table = pd.read_csv(tmp_path / "shift.csv").set_index("backbone")
    assert table["effective_robustness"].idxmax() == "c" and table.loc["c", "effective_robustness"] > 10
    shown = next(line.split() for line in lines if "  c  " in line)
    assert shown[2:5] == ["0.650", "0.600", "+0.050"]


def test_two_backbones_have_drops_alone(run: Run, write: Callable[..., None]) -> None:
    write("a", "b")
    lines = run().splitlines()
    assert lines[0].split()[-1] == "drop" and "needs three backbones" in lines[-1]


def test_several_settings(run: Run, write: Callable[..., None]) -> None:
    write("a", "b", "c")
    write("a", "b", "c", protocol="knn")
    with pytest.raises(UserError, match=r"records of 2 settings.*--task t --protocol knn"):
        run()
    assert "effective robustness" in run("-p", "knn")


def test_no_shifted_sets(run: Run, write: Callable[..., None]) -> None:
    write("a", shifted=False)
    with pytest.raises(UserError, match="No record is about shifted sets"):
        run()


def test_an_unknown_baseline(run: Run, write: Callable[..., None]) -> None:
    write(*SCORES)
    with pytest.raises(UserError, match="The baseline 'z' is not in the table"):
        run("--baseline", "z")
