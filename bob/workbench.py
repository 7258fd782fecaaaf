"""A backbone and a task, opened side by side: the runs asked for of them and the features that these need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bob.adapters.base import Adapter, Protocol
from bob.adapters.registry import ADAPTERS
from bob.backbones.base import Backbone
from bob.cards import TaskCard
from bob.data.base import Dataset, ImageSet, Split
from bob.features.extract import Extraction, open_store
from bob.features.store import FeatureStore
from bob.results.metrics import get_metric
from bob.results.record import Request


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
        self.adapter: Adapter = ADAPTERS[task.adapter](task, dataset, device=str(settings.how.device))
        self._identity = identity
        self._stores: dict[int, FeatureStore] = {}
        self._maps: dict[int, np.ndarray] = {}

    def jobs(self) -> list[Job]:
        """Every run asked for of this pair."""
        protocols = protocols_of(self.task, self.settings)
        return [Job(self._request(p, seed), p, seed) for p in protocols for seed in self.settings.seeds]

    def stores(self) -> Iterator[tuple[ImageSet, FeatureStore]]:
        """The image sets behind the task and the stores of their features, complete or not."""
        for images in self.dataset.image_sets():
            if id(images) not in self._stores:
                self._stores[id(images)] = open_store(self.backbone, self._identity, images, self.settings.how)
            yield images, self._stores[id(images)]

    def width(self) -> int:
        """D of the stored features."""
        return next(self.stores())[1].shape[1]

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


def protocols_of(task: TaskCard, settings: Settings) -> list[Protocol]:
    """The protocols asked for, or else those of the task's card, without repeats.

    Raises:
        UserError: If the task's adapter has no such protocol, or the card names an unknown metric.
    """
    for metric in (task.primary, *task.metrics):
        get_metric(metric)
    names = dict.fromkeys(settings.protocols or task.protocols)
    return [ADAPTERS[task.adapter].protocol(name) for name in names]
