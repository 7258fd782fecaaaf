"""`bob plot`: the pictures it writes, and its mistakes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bob.errors import UserError
from bob.plot import plot
from bob.results.record import Record

Run = Callable[..., str]
RECORDS = Path(__file__).parent / "report" / "conftest.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, make_record: Callable[..., Record]) -> Path:
    """The records that the report is tested with."""
    spec = importlib.util.spec_from_file_location("records_of_report", RECORDS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp("results")
    module.write_results(root, make_record)
    return root


@pytest.fixture
def run(results: Path, home: Path, run_command: Run) -> Run:
    def run(kind: str, *arguments: object) -> str:
        return run_command(plot, kind, "--results", results, *arguments)

    return run


@pytest.mark.parametrize("kind", ["ranks", "correlation", "pareto", "depth", "factors"])
def test_pictures(run: Run, kind: str, tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("a.png", "a.svg")]
    shown = run(kind, *(part for name in names for part in ("-o", name)))
    assert shown.splitlines() == [f"Written: {name}" for name in names]
    again = tmp_path / "b.svg"
    run(kind, "-o", again)
    assert again.read_bytes() == names[1].read_bytes()
    assert names[0].read_bytes().startswith(b"\x89PNG") and names[0].stat().st_size > 5000


def test_what_is_drawn(run: Run, tmp_path: Path) -> None:
    svg = partial(_text, run, tmp_path / "a.svg")
    assert "parameters (millions)" in svg("pareto") and "GFLOPs of one image" in svg("pareto", "--x", "flops")
    only = svg("ranks", "-b", "*vit*", "--over", "tasks", "--by", "mean_rank", "--ddof", "0")
    assert "mae_vitb16" in only and "convnext_base" not in only
    assert "the best 6 of 8 backbones" in svg("factors")
    assert "satellite" in svg("correlation") and "satellite" not in svg("correlation", "-t", "birds,textures")


def test_mistakes(run: Run, tmp_path: Path) -> None:
    out = "-o", tmp_path / "a.png"
    with pytest.raises(UserError, match=r"There is no chart 'rank'\. Did you mean: ranks\?"):
        run("rank", *out)
    with pytest.raises(UserError, match=r"Give a name that ends in \.png or \.svg"):
        run("ranks", "-o", tmp_path / "a.pdf")
    with pytest.raises(UserError, match=r"--x flop is not known\. Did you mean: flops"):
        run("pareto", "--x", "flop", *out)
    with pytest.raises(UserError, match="--x is about pareto, not ranks"):
        run("ranks", "--x", "flops", *out)
    with pytest.raises(UserError, match="two settings and four backbones"):
        run("correlation", "-b", "mae*,clip*", *out)
    with pytest.raises(UserError, match="There are no layer-wise runs"):
        run("depth", "-b", "convnext_base", *out)
    with pytest.raises(UserError, match="No record is about factors"):
        run("factors", "-t", "birds", *out)
    with pytest.raises(UserError, match="No record matches"):
        run("ranks", "-b", "zzz", *out)
    assert not (tmp_path / "a.png").exists()


def _text(run: Run, path: Path, *arguments: object) -> str:
    run(*arguments, "-o", path)
    return path.read_text(encoding="utf-8")
