"""`bob depth`: the table it prints, the files it writes, and its mistakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from bob.depth import depth
from bob.errors import UserError
from bob.results.predictions import Predictions
from bob.results.record import Record

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, make_record: Callable[..., Record], run_command: Run) -> Run:
    """Run the command on records of two backbones at three blocks each, and give what it prints."""
    made = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab")
    for backbone in ("a", "b"):
        make_record(backbone, 0.7, protocol="knn").write(tmp_path, made)
        make_record(backbone, 0.6, protocol="linear").write(tmp_path, made)
        for block in range(3):
            record = make_record(backbone, 0.3 + 0.2 * block, protocol=f"knn@block{block}")
            protocol = {**record.request.protocol, "block": block, "blocks": 3}
            request = record.request.model_copy(update={"protocol": protocol})
            record.model_copy(update={"request": request, "run_id": request.run_id()}).write(tmp_path, made)
    return partial(run_command, depth, "--results", tmp_path)


def test_table(run: Run) -> None:
    lines = [line.split() for line in run().splitlines()]
    assert lines[0] == ["backbone", "setting", "metric", "block", "depth", "score"]
    assert lines[1] == ["a", "t/knn", "top1", "0", "0.33", "0.300", "[0.200,", "0.400]"]
    assert lines[4] == ["a", "t/knn", "top1", "plain", "1.00", "0.700", "[0.600,", "0.800]"]
    assert len(lines) == 9
    assert len(run("-b", "a", "-t", "t", "-p", "knn").splitlines()) == 5


def test_files(run: Run, tmp_path: Path) -> None:
    names = [tmp_path / f"curve.{suffix}" for suffix in ("png", "svg", "csv")]
    shown = run(*(part for name in names for part in ("-o", name)))
    assert shown.count("Written: ") == 3 and all(name.stat().st_size > 100 for name in names)
    assert list(pd.read_csv(names[2])["depth"].round(2))[:4] == [0.33, 0.67, 1.0, 1.0]


def test_mistakes(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Give a name that ends in \.csv, \.png or \.svg"):
        run("-o", tmp_path / "curve.jpg")
    with pytest.raises(UserError, match="There are no layer-wise runs"):
        run("-p", "linear")
    with pytest.raises(UserError, match="No record matches"):
        run("-b", "zzz")
