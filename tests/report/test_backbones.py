"""What the page says of a backbone: fields of its card, its contact sheet."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bob import places
from bob.errors import UserError
from bob.report.backbones import Details, details_of, with_sheets
from bob.results.index import read_runs
from bob.results.predictions import Predictions
from bob.results.record import Record

NOTHING = Details([], [], [])


def test_details(home: Path, tmp_path: Path, make_record: Callable[..., Record]) -> None:
    made = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab")
    reference = {"dataset": "ImageNet-1k val", "metric": "top1", "value": 75.1, "source": "https://example.org/a"}
    card = {"description": "Old words.", "licence": "MIT"}
    old = make_record("a", card=card, created="2025-01-01T00:00:00.000+00:00")
    old.model_copy(update={"notes": ("one", "two")}).write(tmp_path, made)
    card = {"description": "New words.", "facts": ["https://example.org/b"], "references": [reference]}
    make_record("a", protocol="knn", card=card, parameters=1234).write(tmp_path, made)
    runs = read_runs(tmp_path)
    found = details_of(tmp_path, runs)["a"]
    assert found.fields[:2] == [("What it is", "New words."), ("Parameters", "1,234")]  # the newest record's
    assert found.references == [("top1 75.1 on ImageNet-1k val", "https://example.org/a")]
    assert found.facts == ["https://example.org/b"] and sorted(runs["notes"]) == ["", "one; two"]


def test_sheets(tmp_path: Path) -> None:
    assert places.sheet_name("hf:org/name.random") == "check-hf-org-name.random.png"  # as `bob check` calls it
    path = tmp_path / places.sheet_name("a")
    Image.new("RGB", (2, 2)).save(path)
    found = with_sheets({"a": NOTHING, "b": NOTHING}, tmp_path)
    assert found["a"].sheet == "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    assert found["b"].sheet is None


def test_whose_sheet_is_it(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "check-a-b.png")
    assert all(said.sheet is None for said in with_sheets({"a/b": NOTHING, "a-b": NOTHING}, tmp_path).values())


def test_no_png(tmp_path: Path) -> None:
    (tmp_path / "check-a.png").write_text("<svg onload='alert(1)'/>")
    with pytest.raises(UserError, match=r"check-a\.png is no PNG"):
        with_sheets({"a": NOTHING}, tmp_path)
