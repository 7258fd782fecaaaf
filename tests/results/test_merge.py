"""Runs are copied whole and once, equal ones are known as equal, and nothing is written where two differ."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bob.errors import UserError
from bob.results.merge import ASIDE, Plan, carry_out, plan
from bob.results.predictions import Predictions
from bob.results.reading import read_record
from bob.results.record import PREDICTIONS_FILE, RECORD_FILE, TRAINING, Cost, Record, sealed
from bob.results.verify import run_folders

OLD = Path(__file__).parent / "old_records"


@pytest.fixture
def make_run(tmp_path: Path, make_record: Callable[..., Record]) -> Callable[..., Path]:
    """Write a record into the results folder of a machine; gives the run's folder."""

    def make(machine: str, backbone: str = "a", score: float = 0.5, **said: Any) -> Path:
        table = np.random.default_rng(0).dirichlet(np.ones(3), 6)
        given = Predictions.from_probabilities([f"i{i}" for i in range(6)], np.arange(6) % 3, table, "abc")
        changes = {key: said.pop(key) for key in list(said) if key in Record.model_fields and key != "created"}
        record = make_record(backbone, score, **said).model_copy(update=changes)
        return record.write(tmp_path / machine, given, lambda folder: (folder / "more.txt").write_text(machine))

    return make


def _plan(target: Path, *sources: Path) -> Plan:
    return plan(sources, target, 1, lambda count: None)


def _merge(target: Path, *sources: Path) -> Plan:
    found = _plan(target, *sources)
    assert not found.refused
    carry_out(found, target, lambda count: None)
    return found


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_runs_come_together_with_all_their_files(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run("one", "a"), make_run("one", "b"), make_run("two", "c")]
    logs = tmp_path / "one" / TRAINING / runs[0].name / "logs"
    logs.mkdir(parents=True)
    (logs / "events").write_bytes(b"\x00\x01")
    found = _merge(tmp_path / "all", tmp_path / "one", tmp_path / "two")
    assert (len(found.new), found.present, found.repeated) == (3, 0, 0)
    expected = {f"{path.parent.parent.name}/{path.parent.name}" for path in (run / RECORD_FILE for run in runs)}
    assert {f"runs/{folder.name}" for folder in run_folders(tmp_path / "all")} == expected
    for run in runs:
        assert _contents(tmp_path / "all/runs" / run.name) == _contents(run)
    assert (tmp_path / "all" / TRAINING / runs[0].name / "logs/events").read_bytes() == b"\x00\x01"


def test_a_second_time_changes_nothing(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("one", "a"), make_run("two", "b")
    _merge(tmp_path / "all", tmp_path / "one", tmp_path / "two")
    before = _contents(tmp_path / "all")
    found = _merge(tmp_path / "all", tmp_path / "one", tmp_path / "two")
    assert (found.new, found.present) == ([], 2) and _contents(tmp_path / "all") == before


def test_equal_runs_are_kept_once(make_run: Callable[..., Path], tmp_path: Path) -> None:
    slow = Cost(seconds={}, images_per_second=1, waiting_fraction=0, peak_memory_bytes=9, parameters=1, flops=1)
    make_run("one")
    make_run("two", created="2027-01-01", cost=slow, environment={"device": "x"}, command="bob run")
    found = _merge(tmp_path / "all", tmp_path / "one", tmp_path / "two", tmp_path / "one")
    assert (len(found.new), found.present, found.repeated) == (1, 0, 1)
    assert (run_folders(tmp_path / "all")[0] / "more.txt").read_text() == "one"
    assert (_merge(tmp_path / "all", tmp_path / "two").present) == 1


def test_what_is_aside_are_keys_of_a_record() -> None:
    assert set(ASIDE) <= set(Record.model_fields)


def test_all_conflicts_are_named(make_run: Callable[..., Path], tmp_path: Path) -> None:
    a, b = make_run("one", "a", 0.5), make_run("one", "b", 0.5, notes=("x",))
    other_a, other_b = make_run("two", "a", 0.6), make_run("two", "b", 0.5)
    make_run("two", "c")
    found = _plan(tmp_path / "all", tmp_path / "one", tmp_path / "two")
    assert found.refused == [
        f"{a} and {other_a} differ in metrics.top1.value (0.5, 0.6), metrics.top1.low (0.4, 0.5), "
        "metrics.top1.high (0.6, 0.7)",
        f'{b} and {other_b} differ in notes (["x"], [])',
    ]


def test_conflicts_with_the_target_are_named(make_run: Callable[..., Path], tmp_path: Path) -> None:
    there, coming = make_run("all", score=0.5), make_run("one", score=0.6)
    [line] = _plan(tmp_path / "all", tmp_path / "one").refused
    assert line.startswith(f"{there} and {coming} differ in metrics.top1.value (0.5, 0.6)")


def test_rounding_is_no_conflict(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("one", score=0.5), make_run("two", score=0.5 + 1e-15)
    assert not _plan(tmp_path / "all", tmp_path / "one", tmp_path / "two").refused


def test_damaged_records_are_named(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run("one", name) for name in "abcd"]
    (runs[0] / RECORD_FILE).write_text("{")
    (runs[1] / PREDICTIONS_FILE).write_bytes(b"")
    text = (runs[2] / RECORD_FILE).read_text()
    (runs[2] / RECORD_FILE).write_text(text.replace('"flops": 7', '"flops": 8'))
    lines = _plan(tmp_path / "all", tmp_path / "one").refused
    assert [line.partition(" is damaged: ")[0] for line in lines] == [str(run) for run in runs[:3]]
    assert "predictions_sha256" in lines[1] and "content_sha256" in lines[2]


def test_a_damaged_run_of_the_target_is_named(make_run: Callable[..., Path], tmp_path: Path) -> None:
    there = make_run("all")
    make_run("one")
    (there / RECORD_FILE).unlink()
    [line] = _plan(tmp_path / "all", tmp_path / "one").refused
    assert line.startswith(f"{there} is damaged: ")


def test_half_written_folders_are_left(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("one")
    run.with_name(".half").mkdir()
    _merge(tmp_path / "all", tmp_path / "one")
    assert [path.name for path in (tmp_path / "all/runs").iterdir()] == [run.name]


def test_older_schemas_travel_unchanged(tmp_path: Path) -> None:
    _merge(tmp_path / "all", OLD)
    assert _contents(tmp_path / "all") == _contents(OLD)


@pytest.mark.parametrize("seed", [0, 3])
def test_an_older_and_a_newer_record_of_a_run(make_run: Callable[..., Path], tmp_path: Path, seed: int) -> None:
    newer = make_run("new", seed=seed, resampled="AAAA", command="bob run")
    older = make_run("old", seed=seed)
    record = read_record(older / RECORD_FILE)
    result = record.metrics["top1"]
    if seed:  # the older one resampled with its own seed
        record = record.model_copy(update={"metrics": {"top1": result.model_copy(update={"low": result.low + 0.01})}})
    content = json.loads(sealed(record))
    for key in ("content_sha256", "resampled", "command", "breakdown"):
        del content[key]
    (older / RECORD_FILE).write_text(json.dumps({**content, "schema_version": 2}))
    found = _plan(tmp_path / "all", tmp_path / "old", tmp_path / "new")
    assert (found.new, found.repeated, found.refused) == ([newer], 1, [])


@pytest.mark.parametrize("source", ["none", "empty"])
def test_a_source_without_runs(make_run: Callable[..., Path], tmp_path: Path, source: str) -> None:
    make_run("one")
    (tmp_path / "empty/runs").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"no records in .*{source}/runs\. Give the folder that holds `runs`"):
        _plan(tmp_path / "all", tmp_path / "one", tmp_path / source)
    assert not (tmp_path / "all").exists()


def test_a_source_that_is_the_target(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("one")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with pytest.raises(UserError, match="is the folder to merge into"):
        _plan(tmp_path / "one", tmp_path / "link")


def test_a_kill_leaves_whole_runs_and_the_same_command_goes_on(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for number in range(12):
        run = make_run("one", f"b{number:02d}")
        (run / "large").write_bytes(bytes(5_000_000))
    code = (
        "import sys; from pathlib import Path; from bob.results.merge import *\n"
        "one, target = map(Path, sys.argv[1:])\n"
        "carry_out(plan([one], target, 1, lambda count: None), target, lambda count: print('copied', flush=True))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "one", tmp_path / "all"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "copied\n"
    time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    copied = run_folders(tmp_path / "all")
    assert copied
    for run in copied:
        assert _contents(run) == _contents(tmp_path / "one/runs" / run.name)
    found = _merge(tmp_path / "all", tmp_path / "one")
    assert (len(found.new), found.present) == (12 - len(copied), len(copied))
    assert {run.name for run in run_folders(tmp_path / "all")} == {run.name for run in run_folders(tmp_path / "one")}
