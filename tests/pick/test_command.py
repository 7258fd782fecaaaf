"""The command `bob pick`: what it prints and writes, and that every mistake is one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from bob.errors import UserError
from bob.pick.command import pick

Run = Callable[..., str]


@pytest.fixture
def run(home: Path, tmp_path: Path, run_command: Run) -> Run:
    """Run the command and give what it prints."""
    common = ["--results", tmp_path / "results", "--workers", "0", "--quiet", "--no-finetune"]
    return partial(run_command, pick, *common)


def test_an_answer(run: Run, photos: Path, tmp_path: Path) -> None:
    out = run(photos, "--budget", "10m", "-b", "pixels,constant", "--out", tmp_path / "t.csv")
    first, last = (line for line in out.splitlines() if "test images" in line)
    assert first.startswith("1") and "pixels" in first and "constant" in last
    assert "To go on:" in out and f"bob leaderboard --task folder:{photos}" in out
    written = pd.read_csv(tmp_path / "t.csv")
    assert written["backbone"].tolist() == ["pixels", "constant"]


def test_a_csv_of_images(run: Run, photos: Path) -> None:
    lines = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted(photos.glob("*/*"))]
    (photos / "list.csv").write_text("\n".join(["path,label", *lines]))
    assert "pixels is the only one that has a score." in run(photos / "list.csv", "-b", "pixels")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--budget", "10"], "'10' is no budget of time"),
        (["-b", "no_such_backbone"], "Unknown backbone 'no_such_backbone'"),
        (["-b", ","], "--backbone names nothing"),
        (["-b", "pixels", "--device", "toaster"], "There is no device 'toaster'"),
        (["-b", "pixels", "--out", "table.txt"], "table.txt"),
    ],
)
def test_mistakes(run: Run, photos: Path, arguments: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        run(photos, *arguments)


def test_no_folder(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        run(tmp_path / "nowhere", "-b", "pixels")


def test_an_empty_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no class folders"):
        run(tmp_path / "empty", "-b", "pixels")


def test_one_class(run: Run, make_photos: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only one class, 'ant'"):
        run(make_photos(tmp_path / "ants", classes=("ant",)), "-b", "pixels")


def test_too_few_images_of_a_class(run: Run, photos: Path) -> None:
    (photos / "dog").mkdir()
    (photos / "ant" / "000.png").rename(photos / "dog" / "000.png")
    with pytest.raises(UserError, match="Class 'dog' has only 1 image"):
        run(photos, "-b", "pixels")


def test_a_broken_image(run: Run, photos: Path) -> None:
    for path in photos.glob("*/*"):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="Cannot read image"):
        run(photos, "-b", "pixels")


def test_a_budget_that_is_up_before_anything(run: Run, photos: Path) -> None:
    with pytest.raises(UserError, match=r"A budget of 0\.5 s is up before"):
        run(photos, "--budget", "0.5s", "-b", "pixels")
