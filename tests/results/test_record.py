"""A record has the id of its request, is written whole or not at all, and is refused when it is not what it was."""

from __future__ import annotations

import json
import os
import re
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
from bob.results.metrics import METRICS
from bob.results.multilabel import MultiLabelPredictions
from bob.results.predictions import Predictions
from bob.results.reading import predictions_of, read_record, read_records
from bob.results.record import SCHEMA_VERSION, Record, Request, has_record, record_folder, require_writable

REQUEST: dict[str, Any] = {
    "backbone": "resnet",
    "backbone_identity": {"weights_sha256": "ab", "code": {"timm": "1.0"}, "preprocess": {"size": [224, 224]}},
    "task": "folder:/photos/of cats",
    "task_version": 1,
    "data": {"classes": 3, "splits": {"train": {"n": 6, "sha256": "cd"}}},
    "protocol": {"name": "linear", "version": 1, "probe": "P", "grid": [{"l2": 10.0**0.5}, {"l2": 1e-05}]},
    "metrics": ("top1", "nll"),
    "seed": 0,
    "precision": "float32",
}
OTHERWISE: dict[str, Any] = {
    "backbone": "resnet2",
    "backbone_identity": {**REQUEST["backbone_identity"], "code": {"timm": "1.1"}},
    "task": "folder:/photos",
    "task_version": 2,
    "data": {**REQUEST["data"], "splits": {"train": {"n": 6, "sha256": "ce"}}},
    "protocol": {**REQUEST["protocol"], "grid": [{"l2": 1e-05}, {"l2": 10.0**0.5}]},
    "metrics": ("nll", "top1"),
    "seed": 1,
    "precision": "float16",
}


def _predictions(size: int = 6) -> Predictions:
    table = np.random.default_rng(0).dirichlet(np.ones(3), size)
    return Predictions.from_probabilities([f"i{i}" for i in range(size)], np.arange(size) % 3, table, "abc")


def _reversed(value: Any) -> Any:
    """The same content with every table's keys in the other order."""
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return [_reversed(item) for item in value] if isinstance(value, (list, tuple)) else value


class TestRequest:
    def test_id_is_what_it_always_was(self) -> None:
        # Written down once: another value would make every run of every user run again.
        assert Request(**REQUEST).run_id() == "77620493344bd15f"

    def test_id_does_not_depend_on_the_order_of_keys_nor_on_json(self) -> None:
        known = Request(**REQUEST).run_id()
        assert Request(**_reversed(REQUEST)).run_id() == known
        assert Request.model_validate_json(Request(**REQUEST).model_dump_json()).run_id() == known

    @pytest.mark.parametrize("field", OTHERWISE)
    def test_id_changes_with_every_field(self, field: str) -> None:
        assert set(OTHERWISE) == set(Request.model_fields)
        assert Request(**{**REQUEST, field: OTHERWISE[field]}).run_id() != Request(**REQUEST).run_id()

    def test_folder_name_is_readable_safe_and_unique(self) -> None:
        name = Request(**REQUEST).folder_name()
        assert name.startswith("resnet__folder-photos-of-cats__linear__s0__")
        low_shot = {"protocol": {**REQUEST["protocol"], "name": "linear@10%@block3"}}
        assert "__linear-10-block3__s0__" in Request(**{**REQUEST, **low_shot}).folder_name()
        wild = {"backbone": "../../../" + "x" * 300 + ".py:make", "task": "folder:/\u00fc/..", "seed": 12}
        name = Request(**{**REQUEST, **wild}).folder_name()
        assert "/" not in name and not name.startswith(".") and len(name.encode()) < 255


class TestWriting:
    def test_round_trip(self, tmp_path: Path, make_record: Callable[..., Record]) -> None:
        record, predictions = make_record(task="folder:/a b"), _predictions()
        assert not has_record(tmp_path, record.request)
        folder = record.write(tmp_path, predictions)
        assert folder == record_folder(tmp_path, record.request) and has_record(tmp_path, record.request)
        assert sorted(path.name for path in folder.iterdir()) == ["predictions.parquet", "record.json"]
        read = read_record(folder / "record.json")
        assert read.model_copy(update={"predictions_sha256": "", "content_sha256": ""}) == record
        assert read.request.run_id() == read.run_id
        assert list(read_records(tmp_path)) == [read]
        back = predictions_of(folder / "record.json")
        for metric in [METRICS[name] for name in ("top1", "top5", "mean_per_class", "nll", "ece")]:
            assert metric.compute(back) == metric.compute(predictions)

    def test_predictions_of_several_labels(self, tmp_path: Path, make_record: Callable[..., Record]) -> None:
        made = MultiLabelPredictions.from_probabilities(["i", "j"], [[1, 0], [-1, 1]], [[0.2, 0.9], [0.5, 0.5]], "ab")
        groups = [{"group": "x", "n": 1, "accuracy": 0.5}]
        record = make_record(metric="map").model_copy(update={"per_group": groups, "per_class": made.per_class()})
        path = record.write(tmp_path, made) / "record.json"
        read, back = read_record(path), predictions_of(path)
        assert (read.per_group, read.per_class) == (groups, made.per_class())
        assert isinstance(back, MultiLabelPredictions)
        assert METRICS["map"].compute(back) == METRICS["map"].compute(made)

    def test_an_error_leaves_nothing(
        self, tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError("full")

        monkeypatch.setattr(Path, "write_text", fail)
        with pytest.raises(OSError, match="full"):
            make_record().write(tmp_path, _predictions())
        assert list((tmp_path / "runs").iterdir()) == []

    def test_a_kill_leaves_nothing_that_counts(self, tmp_path: Path, make_record: Callable[..., Record]) -> None:
        stub = (
            "import sys, time; from pathlib import Path\n"
            "from bob.results.record import Record; from bob.results.predictions import Predictions\n"
            "record = Record.model_validate_json(sys.argv[1]); write = Path.write_text\n"
            "def slow(self, text, **options):\n"
            "    write(self, text[:100]); Path(sys.argv[2], 'half').touch(); time.sleep(60)\n"
            "Path.write_text = slow\n"
            "record.write(Path(sys.argv[2]), Predictions.from_probabilities(['i'], [0], [[0.5, 0.5]], 'ab'))\n"
        )
        record = make_record()
        child = subprocess.Popen([sys.executable, "-c", stub, record.model_dump_json(), str(tmp_path)])
        while not (tmp_path / "half").exists():
            assert child.poll() is None
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not has_record(tmp_path, record.request)
        with pytest.raises(UserError, match="no records"):
            list(read_records(tmp_path))
        assert read_record(record.write(tmp_path, _predictions()) / "record.json").run_id == record.run_id

    def test_who_comes_second_changes_nothing(self, tmp_path: Path, make_record: Callable[..., Record]) -> None:
        folder = make_record(score=0.5).write(tmp_path, _predictions())
        assert make_record(score=0.9).write(tmp_path, _predictions(4)) == folder
        assert [record.metrics["top1"].value for record in read_records(tmp_path)] == [0.5]
        assert len(list((tmp_path / "runs").iterdir())) == 1

    @pytest.mark.parametrize("place", ["file", "file/below"])
    def test_a_place_that_cannot_be_written_to(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"Cannot write records to .*: Not a directory\. Give another folder"):
            require_writable(tmp_path / place)

    def test_trying_leaves_nothing(self, tmp_path: Path) -> None:
        require_writable(tmp_path / "new" / "results")
        assert list((tmp_path / "new" / "results" / "runs").iterdir()) == []


class TestReading:
    @pytest.fixture
    def path(self, tmp_path: Path, make_record: Callable[..., Record]) -> Path:
        return make_record().write(tmp_path, _predictions()) / "record.json"

    def _complaint(self, path: Path) -> str:
        with pytest.raises(UserError) as error:
            list(read_records(path.parents[2]))
        line = str(error.value)
        assert "\n" not in line and str(path) in line
        return line

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "Invalid JSON: EOF while parsing a value"),
            ('{"run_id": "a', "EOF while parsing a string"),
            ("[]", "should be an object"),
            ("null", "should be an object"),
            ("{}", "run_id: Field required"),
            ('{"schema_version": "new"}', "schema_version"),
            ('{"schema_version": null}', "schema_version"),
        ],
    )
    def test_damaged(self, path: Path, text: str, complaint: str) -> None:
        path.write_text(text)
        line = self._complaint(path)
        assert complaint in line and line.endswith("Delete its folder and run it again.")

    def test_not_text(self, path: Path) -> None:
        path.write_bytes(b"\xff\xfe\x00")
        assert "Invalid JSON" in self._complaint(path)

    def test_a_wrong_or_unknown_field_is_named(self, path: Path) -> None:
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "request": {**content["request"], "seed": "x"}}))
        assert "request.seed: " in self._complaint(path)
        path.write_text(json.dumps({**content, "colour": 1}))
        assert "colour: " in self._complaint(path)

    def test_changed_after_it_was_written(self, path: Path) -> None:
        path.write_text(path.read_text().replace('"value": 0.5', '"value": 0.6'))
        assert "was changed after it was written. `bob results verify` says more" in self._complaint(path)
        whole = path.read_text()
        path.write_text(re.sub(r'"content_sha256": "\w+"', '"content_sha256": ""', whole))
        assert "was changed after it was written" in self._complaint(path)
        path.write_text(whole.replace('"schema_version": 4', '"schema_version": 3'))
        assert "was changed after it was written" in self._complaint(path)

    def test_newer_schema(self, path: Path) -> None:
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "schema_version": SCHEMA_VERSION + 1, "new": 1}))
        assert f"has schema version {SCHEMA_VERSION + 1}, newer than {SCHEMA_VERSION}. Update bob." in self._complaint(
            path
        )

    def test_a_record_of_schema_1(self, path: Path) -> None:
        content = json.loads(path.read_text())
        del content["per_group"], content["content_sha256"]
        path.write_text(json.dumps({**content, "schema_version": 1}))
        record = read_record(path)
        assert (record.per_group, record.schema_version) == ([], 1)

    def test_missing(self, path: Path) -> None:
        path.unlink()
        with pytest.raises(UserError, match="No such file"):
            read_record(path)
        with pytest.raises(UserError, match="There are no records"):
            list(read_records(path.parents[2]))

    def test_no_results_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"There are no records in .*none/runs\. Make some with `bob run`"):
            list(read_records(tmp_path / "none"))

    def test_predictions_of_another_record(self, path: Path) -> None:
        _predictions(5).write(path.with_name("predictions.parquet"))
        with pytest.raises(UserError, match=r"predictions\.parquet is not what its record was made from"):
            predictions_of(path)

    def test_missing_predictions(self, path: Path) -> None:
        path.with_name("predictions.parquet").unlink()
        with pytest.raises(UserError, match="predictions"):
            predictions_of(path)


def test_results_import_no_torch() -> None:
    code = (
        "import sys, bob.results.index, bob.standings.standings, bob.standings.versus, bob.results.record;"
        "import bob.results.statistics, bob.results.predictions, bob.results.verify, bob.results.merge;"
        "import bob.results.compare, bob.results.depth, bob.compare, bob.depth;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
