"""Records of eight backbones on six settings, with layer-wise runs and factors, as `bob run` would have left them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bob.results.factors import FactorPredictions
from bob.results.index import read_runs
from bob.results.judging import judge
from bob.results.predictions import Predictions
from bob.results.record import Record
from bob.results.runs import comparable, select
from bob.standings.cells import Cells, cells_of
from bob.standings.grid import Grid
from bob.standings.standings import standings

# Name, paradigm, how good it is, millions of parameters, images/s.
BACKBONES = (
    ("convnext_base", "supervised", 0.90, 88.6, 210.0),
    ("swinv2_base", "supervised", 0.89, 87.9, 140.0),
    ("clip_vit_b16", "vlm", 0.84, 86.2, 300.0),
    ("dinov2_vits14", "ssl", 0.83, 22.1, 620.0),
    ("mae_vitb16", "ssl", 0.62, 85.8, 310.0),
    ("stable_diffusion_encoder", "generative", 0.58, 34.2, 90.0),
    ("midas_hybrid", "depth", 0.66, 123.0, 120.0),
    ("resnet18.random", "baseline", 0.35, 11.7, 1400.0),
)
# Task, kind of task, protocol, how hard it is.
SETTINGS = (
    ("birds", "classification", "linear", 0.00),
    ("birds", "classification", "knn", 0.06),
    ("textures", "classification", "linear", 0.10),
    ("satellite", "classification", "linear", -0.05),
    ("places_far", "ood", "linear", 0.15),
    ("objects_x", "factors", "linear", 0.08),
)
FACTORS = ("pose", "background", "darker", "object_blocking")
SAMPLES = 300


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, make_record: Callable[..., Record]) -> Path:
    """A results folder with one record for each backbone and setting, and curves of two backbones."""
    root = tmp_path_factory.mktemp("results")
    write_results(root, make_record)
    return root


@pytest.fixture
def runs(results: Path, home: Path) -> pd.DataFrame:
    """All runs, layer-wise ones among them."""
    return comparable(read_runs(results))


@pytest.fixture
def cells(runs: pd.DataFrame) -> Cells:
    return cells_of(select(runs, [], [], []))


@pytest.fixture
def grid(cells: Cells) -> Grid:
    return Grid.of(cells)


@pytest.fixture
def ranking(grid: Grid) -> pd.DataFrame:
    return standings(grid)


def write_results(root: Path, make_record: Callable[..., Record]) -> None:
    """Write the records with predictions whose accuracy is about what `BACKBONES` says."""
    rng = np.random.default_rng(0)
    difficulties = {task: rng.random(SAMPLES) for task, *_ in SETTINGS}
    for name, paradigm, skill, millions, speed in BACKBONES:
        cost = {"images_per_second": speed, "parameters": int(millions * 1e6), "flops": int(millions * 2.1e8)}
        common = {"card": {"paradigm": paradigm, "method": "timm", "architecture": name.split("_")[0]}}
        for task, kind, protocol, hard in SETTINGS:
            share = skill - hard * skill + rng.normal(scale=0.02)
            _write(
                root, make_record(name, task=task, protocol=protocol, **cost), common, kind, difficulties[task], share
            )
        for block in range(6) if name in ("dinov2_vits14", "mae_vitb16") else ():
            share = skill * (0.45 + 0.11 * block - (0.04 if block == 5 else 0))
            record = make_record(name, task="birds", protocol=f"knn@block{block}", **cost)
            protocol = {**record.request.protocol, "block": block, "blocks": 6}
            request = record.request.model_copy(update={"protocol": protocol})
            record = record.model_copy(update={"request": request, "run_id": request.run_id()})
            _write(root, record, common, "classification", difficulties["birds"], share)


def _write(root: Path, record: Record, common: dict[str, Any], kind: str, difficulty: np.ndarray, share: float) -> None:
    """Write a record whose metrics are those of predictions of which about `share` are right."""
    rng = np.random.default_rng(int(record.run_id, 16))
    right = difficulty + rng.normal(scale=0.15, size=SAMPLES) < share
    labels = np.arange(SAMPLES) % 2
    likely = np.where(right, labels, 1 - labels)
    probabilities = np.where(likely[:, None] == np.arange(2), 0.8, 0.2)
    predictions = Predictions.from_probabilities([f"{n:03d}" for n in range(SAMPLES)], labels, probabilities, "ab")
    breakdown = {}
    if kind == "factors":
        flags = np.arange(SAMPLES)[:, None] % len(FACTORS) == np.arange(len(FACTORS))
        predictions = FactorPredictions.of(predictions, flags & (difficulty[:, None] > 0.2), FACTORS)
        breakdown = predictions.breakdown()
    judgement = judge(predictions, ("top1",), "top1")
    record.model_copy(
        update={
            **common,
            "task_card": {"adapter": kind},
            "environment": {"device": "NVIDIA H200", "bob": "0.1"},
            "metrics": judgement.metrics,
            "resampled": judgement.resampled,
            "breakdown": breakdown,
        }
    ).write(root, predictions)
