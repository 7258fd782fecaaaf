"""`bob results`: what it prints, where, and its exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bob import results_command
from bob.errors import UserError
from bob.results.schema import record_schema

OLD = Path(__file__).parent / "results/old_records"


@pytest.fixture
def bob_results(home):
    """Run `bob results ...`; gives the result of typer's runner, a `UserError` being its exception."""
    app = typer.Typer()
    app.add_typer(results_command.app, name="results")
    return lambda *arguments: CliRunner().invoke(app, ["results", *map(str, arguments)])


@pytest.fixture
def results(home):
    """Three records of older schemas in ./results."""
    return Path(shutil.copytree(OLD, "results"))


def test_verify_says_that_all_match(bob_results, results):
    ended = bob_results("verify", "-q")
    assert ended.exit_code == 0
    assert ended.stdout.splitlines() == [
        "3 records verified: all match.",
        "3 records older than schema 4 have no checksum of their own: ids, predictions and scores were checked; "
        "cards, grids, notes, costs, environments and dates cannot be.",
    ]


def test_verify_names_what_does_not(bob_results, results):
    [folder] = results.glob("runs/constant__*")
    path = folder / "record.json"
    content = json.loads(path.read_text())
    stated = content["metrics"]["top1"]["value"]
    content["metrics"]["top1"]["value"] = 0.5
    path.write_text(json.dumps(content))
    ended = bob_results("verify", results, "-b", "const*", "--jobs", 1)
    assert ended.exit_code == 1
    assert ended.stdout.splitlines()[:2] == [
        f"{folder.name}: metrics.top1.value: stated 0.5, recomputed {stated}",
        "1 record verified: 1 of them does not match.",
    ]
    content["metrics"]["top1"] |= {"low": 0.0, "high": 0.0, "n": 0}
    path.write_text(json.dumps(content))
    assert bob_results("verify", "-b", "const*").stdout.splitlines()[0].endswith("; and 1 more")


def test_verify_of_nothing(bob_results, results):
    assert "no records in" in str(bob_results("verify", "nowhere").exception)
    ended = bob_results("verify", "-t", "birds")
    assert isinstance(ended.exception, UserError) and "No record matches" in str(ended.exception)


def test_merge_says_how_many(bob_results, results):
    assert bob_results("merge", "results", "--into", "all", "--dry-run").stdout == (
        "3 runs would be copied to all, 0 already there.\n"
    )
    assert not Path("all").exists()
    assert bob_results("merge", "results", "--into", "all").stdout == "3 runs copied to all, 0 already there.\n"
    assert bob_results("merge", "results", "--results", "all").stdout == "0 runs copied to all, 3 already there.\n"
    shutil.copytree("results", "again")
    assert bob_results("merge", "results", "again", "--into", "new").stdout == (
        "3 runs copied to new, 0 already there, 3 more given twice.\n"
    )


def test_merge_goes_to_results(bob_results, home):
    shutil.copytree(OLD, "cluster")
    assert bob_results("merge", "cluster").stdout == "3 runs copied to results, 0 already there.\n"


def test_merge_refuses_by_name_and_copies_nothing(bob_results, results):
    for folder in results.glob("runs/*"):
        (folder / "predictions.parquet").write_bytes(b"")
    ended = bob_results("merge", "results", "--into", "all")
    assert isinstance(ended.exception, UserError)
    assert str(ended.exception).startswith("Nothing was copied: 3 runs cannot be joined, named above.")
    lines = ended.stderr.splitlines()
    assert len(lines) == 3 and all(line.startswith("bob: results/runs/") and "is damaged" in line for line in lines)
    assert not Path("all").exists()


def test_schema(bob_results, home):
    assert json.loads(bob_results("schema").stdout) == record_schema()
    assert "Written: " in bob_results("schema", "--out", "here.json").stdout
    assert json.loads(Path("here.json").read_text()) == record_schema()


def test_no_torch_is_imported():
    code = (
        "import sys, bob.results_command, bob.results.merge, bob.results.verify, bob.results.schema, bob.cores;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
