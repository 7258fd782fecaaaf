"""What several tests share: a place of their own, tiny photographs, records out of thin air, and `bob` itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from bob.results.draws import pack
from bob.results.record import Cost, MetricResult, Record, Request


@dataclass(frozen=True)
class Ended:
    """How a `bob` command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty BOB_HOME and an empty working folder."""
    folder = tmp_path / "home"
    monkeypatch.setenv("BOB_HOME", str(folder))
    monkeypatch.delenv("BOB_DATA", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.fixture
def run_bob(home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a `bob` command in this process."""
    from bob.cli import main

    def run(*arguments: object) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ended(int(stopped.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def run_command() -> Callable[..., str]:
    """Run the function of a command, or a group of commands, and give what it prints; its mistakes are raised."""

    def run(command: Callable[..., None] | typer.Typer, *arguments: object) -> str:
        app = command
        if not isinstance(app, typer.Typer):
            app = typer.Typer()
            app.command()(command)
        ended = CliRunner().invoke(app, [str(argument) for argument in arguments], standalone_mode=False)
        if ended.exception is not None:
            raise ended.exception
        return ended.stdout

    return run


@pytest.fixture
def run_python(home: Path) -> Callable[..., Ended]:
    """Run the interpreter in a process of its own, with one thread."""

    def run(*arguments: object, **variables: str) -> Ended:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def make_photos() -> Callable[..., Path]:
    """Make a folder of class folders with tiny photographs: a colour for each class, and noise."""

    def make(root: Path, classes: tuple[str, ...] = ("ant", "bee", "cat"), each: int = 10, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        for label, name in enumerate(classes):
            (root / name).mkdir(parents=True)
            colour = np.eye(3)[label % 3] * 90 + 60
            for number in range(each):
                pixels = np.clip(colour + rng.normal(scale=70, size=(12, 16, 3)), 0, 255).astype(np.uint8)
                suffix = ".jpg" if number % 2 else ".png"
                Image.fromarray(pixels).save(root / name / f"{number:03d}{suffix}")
        return root

    return make


@pytest.fixture
def photos(tmp_path: Path, make_photos: Callable[..., Path]) -> Path:
    """Thirty photographs of three classes."""
    return make_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    """Make a record of one score."""

    def make(
        backbone: str = "a",
        score: float = 0.5,
        *,
        task: str = "t",
        protocol: str = "linear",
        metric: str = "top1",
        higher_is_better: bool = True,
        seed: int = 0,
        created: str = "2026-01-01T00:00:00.000+00:00",
        weights: str = "w",
        data: str = "d",
        category: str = "classification",
        draws: np.ndarray | None = None,
        card: dict[str, Any] | None = None,
        environment: dict[str, Any] | None = None,
        **cost: Any,
    ) -> Record:
        request = Request(
            backbone=backbone,
            backbone_identity={"weights_sha256": weights},
            task=task,
            task_version=1,
            data={"images_sha256": data},
            protocol={"name": protocol, "version": 1, "probe": "P", "grid": [{"k": 1}]},
            metrics=(metric,),
            seed=seed,
            precision="float32",
        )
        result = MetricResult(value=score, low=score - 0.1, high=score + 0.1, n=9, higher_is_better=higher_is_better)
        measured = {"images_per_second": 10.0, "parameters": 1_000_000, "flops": 7, **cost}
        return Record(
            run_id=request.run_id(),
            request=request,
            card={"paradigm": "baseline", **(card or {})},
            task_card={"adapter": category},
            data_facts={},
            feature_width=2,
            chosen={"k": 1},
            grid=[{"k": 1}],
            notes=(),
            primary=metric,
            metrics={metric: result},
            resampled="" if draws is None else pack(draws),
            per_class=[],
            environment=environment or {},
            cost=Cost(seconds={}, waiting_fraction=0.0, peak_memory_bytes=1, **measured),
            created=created,
        )

    return make
