"""One run after another: backbone x task x protocol x seed, each leaving a record. `python -m bob.run --help`."""

from __future__ import annotations

if __name__ == "__main__":
    # Before torch is imported, for the command line sets its threads up and turns Ctrl-C into one line.
    import sys

    from bob.cli import main

    main(["run", *sys.argv[1:]])

import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bob.adapters.base import Outcome
from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone
from bob.cards import BackboneCard
from bob.data.base import Dataset, ImageSet
from bob.data.sources import load_task
from bob.errors import UserError
from bob.features.extract import Extraction, Stores, fill_stores, images_to_embed, require_same_features
from bob.features.reading import FEATURE, Reading
from bob.machine import count_flops, environment, launched_processes, peak_memory_bytes
from bob.progress import Reporter
from bob.requested import Settings, protocols_of
from bob.results.judged import Judged
from bob.results.judging import judge
from bob.results.metrics import get_metric
from bob.results.record import Cost, Record, has_record, record_folder, require_writable
from bob.task_cards import TaskCard
from bob.workbench import Job, Workbench, without_repeats


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

    A mistake in one run does not stop the others, nor does one in a pair of backbone and task; it is in
    `Summary.failed`.

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
                        datasets[task.name] = load_task(task, settings.data_root)
                    bench = Workbench(backbone, identity, task, datasets[task.name], settings)
                    run_pair(bench, summary, reporter, loading)
    return summary


def run_pair(bench: Workbench, summary: Summary, reporter: Reporter, loading: float) -> None:
    """Carry out the runs of one backbone on one task that have no record yet; what fails alone goes into the summary.

    Args:
        bench: The pair.
        summary: Filled in.
        reporter: Told what happens.
        loading: Seconds that opening the backbone took, for the records.
    """
    title = f"{bench.backbone.card.name} on {bench.task.name}"
    todo = _without_record(bench, _possible_jobs(bench, summary), title, summary, reporter)
    if not todo:
        return
    require_writable(bench.settings.results)
    provide_features(bench, {reading for job in todo for reading in job.protocol.readings}, title, reporter)
    for job in todo:
        with _collecting(summary):
            _run_job(bench, job, title, summary, reporter, loading)


def _run_job(bench: Workbench, job: Job, title: str, summary: Summary, reporter: Reporter, loading: float) -> None:
    started = time.perf_counter()
    given = bench.inputs(job, reporter)
    if bench.settings.recompute:
        shutil.rmtree(given.folder, ignore_errors=True)
    outcome = job.protocol.run(given, job.seed)
    if launched_processes()[0]:
        return  # the first of several processes writes for all
    score = _write(bench, job, outcome, loading, summary)
    for checkpoint in given.folder.rglob("checkpoint.pt"):
        checkpoint.unlink(missing_ok=True)  # the weights lie beside the logs, for anybody to read
    reporter.say(f"{title}, {_what(job)}: {score} {time.perf_counter() - started:.1f} s")


def _possible_jobs(bench: Workbench, summary: Summary) -> list[Job]:
    """The runs of every protocol that suits the backbone and the data; of the others, say why not."""
    jobs: list[Job] = []
    for protocol in bench.protocols:
        with _collecting(summary):
            jobs += bench.jobs_of(protocol)
    return without_repeats(jobs)


def _without_record(
    bench: Workbench, jobs: Sequence[Job], title: str, summary: Summary, reporter: Reporter
) -> list[Job]:
    """The jobs that are still to be done; of the others, say where their records are."""
    todo = []
    for job in jobs:
        if has_record(bench.settings.results, job.request) and not bench.settings.recompute:
            folder = record_folder(bench.settings.results, job.request)
            reporter.say(f"{title}, {_what(job)}: already there, {folder}")
            summary.present.append(folder)
        else:
            todo.append(job)
    return todo


def _what(job: Job) -> str:
    """The protocol, and the seed where there are several."""
    return job.protocol.title + (f" (seed {job.seed})" if job.protocol.shots or job.seed else "")


def _write(bench: Workbench, job: Job, outcome: Outcome, loading: float, summary: Summary) -> str:
    """Write the record; return its primary score with the interval, in words."""
    tested = bench.adapter.tested
    predictions = bench.adapter.judge(job.dataset, tested, outcome.predicted)
    record = _record(bench, job, outcome, predictions, loading)
    if bench.settings.recompute:
        shutil.rmtree(record_folder(bench.settings.results, job.request), ignore_errors=True)
    files = partial(bench.adapter.write_files, job.dataset, tested, outcome.predicted)
    summary.written.append(record.write(bench.settings.results, predictions, files))
    score = record.metrics[record.primary]
    return f"{get_metric(record.primary).label} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}],"


def provide_features(bench: Workbench, readings: set[Reading], title: str, reporter: Reporter) -> None:
    """Make sure that the stores of these readings are complete.

    Args:
        bench: Backbone and task.
        readings: What is to be stored of every image of the task.
        title: Names the pair, for people.
        reporter: Told what happens.

    Raises:
        UserError: If an image cannot be read, or its features be stored.
    """
    backbone, how = bench.backbone, bench.settings.how
    pairs = list(bench.stores(sorted(readings, key=str)))
    if bench.settings.recompute:
        for _, stores in pairs:
            for store in stores.values():
                store.clear()
    wanted = sum(len(images) * len(stores) for images, stores in pairs)
    lacking = sum(len(rows) for _, stores in pairs for store in stores.values() for _, rows in store.missing())
    if wanted > lacking:
        reporter.say(f"{title}: {wanted - lacking} of {wanted} features are stored already and not computed again")
        if backbone.card.weights.source == "custom" and FEATURE in readings:
            _check_stored(pairs, backbone, how)
    if not lacking:
        return
    started = time.perf_counter()
    missing = sum(images_to_embed(stores) for _, stores in pairs)
    with reporter.images(title, missing) as advance:
        for images, stores in pairs:
            fill_stores(stores, backbone, images, how, advance)
    seconds = time.perf_counter() - started
    reporter.say(f"{title}: {missing} features computed in {seconds:.1f} s, {missing / seconds:.1f} images/s")


def _check_stored(pairs: Sequence[tuple[ImageSet, Stores]], backbone: Backbone, how: Extraction) -> None:
    """Make sure that a user's code still gives what is stored, by the first store that holds anything."""
    for images, stores in pairs:
        if stores[FEATURE].finished():
            return require_same_features(stores[FEATURE], backbone, images, how)


def _record(bench: Workbench, job: Job, outcome: Outcome, predictions: Judged, loading: float) -> Record:
    started = time.perf_counter()
    judgement = judge(predictions, job.request.metrics, bench.task.primary)
    seconds = {"load": loading, **outcome.seconds, "bootstrap": time.perf_counter() - started}
    return Record(
        run_id=job.request.run_id(),
        request=job.request,
        card=bench.backbone.card.model_dump(mode="json"),
        task_card=bench.task.model_dump(mode="json"),
        data_facts=dict(bench.dataset.facts),
        feature_width=outcome.width,
        chosen=outcome.chosen,
        grid=outcome.grid,
        notes=(*outcome.notes, *_left_out(judgement.left_out)),
        primary=bench.task.primary,
        metrics=judgement.metrics,
        resampled=judgement.resampled,
        per_class=predictions.per_class(),
        per_group=predictions.per_group(),
        breakdown=predictions.breakdown(),
        environment=environment(bench.settings.how.device),
        command=_command(bench.settings, job),
        cost=_cost(bench, job, outcome, seconds),
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def _command(settings: Settings, job: Job) -> str:
    """What makes the run again where its cards and data are found."""
    request = job.request
    words = ["bob", "run", "--backbone", request.backbone, "--task", request.task]
    words += ["--protocol", request.protocol["name"], "--seed", str(request.seed), "--precision", request.precision]
    words += [word for key, value in settings.overrides.items() for word in ("--set", f"{key}={value}")]
    for option, limit in (("--max-steps", settings.max_steps), ("--max-hours", settings.max_hours)):
        words += [option, f"{limit:g}"] if limit is not None else []
    return shlex.join(words)


def _left_out(names: Sequence[str]) -> list[str]:
    return [f"not defined on this test split: {', '.join(names)}"] if names else []


def _cost(bench: Workbench, job: Job, outcome: Outcome, seconds: dict[str, float]) -> Cost:
    """What the run took; of the readings of one pass, each has the whole pass as its cost, and one is counted."""
    passes = {reading.crops: reading for reading in reversed(job.protocol.readings)}.values()
    parts = [store.cost() for _, stores in bench.stores(passes) for store in stores.values()]
    images, extract = sum(part.images for part in parts), sum(part.seconds for part in parts)
    rate = outcome.images_per_second or (images / extract if extract else 0.0)
    return Cost(
        seconds={"extract": extract, **seconds} if parts else seconds,
        images_per_second=rate,
        waiting_fraction=sum(part.waiting for part in parts) / extract if extract else 0.0,
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
