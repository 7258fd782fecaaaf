"""Semantic segmentation on the stored maps of a frozen backbone: a probe is chosen on validation, and tested once."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bob.adapters.base import Inputs, Outcome, Protocol
from bob.adapters.modifiers import Shots
from bob.adapters.probing import Choice, edge_note
from bob.data.base import Dataset, Split
from bob.data.objects import PredictedMasks
from bob.errors import UserError
from bob.features.maps import MOST_POSITIONS, Grid
from bob.features.reading import Reader, Reading
from bob.probes.dense import DenseProbe, GridFeatures, class_map
from bob.probes.dense_knn import NearestPositions
from bob.probes.dense_linear import LinearSegmenter
from bob.task_cards import TaskCard

SIZE_SETTING = "probe_size"  # in a task card's [recipe]


@dataclass(frozen=True, kw_only=True)
class DenseProbing(Protocol):
    """A probe of segmentation and its grid, on stored maps; masks are read, and predicted, at their own resolution.

    Attributes:
        probe: What is fitted.
        grid: Hyperparameters to choose from on the validation split.
        size: Height and width that images are squashed to, pixels; None for the checkpoint's own. A task's card says it
            as `probe_size` of its `[recipe]`: 448, or 512/1024 for height and width.
    """

    probe: type[DenseProbe]
    grid: tuple[dict[str, Any], ...]
    size: tuple[int, int] | None = None

    @property
    def reading(self) -> Reading:
        """The maps that the probe is fitted on."""
        return Reading("maps", size=self.size)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """See `Protocol.readings`."""
        return (self.reading,)

    def as_dict(self) -> dict[str, Any]:
        """See `Protocol.as_dict`."""
        own = {"probe": self.probe.__name__, "grid": list(self.grid), "reading": self.reading.identity()["reading"]}
        return super().as_dict() | own

    @property
    def settings(self) -> frozenset[str]:
        """See `Protocol.settings`."""
        return frozenset({SIZE_SETTING})

    def configured(self, overrides: dict[str, str], max_steps: int | None, max_hours: float | None) -> Protocol:
        """See `Protocol.configured`; `probe_size` alone.

        Raises:
            UserError: If it is no size.
        """
        return replace(self, size=_size(overrides[SIZE_SETTING])) if SIZE_SETTING in overrides else self

    def with_shots(self, shots: Shots) -> Protocol:
        """See `Protocol.with_shots`; an image shows several classes, so that no number of images is one of each."""
        raise UserError(
            f"The protocol '{self.name}' has no draws of a few images, as images here have no single class.",
            f"Take it without '@{shots}'.",
        )

    def require(self, task: TaskCard, dataset: Dataset) -> None:
        """See `Protocol.require`."""
        if len(dataset.classes) < 2:
            raise UserError(f"{task.name} has one class only.", "Segmentation needs at least two.")

    def run(self, given: Inputs, seed: int) -> Outcome:
        """See `Protocol.run`."""
        started = time.perf_counter()
        grid = Reader(given.backbone, [self.reading]).grid()
        choice = self._choose(given, grid, seed)
        chosen = time.perf_counter()
        probe = self._fitted(given, grid, [choice.point], self.final_splits, seed)
        fitted = time.perf_counter()
        predicted = self._predicted(given, grid, probe, "test")[0]
        seconds = {"choose": chosen - started, "fit": fitted - chosen, "predict": time.perf_counter() - fitted}
        return Outcome(
            predicted, choice.point, choice.grid, (*choice.notes, *_notes(grid)), seconds, width=grid.channels
        )

    def _choose(self, given: Inputs, grid: Grid, seed: int) -> Choice:
        """Fit every point on train at once, and take the best on val by the adapter's metrics."""
        if len(self.grid) == 1:
            return Choice(self.grid[0], [], ())
        probe = self._fitted(given, grid, self.grid, ("train",), seed)
        tried = []
        for point, predicted in zip(self.grid, self._predicted(given, grid, probe, "val"), strict=True):
            scores = given.adapter.scores(given.dataset, "val", predicted)
            tried.append({**point, **{f"val_{name}": value for name, value in scores.items()}})
        best = given.adapter.best(tried)
        winner = {key: best[key] for key in self.grid[0]}
        # Of two values both are edges, which says nothing.
        ranges = {key: value for key, value in winner.items() if len({point[key] for point in self.grid}) > 2}
        return Choice(winner, tried, edge_note(ranges, list(self.grid)))

    def _fitted(
        self, given: Inputs, grid: Grid, points: Sequence[dict[str, Any]], names: Sequence[str], seed: int
    ) -> DenseProbe:
        splits = [given.dataset.splits[name] for name in names]
        images = [(split, position) for split in splits for position in range(len(split))]

        def target(image: int) -> np.ndarray:
            split, position = images[image]
            return split.target(position)

        probe = self.probe(points, seed=seed, device=str(given.how.device))
        return probe.fit(self._features(given, grid, names), target, len(given.dataset.classes))

    def _predicted(self, given: Inputs, grid: Grid, probe: DenseProbe, name: str) -> list[PredictedMasks]:
        """For each point of the probe the class of every pixel of a split's images."""
        predicted = [PredictedMasks() for _ in probe.points]
        split: Split = given.dataset.splits[name]
        for index, scores in zip(split.indices, probe.scores(self._features(given, grid, [name])), strict=True):
            size = split.images.size(int(index))
            for masks, one in zip(predicted, scores, strict=True):
                masks.append(class_map(one, size))
        return predicted

    def _features(self, given: Inputs, grid: Grid, names: Sequence[str]) -> GridFeatures:
        parts = [(given.stored(name, self.reading), given.dataset.splits[name].indices) for name in names]
        return GridFeatures(parts, (grid.rows, grid.columns))


def _size(value: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{1,3})(?:/([1-9]\d{1,3}))?", value)
    if not found:
        raise UserError(f"'{value}' is no {SIZE_SETTING}.", "Say it as 448, or as 512/1024 for height and width.")
    return int(found[1]), int(found[2] or found[1])


def _notes(grid: Grid) -> list[str]:
    height, width = grid.size
    read = f"images of {height} x {width} px, {grid.rows} x {grid.columns} positions"
    if grid.averaged_from is None:
        return [read]
    return [f"{read} averaged from {' x '.join(map(str, grid.averaged_from))} (at most {MOST_POSITIONS})"]


LINEAR = DenseProbing(
    name="linear",
    version=1,
    description="A linear classifier of each position of the frozen maps (AdamW); rate and decay by validation.",
    probe=LinearSegmenter,
    grid=tuple({"lr": lr, "weight_decay": decay} for decay in (0.01, 1.0) for lr in (3e-4, 1e-3, 3e-3, 1e-2)),
)
KNN = DenseProbing(
    name="knn",
    version=1,
    description="Each position takes the labels of the most similar training positions; k, temperature by validation.",
    probe=NearestPositions,
    grid=tuple({"k": k, "temperature": t} for t in (0.02, 0.07) for k in (1, 3, 10, 30, 90)),
)
