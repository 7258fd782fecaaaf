"""`bob data verify`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import shutil

import pytest
import typer
from typer.testing import CliRunner

from bob import data_command
from bob.errors import UserError


@pytest.fixture
def bob_data(home):
    """Run `bob data ...`; gives the result of typer's runner, a `UserError` being its exception."""
    app = typer.Typer()
    app.add_typer(data_command.app, name="data")
    return lambda *arguments: CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_a_sound_folder_ends_in_0(bob_data, photos):
    result = bob_data("verify", f"folder:{photos}", "--workers", 0, "--quiet")
    assert result.exit_code == 0
    assert "PASS readable: all 30 images" in result.stdout
    assert result.stdout.rstrip().splitlines()[-1].startswith(("PASS", "WARN"))


def test_a_fault_ends_in_1_and_json_has_it(bob_data, photos, tmp_path):
    (photos / "ant/000.png").write_bytes(b"no image")
    result = bob_data("verify", f"folder:{photos}", "--workers", 1, "-q", "--json", "--out", tmp_path / "report.json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert (report["passed"], report["facts"]["images"]) == (False, 30)
    readable = next(finding for finding in report["findings"] if finding["name"] == "readable")
    assert "ant/000.png: it is not an image" in readable["values"]["images"][0]


def test_a_class_that_runs_would_refuse_is_a_finding(bob_data, photos, tmp_path):
    for split in ("train", "val", "test"):
        shutil.copytree(photos, tmp_path / "set" / split)
    shutil.rmtree(tmp_path / "set/train/cat")
    result = bob_data("verify", f"folder:{tmp_path / 'set'}", "--workers", 0, "-q")
    assert result.exit_code == 1
    assert "FAIL classes: not in train: cat" in result.stdout
    assert "FAIL duplicates" in result.stdout


def test_counts_come_from_the_card(bob_data, photos, tmp_path):
    (tmp_path / "cards").mkdir()
    card = 'name = "mine"\nadapter = "classification"\n[data]\nsource = "folder:photos"\nclasses = 3\n'
    (tmp_path / "cards/mine.toml").write_text(card + "expect = { train = 99 }\n")
    result = bob_data("verify", "mine", "--tasks", tmp_path / "cards", "--data-root", photos.parent, "--workers", 0)
    assert result.exit_code == 1
    assert "instead of 99" in result.stdout


def test_a_folder_without_a_card_may_have_several_labels(bob_data, photos):
    names = sorted(path.relative_to(photos).as_posix() for path in photos.glob("*/*"))
    lines = [f"{name},{'ant|bee' if number % 2 else 'cat'}" for number, name in enumerate(names)]
    (photos / "manifest.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    result = bob_data("verify", f"folder:{photos}", "--workers", 0, "-q")
    assert "PASS readable: all 30 images" in result.stdout and result.exit_code == 0


@pytest.mark.parametrize("task", ["folder:/nowhere/at/all", "shaeps"])
def test_a_users_mistake_is_one(bob_data, task):
    result = bob_data("verify", task)
    assert isinstance(result.exception, UserError)


def test_one_task_at_a_time(bob_data):
    result = bob_data("verify", "*")
    assert "names" in str(result.exception)
    assert isinstance(result.exception, UserError)
