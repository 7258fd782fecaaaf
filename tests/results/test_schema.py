"""The published JSON Schema is the one of today, says what every key is, and fits the records that bob writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from bob.results.predictions import Predictions
from bob.results.record import RECORD_FILE, SCHEMA_VERSION, Record
from bob.results.schema import SINCE, as_text, record_schema
from bob.results.verify import run_folders

ROOT = Path(__file__).parents[2]
OLD = Path(__file__).parent / "old_records"


def test_it_is_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(record_schema())
    assert record_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_published_file_is_up_to_date() -> None:
    command = [sys.executable, ROOT / "scripts/record_schema.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs/record.schema.json").read_text() == as_text()


def test_every_key_is_described() -> None:
    schema = record_schema()
    parts = {"Record": schema, **schema["$defs"]}
    assert set(parts) == {"Record", "Request", "MetricResult", "Cost"}
    silent = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, said in part["properties"].items()
        if not said.get("description")
    ]
    assert silent == []
    assert all(part["description"] for part in parts.values())


def test_keys_know_their_version() -> None:
    assert set(SINCE) <= set(Record.model_fields) and max(SINCE.values()) == SCHEMA_VERSION
    # What came later has a default, so that older records still read.
    assert all(not Record.model_fields[key].is_required() for key in SINCE)


@pytest.mark.parametrize("folder", run_folders(OLD), ids=lambda folder: folder.name[:40])
def test_older_records_fit(folder: Path) -> None:
    jsonschema.validate(json.loads((folder / RECORD_FILE).read_text()), record_schema())


def test_a_record_fits_and_a_changed_one_does_not(tmp_path: Path, make_record: Callable[..., Record]) -> None:
    given = Predictions.from_probabilities(["i"], [0], np.array([[0.5, 0.5]]), "ab")
    content = json.loads((make_record().write(tmp_path, given) / RECORD_FILE).read_text())
    jsonschema.validate(content, record_schema())
    changes: list[dict[str, Any]] = [{"colour": 1}, {"run_id": 7}, {"metrics": {"top1": {"value": 1.0}}}, {"grid": {}}]
    for change in changes:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**content, **change}, record_schema())
    del content["request"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, record_schema())


def test_the_page_names_every_key() -> None:
    page = (ROOT / "docs/records.md").read_text()
    assert [key for key in Record.model_fields if f"`{key}`" not in page] == []
    assert len(page.splitlines()) <= 120
