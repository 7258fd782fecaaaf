"""A package that declares entry points adds backbones and tasks; the worked example is installed and run."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder into which pip has installed the example."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", folder, EXAMPLE], check=True, timeout=100)
    return folder


@pytest.fixture
def bob(installed, run_python):
    return lambda *arguments: run_python("-m", "bob", *arguments, PYTHONPATH=str(installed))


def _plugin(folder: Path, group: str, line: str) -> Path:
    """An installed package `their-plugin` with one entry point."""
    info = folder / "their_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{line}\n")
    return folder


def test_its_cards_and_callables_are_listed(bob):
    listed = bob("list", "backbones").out
    assert "colour_histogram" in listed and "gradient_histogram" in listed
    assert "shapes_knn" in bob("list", "tasks").out
    shown = bob("show", "colour_histogram").out
    assert "Added by bob-handcrafted." in shown and "bob_handcrafted.histograms:colour_histogram" in shown


def test_without_it_they_are_unknown(run_python):
    ended = run_python("-m", "bob", "show", "colour_histogram")
    assert ended.code == 2 and "colour_histogram" in ended.err


def test_its_backbones_run_on_a_task(bob, photos):
    names = "colour_histogram,gradient_histogram,pixels"
    ended = bob("run", "--backbone", names, "--task", f"folder:{photos}", "--protocol", "knn")
    assert ended.code == 0, ended.err
    assert "Running your code: bob_handcrafted.histograms:gradient_histogram" in ended.err
    table = bob("leaderboard").out
    assert all(name in table for name in names.split(","))


def test_listing_imports_no_plugin(run_python, tmp_path):
    folder = _plugin(tmp_path / "site", "bob.backbones", "theirs = their_plugin:make")
    (folder / "their_plugin.py").write_text("raise SystemExit('imported')")
    ended = run_python("-m", "bob", "list", "backbones", PYTHONPATH=str(folder))
    assert ended.code == 0 and "theirs" in ended.out


@pytest.mark.parametrize(
    ("group", "line", "expected"),
    [
        ("bob.backbones", "cards = their_plugin.cards", "names no folder. Correct it, or uninstall the package."),
        ("bob.tasks", "mine = their_plugin:make", "names a callable, but tasks are cards."),
        ("bob.backbones", "pixels = their_plugin:make", "'pixels' is already the name of"),
    ],
)
def test_a_broken_plugin_is_named(group, line, expected, run_python, tmp_path):
    folder = _plugin(tmp_path / "site", group, line)
    what = group.partition(".")[2]
    ended = run_python("-m", "bob", "list", what, PYTHONPATH=str(folder))
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert f"entry point '{line}' of their-plugin" in ended.err.lower() or line in ended.err
    assert expected in ended.err and "their-plugin" in ended.err


def test_a_plugin_that_fails_when_it_is_run(run_python, tmp_path, photos):
    folder = _plugin(tmp_path / "site", "bob.backbones", "theirs = their_plugin:make")
    (folder / "their_plugin.py").write_text("def make():\n    return 1 / 0\n")
    ended = run_python("-m", "bob", "run", "-b", "theirs", "-t", f"folder:{photos}", PYTHONPATH=str(folder))
    assert ended.code == 2 and "ZeroDivisionError" in ended.err and "their_plugin.py:2" in ended.err
