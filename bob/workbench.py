"""A backbone and a task, opened side by side: the runs asked for of them and the features that these need."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bob.adapters.base import Adapter, Protocol
from bob.adapters.modifiers import draw_shots
from bob.adapters.registry import ADAPTERS
from bob.backbones.base import Backbone
from bob.data.base import Dataset, ImageSet, Split
from bob.features.extract import Stores, open_store
from bob.features.reading import FEATURE, Columns, Reader, Reading
from bob.features.store import FeatureStore
from bob.progress import Reporter
from bob.requested import Settings, protocols_of
from bob.results.metrics import get_metric
from bob.results.record import TRAINING, Request
from bob.task_cards import TaskCard


@dataclass(frozen=True)
class Job:
    """One run, ready to be carried out.

    Attributes:
        request: What is asked; its hash is the run's id.
        protocol: The recipe.
        seed: Of everything random in it.
        dataset: The task's images, cut down to the protocol's shots.
    """

    request: Request
    protocol: Protocol
    seed: int
    dataset: Dataset


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
        self.adapter: Adapter = ADAPTERS[task.adapter]()
        self._identity = identity
        self._stores: dict[tuple[int, Reading], FeatureStore] = {}
        self._maps: dict[tuple[int, Reading], np.ndarray] = {}
        self._columns: dict[Reading, Columns] = {}
        self._made: dict[Hashable, Any] = {}

    @cached_property
    def jobs(self) -> list[Job]:
        """Every run asked for of this pair.

        Raises:
            UserError: If a protocol does not suit the backbone or the data.
        """
        return without_repeats([job for protocol in self.protocols for job in self.jobs_of(protocol)])

    @cached_property
    def protocols(self) -> list[Protocol]:
        """Those asked for, or else those of the task's card; raises as `protocols_of`."""
        return protocols_of(self.task, self.settings)

    def jobs_of(self, protocol: Protocol) -> list[Job]:
        """The runs that one protocol stands for; raises as `jobs`."""
        each = protocol.expanded(self.backbone)
        for reading in protocol.readings:
            if reading.kind != FEATURE.kind:
                self.columns(reading)  # here, so that a backbone without blocks lacks this protocol alone
        return [self._job(p, seed) for p in each for seed in self.settings.seeds or p.seeds]

    def stores(self, readings: Iterable[Reading]) -> Iterator[tuple[ImageSet, Stores]]:
        """The image sets behind the task and the stores of these readings of them, complete or not."""
        wanted = list(dict.fromkeys(readings))
        for images in self.dataset.image_sets():
            yield images, {reading: self._store(images, reading) for reading in wanted}

    def inputs(self, job: Job, reporter: Reporter) -> JobInputs:
        """What the job is given."""
        return JobInputs(self, job, reporter)

    def columns(self, reading: Reading) -> Columns:
        """Where each part of a reading stands in its features."""
        if reading not in self._columns:
            self._columns[reading] = Reader(self.backbone, [reading]).columns(reading)
        return self._columns[reading]

    def features(self, split: Split, reading: Reading = FEATURE) -> np.ndarray:
        """Features float32 (n, D) of a split, from complete stores; a view where its images stand in one piece."""
        features, indices = self.stored(split, reading), split.indices
        if len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
            return features[indices[0] : indices[0] + len(indices)]
        return features[indices]

    def stored(self, split: Split, reading: Reading = FEATURE) -> np.ndarray:
        """Features (N, D) of the whole set behind a split, from complete stores, in their type.

        They are memory-mapped, unless the set was joined of several.
        """
        key = (id(split.images), reading)
        if key not in self._maps:
            parts = [self._store(part, reading).read() for part in split.images.parts]
            self._maps[key] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self._maps[key]

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made at the first call with this key and kept for all runs of the pair."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _store(self, images: ImageSet, reading: Reading) -> FeatureStore:
        key = (id(images), reading)
        if key not in self._stores:
            self._stores[key] = open_store(self.backbone, self._identity, images, self.settings.how, reading)
        return self._stores[key]

    def _job(self, protocol: Protocol, seed: int) -> Job:
        dataset = self.dataset if protocol.shots is None else draw_shots(self.dataset, protocol.shots, seed)
        protocol.require(self.task, dataset)
        metrics = list(dict.fromkeys((self.task.primary, *self.task.metrics)))
        grouped = any(get_metric(name, has_groups=bool(self.dataset.groups)).needs_groups for name in metrics)
        tested = self.dataset.splits[self.adapter.tested]
        drawn = {} if protocol.shots is None else {"drawn": _described(dataset, ("train", "val"))}
        text = protocol.text_identity(self.backbone, self.task, dataset.classes)
        request = Request(
            backbone=self.backbone.card.name,
            backbone_identity=self._identity | ({"text": text} if text else {}),
            task=self.task.name,
            task_version=self.task.version,
            data={
                "classes": len(dataset.classes),
                "images_sha256": {name: split.images.fingerprint() for name, split in self.dataset.splits.items()},
                "splits": _described(self.dataset, self.dataset.splits),
                **drawn,
                **self.dataset.identity(),
                **({"score_at": self.task.score_at} if self.task.score_at != "original" else {}),
                **({"groups_sha256": tested.groups_checksum()} if grouped else {}),
            },
            protocol=protocol.as_dict(),
            metrics=tuple(metrics),
            seed=seed,
            precision=self.settings.how.precision,
        )
        return Job(request, protocol, seed, dataset)


def without_repeats(jobs: Iterable[Job]) -> list[Job]:
    """The jobs in order, of those that ask for the same thing the first."""
    first: dict[tuple[str, int], Job] = {}
    for job in jobs:
        first.setdefault((job.protocol.title, job.seed), job)
    return list(first.values())


class JobInputs:
    """What one run is given; see `bob.adapters.base.Inputs`.

    Args:
        bench: Backbone and task.
        job: The run.
        reporter: Told what happens.
    """

    def __init__(self, bench: Workbench, job: Job, reporter: Reporter) -> None:
        self.task = bench.task
        self.dataset = job.dataset.sealed(bench.adapter.tested)
        self.adapter = bench.adapter
        self.backbone = bench.backbone
        self.how = bench.settings.how
        self.folder = bench.settings.results / TRAINING / job.request.folder_name()
        self.reporter = reporter
        self._bench = bench
        self._splits = job.dataset.splits

    def features(self, split: str, reading: Reading = FEATURE) -> np.ndarray:
        """Stored features float32 (n, D) of a split."""
        return self._bench.features(self._splits[split], reading)

    def stored(self, split: str, reading: Reading = FEATURE) -> np.ndarray:
        """Stored features (N, D) of all images of the set behind a split, memory-mapped: for maps, which are large."""
        return self._bench.stored(self._splits[split], reading)

    def columns(self, reading: Reading) -> Columns:
        """Where each part of a reading stands in its features."""
        return self._bench.columns(reading)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all runs of this backbone on this task."""
        return self._bench.once(key, make)


def _described(dataset: Dataset, names: Iterable[str]) -> dict[str, Any]:
    """How many images splits have, and a checksum of which."""
    splits = {name: dataset.splits[name] for name in names}
    return {name: {"n": len(split), "sha256": split.checksum()} for name, split in splits.items()}
