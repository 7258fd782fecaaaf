"""Any changed digit of a record or its predictions is found, and nothing is found where nothing was changed."""

from __future__ import annotations

import json
import os
import random
import shutil
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
from bob.results.draws import pack, unpack
from bob.results.judging import judge
from bob.results.predictions import Predictions
from bob.results.processes import each
from bob.results.reading import read_record
from bob.results.record import PREDICTIONS_FILE, RECORD_FILE, Record, sealed
from bob.results.verify import Difference, differences, integrity, run_folders, verify, verify_all

OLD = Path(__file__).parent / "old_records"


@pytest.fixture
def make_run(tmp_path: Path, make_record: Callable[..., Record]) -> Callable[..., Path]:
    """Write a record of random predictions as a run would; gives its folder."""

    def make(backbone: str = "a", size: int = 40, **said: Any) -> Path:
        rng = np.random.default_rng(len(backbone) + size)
        classes = [f"c{i}" for i in range(4)]
        table, labels = rng.dirichlet(np.ones(4), size), rng.integers(4, size=size)
        given = Predictions.from_probabilities([f"i{i}" for i in range(size)], labels, table, classes)
        judged = judge(given, ["top1"], "top1")
        found = {"metrics": judged.metrics, "resampled": judged.resampled, "per_class": given.per_class()}
        return make_record(backbone, **said).model_copy(update=found).write(tmp_path / "results", given)

    return make


def _forge(folder: Path, **changes: Any) -> None:
    """Change a record and give it the checksum of what it has become: only its content can betray it."""
    record = read_record(folder / RECORD_FILE)
    (folder / RECORD_FILE).write_text(sealed(record.model_copy(update=changes)))


def test_what_was_written_matches(make_run: Callable[..., Path]) -> None:
    found = verify(make_run())
    assert found is not None and (found.problems, found.schema, found.rounded) == ((), 4, False)
    assert found.is_sealed


@pytest.mark.parametrize("folder", run_folders(OLD), ids=lambda folder: folder.name[:40])
def test_records_of_older_schemas_match(folder: Path) -> None:
    found = verify(folder)
    assert found is not None and found.problems == () and found.schema in (1, 2, 3)
    assert not found.is_sealed


def test_there_is_a_record_of_each_older_schema() -> None:
    assert {read_record(folder / RECORD_FILE).schema_version for folder in run_folders(OLD)} == {1, 2, 3}


def test_every_flipped_digit_of_a_record_is_found(make_run: Callable[..., Path]) -> None:
    path = make_run() / RECORD_FILE
    content = path.read_bytes()
    places = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    assert len(places) > 400
    for place in places:
        other = b"%d" % ((content[place] - ord("0") + 1 + place % 9) % 10)
        path.write_bytes(content[:place] + other + content[place + 1 :])
        _, problems = integrity(path.parent)
        assert problems, f"digit {place} of the record, in {content[place - 20 : place + 20]!r}"
    path.write_bytes(content)
    assert not integrity(path.parent)[1]


def test_any_changed_byte_of_a_record_is_found(make_run: Callable[..., Path]) -> None:
    path = make_run() / RECORD_FILE
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(1000):
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ rng.randrange(1, 256)]) + content[place + 1 :])
        assert integrity(path.parent)[1], place


@pytest.mark.parametrize("folder", run_folders(OLD), ids=lambda folder: folder.name[:40])
def test_flipped_digits_of_an_old_records_scores_are_found(folder: Path, tmp_path: Path) -> None:
    # One of the first eight; the checksum that would find any came with schema 4.
    copy = Path(shutil.copytree(folder, tmp_path / "results/runs" / folder.name))
    content = json.loads((copy / RECORD_FILE).read_text())
    name, result = next(iter(content["metrics"].items()))
    for key in ("value", "low", "high", "n"):
        changed = json.loads(json.dumps(content))
        changed["metrics"][name][key] = result[key] + 1 if key == "n" else result[key] * (1 + 1e-8) + 1e-10
        (copy / RECORD_FILE).write_text(json.dumps(changed))
        found = verify(copy)
        assert found is not None and len(found.problems) == 1
        assert found.problems[0].startswith(f"metrics.{name}.{key}: stated ")


def test_changed_bytes_of_predictions_are_found(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    path = folder / PREDICTIONS_FILE
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(100):
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        found = verify(folder)
        assert found is not None and found.problems[0].startswith("predictions_sha256: stated ")
    path.unlink()
    found = verify(folder)
    assert found is not None and found.problems == ("predictions.parquet is missing",)


class TestForged:
    """Records whose checksum is right: only computing again finds these."""

    def _problems(self, folder: Path) -> tuple[str, ...]:
        found = verify(folder)
        assert found is not None
        return found.problems

    @pytest.mark.parametrize("key", ["value", "low", "high"])
    def test_a_score(self, make_run: Callable[..., Path], key: str) -> None:
        folder = make_run()
        metrics = dict(read_record(folder / RECORD_FILE).metrics)
        stated = getattr(metrics["top1"], key)
        metrics["top1"] = metrics["top1"].model_copy(update={key: stated + 0.01})
        _forge(folder, metrics=metrics)
        assert self._problems(folder) == (f"metrics.top1.{key}: stated {stated + 0.01}, recomputed {stated}",)

    def test_a_row_of_a_class(self, make_run: Callable[..., Path]) -> None:
        folder = make_run()
        rows = [dict(row) for row in read_record(folder / RECORD_FILE).per_class]
        rows[2]["n"] = int(rows[2]["n"]) + 1
        _forge(folder, per_class=rows)
        assert self._problems(folder) == (f"per_class[2].n: stated {rows[2]['n']}, recomputed {int(rows[2]['n']) - 1}",)
        _forge(folder, per_class=rows[:2])
        assert self._problems(folder) == ("per_class: stated 2 rows, recomputed 4 rows",)

    def test_a_table_that_the_predictions_do_not_give(self, make_run: Callable[..., Path]) -> None:
        folder = make_run()
        _forge(folder, per_group=[{"group": "g", "n": 1, "accuracy": 1.0}], breakdown={"per_set": []})
        assert self._problems(folder) == (
            "per_group: stated 1 rows, recomputed 0 rows",
            "breakdown.per_set: stated 0 rows, recomputed nothing",
        )

    def test_resampled_scores(self, make_run: Callable[..., Path]) -> None:
        folder = make_run()
        draws = unpack(read_record(folder / RECORD_FILE).resampled).copy()
        _forge(folder, resampled=pack(draws * (1 + 1e-7)))
        assert self._problems(folder) == ()
        draws[7] += 0.025
        for forged in (pack(draws), pack(draws[:-1]), "", "?"):
            _forge(folder, resampled=forged)
            assert [problem.partition(":")[0] for problem in self._problems(folder)] == ["resampled"]

    def test_an_id_and_a_folder(self, make_run: Callable[..., Path]) -> None:
        folder = make_run()
        own = read_record(folder / RECORD_FILE).run_id
        moved = folder.rename(folder.with_name("mine"))
        assert self._problems(moved) == (f"the folder's name does not end in __{own}",)
        _forge(moved.rename(folder), run_id="0" * 16)
        assert self._problems(folder) == (f"run_id: stated {'0' * 16}, the request's is {own}",)

    def test_another_seed_of_a_request(self, make_run: Callable[..., Path]) -> None:
        folder = make_run()
        record = read_record(folder / RECORD_FILE)
        _forge(folder, request=record.request.model_copy(update={"seed": 3}))
        own, named = self._problems(folder)
        assert own.startswith("run_id: stated ") and named.startswith("the folder's name does not end in __")

    def test_a_metric_that_is_not_known(self, make_run: Callable[..., Path]) -> None:
        folder = make_run(size=30)
        record = read_record(folder / RECORD_FILE)
        _forge(folder, request=record.request.model_copy(update={"metrics": ("top1", "beauty")}))
        assert "beauty" in self._problems(folder)[-1]

    def test_an_older_version_with_newer_keys(self, make_run: Callable[..., Path]) -> None:
        folder = make_run()
        content = json.loads((folder / RECORD_FILE).read_text())
        (folder / RECORD_FILE).write_text(json.dumps({**content, "schema_version": 3, "content_sha256": ""}))
        assert self._problems(folder)[-1] == "schema 3 has no content_sha256, resampled, command"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"schema_version": 99}'])
def test_what_is_no_record(make_run: Callable[..., Path], content: bytes) -> None:
    folder = make_run()
    (folder / RECORD_FILE).write_bytes(content)
    found = verify(folder)
    assert found is not None and found.schema == 0 and len(found.problems) == 1
    (folder / RECORD_FILE).unlink()
    found = verify(folder)
    assert found is not None and "No such file" in found.problems[0]


def test_rounding_is_told_apart() -> None:
    assert Difference("a", 0.1 + 0.2, 0.3).is_rounding
    assert Difference("a", 0.0, 3e-17).is_rounding
    assert not Difference("a", 0.3, 0.30000001).is_rounding
    assert not Difference("a", 1, 2).is_rounding


def test_differences_name_the_place() -> None:
    one, other = {"a": {"b": [1, 2.0, {"c": None}]}, "d": 1}, {"a": {"b": [1, 2.5, {"c": 0}]}, "e": True}
    assert [(each.key, each.stated, each.found) for each in differences(one, other, "")] == [
        ("a.b[1]", 2.0, 2.5),
        ("a.b[2].c", None, 0),
        ("d", 1, None),
        ("e", None, True),
    ]
    assert not list(differences(one, one, ""))
    assert [each.key for each in differences({"a": 1}, {"a": 1.0}, "")] == ["a"]


def test_globs_choose_and_damaged_records_stay(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folders = [make_run(name, task=task) for name, task in (("resnet", "birds"), ("vit", "birds"), ("vit", "cars"))]
    (folders[2] / RECORD_FILE).write_text("{}")
    advanced: list[int] = []
    found = verify_all(run_folders(tmp_path / "results"), 1, advanced.append, ["res*"], ["birds"])
    assert [finding.name for finding in found] == [folders[0].name, folders[2].name]
    assert sum(advanced) == 3


def test_half_written_folders_are_no_runs(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run()
    folder.with_name(".half").mkdir()
    assert run_folders(tmp_path / "results") == [folder]
    with pytest.raises(UserError, match=r"no records in .*none/runs"):
        run_folders(tmp_path / "none")


class TestProcesses:
    def test_several_give_what_one_gives(self, make_run: Callable[..., Path], tmp_path: Path) -> None:
        for number in range(33):
            make_run("b" * (number + 1), size=20)
        folders, advanced = run_folders(tmp_path / "results"), list[int]()
        (folders[5] / PREDICTIONS_FILE).write_bytes(b"")
        found = verify_all(folders, 2, advanced.append)
        assert found == verify_all(folders, 1, advanced.append)
        assert [finding.name for finding in found if finding.problems] == [folders[5].name]
        assert sum(advanced) == 66

    def test_one_that_dies_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="A process that read records died"):
            list(each(_die, [tmp_path] * 40, 2, lambda count: None))

    def test_an_interrupt_ends_all(self, tmp_path: Path) -> None:
        code = (
            "import sys, time; from pathlib import Path; from bob.results.processes import each\n"
            "if __name__ == '__main__':\n"
            "    print('on', flush=True); list(each(time.sleep, [60] * 40, 2, lambda count: None))\n"
        )
        (tmp_path / "job.py").write_text(code)
        started = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, tmp_path / "job.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )
        assert child.stdout is not None and child.stdout.readline()
        time.sleep(4)
        os.killpg(child.pid, signal.SIGINT)
        _, said = child.communicate(timeout=30)
        assert child.returncode != 0 and time.monotonic() - started < 40
        assert said.count(b"Traceback") == 1 and said.rstrip().endswith(b"KeyboardInterrupt")
        with pytest.raises(ProcessLookupError):
            while time.monotonic() - started < 40:
                os.killpg(child.pid, 0)
                time.sleep(0.1)


def _die(folder: Path) -> None:
    os._exit(1)
