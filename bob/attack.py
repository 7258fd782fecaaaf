"""The `bob attack` command: how much of a linear probe's accuracy is left when an attacker may change the images."""

from __future__ import annotations

import json as json_format
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from bob.console import print_lines
from bob.errors import UserError, did_you_mean
from bob.options import DataRoot, Folders, Quiet, TaskFolders, extraction

if TYPE_CHECKING:
    import numpy as np
    import torch

    from bob.cards import BackboneCard
    from bob.data.base import Split
    from bob.probes.base import Probe
    from bob.progress import Reporter
    from bob.requested import Settings
    from bob.robustness import RobustResult
    from bob.task_cards import TaskCard
    from bob.workbench import Workbench

ATTACKS = ("pgd", "autoattack")
NORMS = ("linf", "l2")
_SCORES = ("clean", "robust")
_BATCH = 32  # images that a worker reads at a time


@dataclass(frozen=True)
class Threat:
    """What the attacker may do, in the words of `bob.robustness.robust_accuracy`."""

    attack: Literal["pgd", "autoattack"]
    eps: float
    norm: Literal["linf", "l2"]
    steps: int | None
    seed: int


def attack(
    backbone: Annotated[str, typer.Option("--backbone", "-b", help="Card, timm name, file.py:make; one.")],
    task: Annotated[str, typer.Option("--task", "-t", help="Card, folder:PATH, torchvision:NAME; one.")],
    protocol: Annotated[str, typer.Option("--protocol", "-p", help="linear or ridge.")] = "linear",
    method: Annotated[str, typer.Option("--attack", help="pgd or autoattack.")] = "pgd",
    eps: Annotated[float, typer.Option(min=0, help="Radius: in 1/255 for linf, in [0, 1] pixel values for l2.")] = 4.0,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    steps: Annotated[int | None, typer.Option(min=1, help="Default: 40 for pgd, 100 for autoattack.")] = None,
    images: Annotated[int, typer.Option(min=1, help="How many test images, drawn at random.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw and of the attack's random starts.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward pass.")] = 64,
    results: Annotated[Path, typer.Option(help="Folder of the records; a run that is missing is made.")] = Path(
        "results"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    data_root: DataRoot = None,
    registry: Folders = None,
    tasks: TaskFolders = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Quiet = False,
) -> None:
    """Attack a linear probe through the gradient of its frozen backbone, within a ball around each image."""
    threat = _checked_threat(method, eps, norm, steps, seed)

    from bob.backbones.sources import resolve_backbone
    from bob.catalogue import load_backbone_cards, load_task_cards, resolve_tasks
    from bob.progress import Reporter
    from bob.requested import Settings

    cards = resolve_tasks([task], load_task_cards(tasks or []))
    if len(cards) > 1:
        raise UserError(f"'{task}' names {len(cards)} tasks.", "Give one.")
    if cards[0].adapter != "classification":
        raise UserError(f"{cards[0].name} has several labels an image.", "Attack a task of one label an image.")
    card = resolve_backbone(backbone, load_backbone_cards(registry or []))
    how = extraction(device, "auto", batch_size)
    settings = Settings(results=results, how=how, protocols=(protocol,), seeds=(0,), data_root=data_root)
    reporter = Reporter(quiet)
    bench, loading = _open(card, cards[0], settings)
    result = attack_probe(bench, loading, threat, images, reporter)
    summary = _summary(result)
    print_lines([json_format.dumps(summary, indent=1)] if json else _lines(bench, summary))


def attack_probe(bench: Workbench, loading: float, threat: Threat, count: int, reporter: Reporter) -> RobustResult:
    """Fit the probe that the bench's only run chose, and attack it on some test images.

    A run that has no record yet is made first, so that features and hyperparameters are those of the leaderboard.

    Args:
        bench: A backbone and a task with one protocol and one seed.
        loading: Seconds that opening the backbone took, for that record.
        threat: What the attacker may do.
        count: Test images at most.
        reporter: Told what happens.

    Raises:
        UserError: If the protocol is not a linear probe on the global feature, or as `robust_accuracy`.
    """
    from bob.robustness import classifier, robust_accuracy

    probe = _fitted(bench, loading, reporter)
    how, split = bench.settings.how, bench.jobs[0].dataset.splits["test"]
    model = classifier(bench.backbone.to(how.device), probe)
    pixels, labels = _draw(bench, split, count, threat.seed)
    reporter.say(f"{bench.backbone.card.name} on {bench.task.name}: {threat.attack} on {len(labels)} images")
    batch_size = how.batch_size or 64
    return robust_accuracy(model, pixels, labels, batch_size=batch_size, device=how.device, **vars(threat))


def _open(card: BackboneCard, task: TaskCard, settings: Settings) -> tuple[Workbench, float]:
    from bob.backbones.sources import open_backbone
    from bob.data.sources import load_task
    from bob.workbench import Workbench

    started = time.perf_counter()
    backbone = open_backbone(card)
    identity = backbone.identity()
    loading = time.perf_counter() - started
    return Workbench(backbone, identity, task, load_task(task, settings.data_root), settings), loading


def _fitted(bench: Workbench, loading: float, reporter: Reporter) -> Probe:
    """The probe of the bench's only run, fitted as there."""
    import numpy as np

    from bob.adapters.probing import Probing
    from bob.features.reading import FEATURE
    from bob.probes.logistic import LogisticRegression
    from bob.probes.ridge import RidgeClassifier
    from bob.results.reading import read_record
    from bob.results.record import RECORD_FILE, record_folder
    from bob.run import Summary, run_pair

    job, asked = bench.jobs[0], bench.jobs[0].protocol
    linear = isinstance(asked, Probing) and asked.probe in (LogisticRegression, RidgeClassifier)
    if len(bench.jobs) > 1 or not isinstance(asked, Probing) or not linear or asked.reading != FEATURE:
        raise UserError(f"The protocol '{asked.title}' is no linear probe to attack.", "Use linear or ridge.")
    run_pair(bench, summary := Summary(), reporter, loading)
    if summary.failed:
        raise UserError(summary.failed[0])
    chosen = read_record(record_folder(bench.settings.results, job.request) / RECORD_FILE).chosen
    splits = [job.dataset.splits[name] for name in asked.final_splits]
    features = np.concatenate([bench.features(split) for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    return asked.probe(**chosen).fit(features, labels, len(job.dataset.classes))


def _draw(bench: Workbench, split: Split, count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Some images of a split, float32 (N, 3, h, w) in [0, 1] as the backbone crops them, and their labels (N,)."""
    import numpy as np
    import torch

    from bob.data.loader import load_batches

    drawn = np.sort(np.random.default_rng(seed).permutation(len(split))[:count])
    rows = split.indices[drawn].tolist()
    batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    crops = load_batches(split.images, batches, bench.backbone.preprocess.crop, bench.settings.how.workers)
    return torch.cat([batch.images for batch in crops]).float() / 255, split.labels[drawn]


def _checked_threat(method: str, eps: float, norm: str, steps: int | None, seed: int) -> Threat:
    for option, value, known in (("--attack", method, ATTACKS), ("--norm", norm, NORMS)):
        if value not in known:
            raise UserError(f"{option} is '{value}'.", did_you_mean(value, known) or f"Use {' or '.join(known)}.")
    return Threat(cast(Any, method), eps, cast(Any, norm), steps, seed)


def _summary(result: RobustResult) -> dict[str, Any]:
    """JSON-ready, with 95% intervals (Wilson)."""
    from scipy.stats import binomtest

    summary: dict[str, Any] = {"n": result.n, "attack": result.attack}
    for name, right in (("clean", result.correct_clean), ("robust", result.correct)):
        interval = binomtest(int(right.sum()), result.n).proportion_ci(method="wilson")
        summary[name] = {"value": float(right.mean()), "low": float(interval.low), "high": float(interval.high)}
    return summary


def _lines(bench: Workbench, summary: dict[str, Any]) -> list[str]:
    scores = [
        f"{name} {s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for name, s in summary.items() if name in _SCORES
    ]
    return [
        f"{bench.backbone.card.name} on {bench.task.name}, {bench.settings.protocols[0]}: {', '.join(scores)}",
        f"{summary['n']} test images; {summary['attack']}",
    ]
