"""What a command would do and roughly how long it would take, found out without doing it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone
from bob.cards import BackboneCard
from bob.data.base import Dataset
from bob.data.sources import load_task
from bob.errors import UserError
from bob.features.extract import BackingOff, Extraction, images_to_embed, prepare
from bob.requested import Settings, protocols_of
from bob.results.record import has_record
from bob.task_cards import TaskCard
from bob.workbench import Job, Workbench, without_repeats


@dataclass(frozen=True)
class PlannedPair:
    """What would happen to one backbone on one task.

    Attributes:
        backbone: Name.
        task: Name.
        runs: Runs asked for.
        present: Runs that have their record already.
        images: Images of the task, counted once for each pass over them: other crops need a pass of their own.
        to_embed: Images whose features are needed and not stored.
        bytes_per_image: Of the stored features.
        seconds: Rough time of what is left to extract; decoding is not counted, nor are probes and training.
        failures: Why protocols asked for are not among the runs.
    """

    backbone: str
    task: str
    runs: int
    present: int
    images: int
    to_embed: int
    bytes_per_image: int
    seconds: float
    failures: tuple[str, ...] = ()


def plan(backbones: Sequence[BackboneCard], tasks: Sequence[TaskCard], settings: Settings) -> list[PlannedPair]:
    """Open every backbone and data set asked for, and look up what is already there.

    Raises:
        UserError: If one of them cannot be opened.
    """
    for task in tasks:
        protocols_of(task, settings)
    datasets = {task.name: load_task(task, settings.data_root) for task in tasks}
    planned = []
    for card in backbones:
        backbone = open_backbone(card)
        identity, seconds = backbone.identity(), seconds_per_image(backbone, settings.how)
        for task in tasks:
            bench = Workbench(backbone, identity, task, datasets[task.name], settings)
            planned.append(_plan_pair(bench, datasets[task.name], seconds))
    return planned


def seconds_per_image(backbone: Backbone, how: Extraction) -> float:
    """Time of the forward pass, measured on one batch of noise after one to warm up."""
    forward = BackingOff(prepare(backbone, how.device), how)
    noise = torch.randint(256, (how.images_per_batch, 3, *backbone.preprocess.size), dtype=torch.uint8)
    forward(noise)
    started = time.perf_counter()
    forward(noise).cpu()
    return (time.perf_counter() - started) / len(noise)


def _plan_pair(bench: Workbench, dataset: Dataset, seconds: float) -> PlannedPair:
    (jobs, failures), again = _possible_jobs(bench), bench.settings.recompute
    todo = [job for job in jobs if again or not has_record(bench.settings.results, job.request)]
    images = sum(len(images) for images in dataset.image_sets())
    passes = {reading.crops for job in jobs for reading in job.protocol.readings}
    needed = {reading for job in todo for reading in job.protocol.readings}
    to_embed, forwards = 0, 0.0
    for crops in {reading.crops for reading in needed}:
        together = [reading for reading in needed if reading.crops == crops]
        pairs = bench.stores(together)
        count = images if again else sum(images_to_embed(stores) for _, stores in pairs)
        to_embed, forwards = to_embed + count, forwards + count * together[0].forwards(bench.backbone)
    _, stores = next(bench.stores(reading for job in jobs for reading in job.protocol.readings))
    return PlannedPair(
        backbone=bench.backbone.card.name,
        task=bench.task.name,
        runs=len(jobs),
        present=len(jobs) - len(todo),
        images=images * max(1, len(passes)),
        to_embed=to_embed,
        bytes_per_image=sum(store.row_bytes for store in stores.values()),
        seconds=forwards * seconds,
        failures=tuple(failures),
    )


def _possible_jobs(bench: Workbench) -> tuple[list[Job], list[str]]:
    """The runs of the protocols that suit the backbone and the data, and why the others do not."""
    jobs: list[Job] = []
    failures: list[str] = []
    for protocol in bench.protocols:
        try:
            jobs += bench.jobs_of(protocol)
        except UserError as error:
            failures.append(str(error))
    return without_repeats(jobs), failures
