"""One run after another: backbone x task x protocol x seed, each leaving a record. `python -m bob.run --help`."""

from __future__ import annotations

if __name__ == "__main__":
    # Before torch is imported, for the command line sets its threads up and turns Ctrl-C into one line.
    import sys

    from bob.cli import main

    main(["run", *sys.argv[1:]])

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bob.adapters.base import Outcome
from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone
from bob.cards import BackboneCard, TaskCard
from bob.data.base import Dataset, ImageSet
from bob.data.sources import load_dataset
from bob.errors import UserError
from bob.features.extract import Extraction, fill_store, require_same_features
from bob.features.store import FeatureStore
from bob.machine import count_flops, environment, peak_memory_bytes
from bob.progress import Reporter
from bob.results.metrics import METRICS, get_metric
from bob.results.record import Cost, MetricResult, Record, has_record, record_folder, require_writable
from bob.results.statistics import bootstrap
from bob.workbench import Job, Settings, Workbench, protocols_of


@dataclass
class Summary:
    """What became of the runs asked for."""

    written: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run_all(
    backbones: Sequence[BackboneCard], tasks: Sequence[TaskCard], settings: Settings, reporter: Reporter
) -> Summary:
    """Carry out every run that has no record yet.

    A mistake in one pair of backbone and task does not stop the others; it is in `Summary.failed`.

    Raises:
        UserError: Before anything is computed, if a protocol or metric is unknown.
    """
    for task in tasks:
        protocols_of(task, settings)
    summary = Summary()
    datasets: dict[str, Dataset] = {}
    for card in backbones:
        with _collecting(summary):
            started = time.perf_counter()
            backbone = open_backbone(card)
            identity = backbone.identity()
            loading = time.perf_counter() - started
            for task in tasks:
                with _collecting(summary):
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
    settings, todo = bench.settings, []
    for job in bench.jobs():
        if has_record(settings.results, job.request) and not settings.recompute:
            folder = record_folder(settings.results, job.request)
            reporter.say(f"{title}, {job.protocol.name}: already there, {folder}")
            summary.present.append(folder)
        else:
            todo.append(job)
    if not todo:
        return
    require_writable(settings.results)
    _provide_features(bench, title, reporter)
    for job in todo:
        started = time.perf_counter()
        outcome = bench.adapter.run(job.protocol, bench.features, job.seed)
        record = _record(bench, job, outcome, loading)
        if settings.recompute:
            shutil.rmtree(record_folder(settings.results, job.request), ignore_errors=True)
        summary.written.append(record.write(settings.results, outcome.predictions))
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
        if backbone.card.weights.source == "custom":
            _check_stored(stores, backbone, how)
    if not missing:
        return
    started = time.perf_counter()
    with reporter.images(title, missing) as advance:
        for images, store in stores:
            fill_store(store, backbone, images, how, advance)
    seconds = time.perf_counter() - started
    reporter.say(f"{title}: {missing} features computed in {seconds:.1f} s, {missing / seconds:.1f} images/s")


def _check_stored(stores: Sequence[tuple[ImageSet, FeatureStore]], backbone: Backbone, how: Extraction) -> None:
    """Make sure that a user's code still gives what is stored, by the first store that holds anything."""
    images, store = next(pair for pair in stores if pair[1].finished())
    require_same_features(store, backbone, images, how)


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
        feature_width=bench.width(),
        chosen=outcome.chosen,
        grid=outcome.grid,
        notes=outcome.notes,
        primary=bench.task.primary,
        metrics=results,
        per_class=outcome.predictions.per_class(),
        environment=environment(bench.settings.how.device),
        cost=_cost(bench, seconds),
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
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


@contextmanager
def _collecting(summary: Summary) -> Iterator[None]:
    """Turn a user's mistake in the block into a line of the summary, so that other runs go on."""
    try:
        yield
    except UserError as error:
        # A broken data set fails with every backbone, and is reported once.
        if str(error) not in summary.failed:
            summary.failed.append(str(error))
