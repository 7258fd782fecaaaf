"""One run after another: backbone x task x protocol x seed, each leaving a record. `python -m bob.run --help`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bob.adapters.base import Adapter, Outcome, Protocol
from bob.adapters.registry import ADAPTERS
from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone
from bob.cards import BackboneCard, TaskCard
from bob.data.base import Dataset, ImageSet, Split
from bob.data.sources import load_dataset
from bob.errors import UserError
from bob.features.extract import Extraction, fill_store, open_store, require_same_features
from bob.features.store import FeatureStore
from bob.machine import count_flops, environment, peak_memory_bytes
from bob.progress import Reporter
from bob.results.metrics import METRICS, get_metric
from bob.results.record import Cost, MetricResult, Record, Request, has_record, record_folder
from bob.results.statistics import bootstrap


@dataclass(frozen=True)
class Settings:
    """How to run, as opposed to what.

    Attributes:
        results: Folder of the records.
        how: Device, precision, batch size and workers.
        protocols: Names; empty for those of each task's card.
        seeds: One run for each.
        data_root: Folder of downloaded data sets; None for the default.
        recompute: Replace stored features and records instead of using them.
    """

    results: Path
    how: Extraction
    protocols: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    data_root: Path | None = None
    recompute: bool = False


@dataclass
class Summary:
    """What became of the runs asked for."""

    written: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One run, ready to be carried out.

    Attributes:
        request: What is asked; its hash is the run's id.
        protocol: The recipe.
        seed: Of everything random in it.
    """

    request: Request
    protocol: Protocol
    seed: int


class Workbench:
    """A backbone and a task, opened: what a run needs and what the runs of one pair share.

    Args:
        backbone: Opened.
        identity: The backbone's, computed once.
        task: Its card.
        dataset: Its images.
        settings: How to run.
    """

    def __init__(
        self, backbone: Backbone, identity: dict[str, Any], task: TaskCard, dataset: Dataset, settings: Settings
    ) -> None:
        self.backbone = backbone
        self.task = task
        self.dataset = dataset
        self.settings = settings
        self.adapter: Adapter = ADAPTERS[task.adapter](task, dataset, device=settings.how.device.type)
        self._identity = identity
        self._stores: dict[int, FeatureStore] = {}
        self._maps: dict[int, np.ndarray] = {}

    def jobs(self) -> list[Job]:
        """Every run asked for of this pair."""
        names = self.settings.protocols or self.task.protocols
        protocols = [self.adapter.protocol(name) for name in names]
        return [Job(self._request(p, seed), p, seed) for p in protocols for seed in self.settings.seeds]

    def stores(self) -> Iterator[tuple[ImageSet, FeatureStore]]:
        """The image sets behind the task and the stores of their features, complete or not."""
        for images in self.dataset.image_sets():
            if id(images) not in self._stores:
                self._stores[id(images)] = open_store(self.backbone, self._identity, images, self.settings.how)
            yield images, self._stores[id(images)]

    def features(self, split: str) -> np.ndarray:
        """Features float32 (n, D) of a split, from complete stores."""
        chosen: Split = self.dataset.splits[split]
        key = id(chosen.images)
        if key not in self._maps:
            self._maps[key] = self._stores[key].read()
        return self._maps[key][chosen.indices]

    def _request(self, protocol: Protocol, seed: int) -> Request:
        others = [name for name in self.task.metrics if name != self.task.primary]
        splits = self.dataset.splits.items()
        return Request(
            backbone=self.backbone.card.name,
            backbone_identity=self._identity,
            task=self.task.name,
            task_version=self.task.version,
            data={
                "classes": len(self.dataset.classes),
                "images_sha256": {name: split.images.fingerprint() for name, split in splits},
                "splits": {name: {"n": len(split), "sha256": split.checksum()} for name, split in splits},
            },
            protocol=protocol.as_dict(),
            metrics=(self.task.primary, *others),
            seed=seed,
            precision=self.settings.how.precision,
        )


def run_all(
    backbones: Sequence[BackboneCard], tasks: Sequence[TaskCard], settings: Settings, reporter: Reporter
) -> Summary:
    """Carry out every run that has no record yet.

    A mistake in one pair of backbone and task does not stop the others; it is in `Summary.failed`.
    """
    summary = Summary()
    datasets: dict[str, Dataset] = {}
    for card in backbones:
        with _collecting(summary, reporter):
            started = time.perf_counter()
            backbone = open_backbone(card)
            identity = backbone.identity()
            loading = time.perf_counter() - started
            for task in tasks:
                with _collecting(summary, reporter):
                    if task.name not in datasets:
                        datasets[task.name] = load_dataset(task.data, settings.data_root)
                    bench = Workbench(backbone, identity, task, datasets[task.name], settings)
                    run_pair(bench, summary, reporter, loading)
    return summary


def run_pair(bench: Workbench, summary: Summary, reporter: Reporter, loading: float) -> None:
    """Carry out the runs of one backbone on one task that have no record yet.

    Args:
        bench: The pair.
        summary: Filled in.
        reporter: Told what happens.
        loading: Seconds that opening the backbone took, for the records.
    """
    title = f"{bench.backbone.card.name} on {bench.task.name}"
    results, todo = bench.settings.results, []
    for job in bench.jobs():
        folder = record_folder(results, job.request)
        if bench.settings.recompute and folder.exists():
            shutil.rmtree(folder)
        if has_record(results, job.request):
            reporter.say(f"{title}, {job.protocol.name}: already there, {folder}")
            summary.present.append(folder)
        else:
            todo.append(job)
    if not todo:
        return
    _provide_features(bench, title, reporter)
    for job in todo:
        started = time.perf_counter()
        outcome = bench.adapter.run(job.protocol, bench.features, job.seed)
        record = _record(bench, job, outcome, loading)
        summary.written.append(record.write(results, outcome.predictions))
        score = record.metrics[record.primary]
        reporter.say(
            f"{title}, {job.protocol.name}: {METRICS[record.primary].label} {score.value:.3f} "
            f"[{score.low:.3f}, {score.high:.3f}], {time.perf_counter() - started:.1f} s"
        )


def _provide_features(bench: Workbench, title: str, reporter: Reporter) -> None:
    """Make sure that every store of the pair is complete."""
    backbone, how = bench.backbone, bench.settings.how
    stores = list(bench.stores())
    if bench.settings.recompute:
        for _, store in stores:
            store.clear()
    wanted = sum(len(images) for images, _ in stores)
    missing = sum(len(rows) for _, store in stores for _, rows in store.missing())
    if wanted > missing:
        reporter.say(f"{title}: {wanted - missing} of {wanted} features are stored already and not computed again")
    if not missing:
        if backbone.card.weights.source == "custom":
            require_same_features(stores[0][1], backbone, stores[0][0], how)
        return
    started = time.perf_counter()
    with reporter.images(title, missing) as advance:
        for images, store in stores:
            fill_store(store, backbone, images, how, advance)
    seconds = time.perf_counter() - started
    reporter.say(f"{title}: {missing} features computed in {seconds:.1f} s, {missing / seconds:.1f} images/s")


def _record(bench: Workbench, job: Job, outcome: Outcome, loading: float) -> Record:
    started = time.perf_counter()
    metrics = [get_metric(name) for name in job.request.metrics]
    estimates = bootstrap(metrics, outcome.predictions, seed=job.seed)
    results = {
        metric.name: MetricResult(**vars(estimates[metric.name]), higher_is_better=metric.higher_is_better)
        for metric in metrics
    }
    seconds = {"load": loading, **outcome.seconds, "bootstrap": time.perf_counter() - started}
    return Record(
        run_id=job.request.run_id(),
        request=job.request,
        card=bench.backbone.card.model_dump(mode="json"),
        task_card=bench.task.model_dump(mode="json"),
        data_facts=dict(bench.dataset.facts),
        feature_width=bench.features("test").shape[1],
        chosen=outcome.chosen,
        grid=outcome.grid,
        notes=outcome.notes,
        primary=bench.task.primary,
        metrics=results,
        per_class=outcome.predictions.per_class(),
        environment=environment(bench.settings.how.device),
        cost=_cost(bench, seconds),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _cost(bench: Workbench, seconds: dict[str, float]) -> Cost:
    parts = [store.cost() for _, store in bench.stores()]
    images, extract = sum(part.images for part in parts), sum(part.seconds for part in parts)
    return Cost(
        seconds={"extract": extract, **seconds},
        images_per_second=images / extract,
        waiting_fraction=sum(part.waiting for part in parts) / extract,
        peak_memory_bytes=peak_memory_bytes(bench.settings.how.device),
        parameters=bench.backbone.parameter_count(),
        flops=count_flops(bench.backbone),
    )


class _collecting:
    """Turns a user's mistake in the block into a line of the summary, so that other runs go on."""

    def __init__(self, summary: Summary, reporter: Reporter) -> None:
        self._summary, self._reporter = summary, reporter

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, UserError):
            return False
        self._summary.failed.append(str(error))
        return True


def resolve_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda[:N]` or `mps` stands for.

    Raises:
        UserError: If torch has no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"There is no device '{name}' here.", "Use --device auto, cpu, cuda, cuda:N or mps.") from error
    return device


if __name__ == "__main__":
    from bob.cli import main

    main(["run", *sys.argv[1:]])
