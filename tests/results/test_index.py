"""The index of a results folder: the same frame as from the records, and never an old one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.results import index, processes
from bob.results.index import read_runs, records_of
from bob.results.predictions import Predictions
from bob.results.reading import read_records
from bob.results.record import Record
from bob.results.runs import tidy

Make = Callable[..., Record]


@pytest.fixture
def write(home: Path, tmp_path: Path, make_record: Make) -> Callable[..., Path]:
    """Write records of scores by name; return their folders' parent's parent."""
    predictions = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab")

    def write(**scores: float) -> Path:
        for name, score in scores.items():
            record = make_record(name, score, draws=np.full(500, score))
            shutil.rmtree(tmp_path / "results" / "runs" / record.request.folder_name(), ignore_errors=True)
            record.write(tmp_path / "results", predictions)
        return tmp_path / "results"

    return write


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders whose record was read, as it happens."""
    seen: list[str] = []
    real = index._content

    def read(content: bytes, path: Path) -> dict[str, Any]:
        seen.append(path.parent.name.split("__")[0])
        return real(content, path)

    monkeypatch.setattr(index, "_content", read)
    return seen


def test_equals_the_frame_of_the_records(write: Callable[..., Path]) -> None:
    results = write(a=0.5, b=0.25)
    expected = tidy(read_records(results))
    for _ in range(2):
        pd.testing.assert_frame_equal(read_runs(results), expected)


def test_only_what_changed_is_read(write: Callable[..., Path], reads: list[str]) -> None:
    results = write(a=0.5, b=0.25, c=0.1)
    read_runs(results)
    assert reads == ["a", "b", "c"]
    reads.clear()
    read_runs(results)
    assert reads == []
    write(b=0.75, d=0.3)
    assert dict(read_runs(results)[["backbone", "score"]].to_numpy()) == {"a": 0.5, "b": 0.75, "c": 0.1, "d": 0.3}
    assert reads == ["b", "d"]


def test_what_is_gone_is_gone(write: Callable[..., Path], reads: list[str]) -> None:
    results = write(a=0.5, b=0.25)
    [folder] = (results / "runs").glob("a__*")
    read_runs(results)
    reads.clear()
    shutil.rmtree(folder)
    assert list(read_runs(results)["backbone"]) == ["b"] and reads == []


def _edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"value": 0.5', '"value": 0.7'))


def test_an_edit_is_refused(write: Callable[..., Path]) -> None:
    results = write(a=0.5)
    [path] = results.glob("runs/*/record.json")
    read_runs(results)
    _edit(path)
    for _ in range(2):
        with pytest.raises(UserError, match=r"was changed after it was written\. `bob results verify`"):
            read_runs(results)


def test_older_records_have_no_checksum_and_are_read(write: Callable[..., Path]) -> None:
    results = write(a=0.5)
    [path] = results.glob("runs/*/record.json")
    content = json.loads(path.read_text())
    for key in ("content_sha256", "resampled", "command"):
        del content[key]
    path.write_text(json.dumps({**content, "schema_version": 3}))
    [run] = read_runs(results).to_dict("records")
    assert (run["score"], run["resampled"]) == (0.5, b"")
    _edit(path)
    assert list(read_runs(results)["score"]) == [0.7]  # of the same size, but of another time


@pytest.mark.parametrize("version", [1, 2, 3])
def test_schema_versions(write: Callable[..., Path], version: int) -> None:
    results = write(a=0.5)
    [path] = results.glob("runs/*/record.json")
    content = json.loads(path.read_text())
    for key in [
        "content_sha256",
        "resampled",
        "command",
        *["breakdown"][version // 3 :],
        *["per_group"][version // 2 :],
    ]:
        del content[key]
    path.write_text(json.dumps({**content, "schema_version": version}))
    assert list(read_runs(results)["score"]) == [0.5]


@pytest.mark.parametrize("content", [b"", b"no parquet"])
def test_a_damaged_index_is_made_anew(home: Path, write: Callable[..., Path], content: bytes) -> None:
    results = write(a=0.5)
    read_runs(results)
    [path] = (home / "indexes").iterdir()
    path.write_bytes(content)
    assert list(read_runs(results)["score"]) == [0.5]
    assert path.stat().st_size > 100


def test_an_index_of_another_format_is_not_used(
    write: Callable[..., Path], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = write(a=0.5)
    read_runs(results)
    monkeypatch.setattr(index, "FORMAT", b"another")
    read_runs(results)
    assert reads == ["a", "a"]


def test_where_no_index_can_be_kept(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = write(a=0.5)
    (tmp_path / "file").touch()
    monkeypatch.setenv("BOB_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert list(read_runs(results)["score"]) == [0.5]


def test_several_processes(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    results = write(**{f"b{n:02d}": n / 40 for n in range(40)})
    monkeypatch.setattr(index, "_CHUNK", 1)
    monkeypatch.setattr(index, "granted_cores", lambda: 2)
    pd.testing.assert_frame_equal(read_runs(results), tidy(read_records(results)))


def test_a_damaged_record_is_named_whoever_reads_it(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = write(a=0.5, b=0.6)
    [path] = results.glob("runs/b__*/record.json")
    path.write_text("{")
    for few in (16, 1):
        monkeypatch.setattr(index, "_CHUNK", 1)
        monkeypatch.setattr(processes, "_FEW", few)
        monkeypatch.setattr(index, "granted_cores", lambda: 2)
        with pytest.raises(UserError, match=r"Cannot read the record .*b__.*Delete its folder and run it again"):
            read_runs(results)


def test_half_written_folders_do_not_count(write: Callable[..., Path]) -> None:
    results = write(a=0.5)
    shutil.copytree(next((results / "runs").iterdir()), results / "runs" / ".half")
    (results / "runs" / "empty").mkdir()
    (results / "runs" / "file").touch()
    assert len(read_runs(results)) == 1


def test_a_renamed_folder_is_found(write: Callable[..., Path]) -> None:
    results = write(a=0.5)
    next((results / "runs").iterdir()).rename(results / "runs" / "mine")
    runs = read_runs(results)
    assert list(runs["folder"]) == ["mine"]
    assert [record.request.backbone for record in records_of(results, runs)] == ["a"]


def test_no_records(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There are no records in .*none/runs\. Make some with `bob run`"):
        read_runs(tmp_path / "none")
