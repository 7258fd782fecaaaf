"""Probing: an estimator on stored features is chosen on validation, fitted on train and validation, and tested once."""

from __future__ import annotations

import inspect
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bob.adapters.base import Inputs, Outcome, Protocol
from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.errors import UserError
from bob.features.reading import BLOCKS, FEATURE, OUTPUT, Columns, Reader, Reading
from bob.probes.base import Probe
from bob.task_cards import TaskCard

_IMAGES_SEEN, _EPOCHS = 100_000, (10, 100)  # in training by SGD
_HEADS = 8  # of the attentive probe
_ONE_OF_TWO = "Give one @block..., @blocks or @patches... only."
_FEW = 50  # validation images below which a choice among many points is mostly luck


@dataclass(frozen=True)
class Choice:
    """The winner of a grid, and every point with its validation scores."""

    point: dict[str, Any]
    grid: list[dict[str, Any]]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Probing(Protocol):
    """A probe and its grid, on one reading of the frozen backbone.

    Attributes:
        probe: The estimator.
        grid: Hyperparameters to choose from on the validation split.
        reading: What the estimator is fitted on.
        block: Which block of `BLOCKS`; None for the whole reading.
        blocks: Of how many.
        every_block: Stands for one protocol a block and, as the last point, the ordinary one.
    """

    probe: type[Probe]
    grid: tuple[dict[str, Any], ...]
    reading: Reading = FEATURE
    block: int | None = None
    blocks: int | None = None
    every_block: bool = False

    @property
    def readings(self) -> tuple[Reading, ...]:
        """See `Protocol.readings`."""
        return (self.reading,)

    def as_dict(self) -> dict[str, Any]:
        """See `Protocol.as_dict`."""
        own = {"probe": self.probe.__name__, "grid": list(self.grid)}
        read = {"block": self.block, "blocks": self.blocks, "patches": self.reading.patches or None}
        return super().as_dict() | own | {key: value for key, value in read.items() if value is not None}

    def with_block(self, block: int | None) -> Protocol:
        """See `Protocol.with_block`."""
        if self._reads_otherwise():
            raise UserError(f"'{self.title}' cannot read a block too.", _ONE_OF_TWO)
        if self.reading != FEATURE:
            return super().with_block(block)
        return replace(self, reading=BLOCKS, block=block, every_block=block is None)

    def with_patches(self, patches: int) -> Protocol:
        """See `Protocol.with_patches`."""
        if self._reads_otherwise():
            raise UserError(f"'{self.title}' cannot average patches too.", _ONE_OF_TWO)
        if self.reading != FEATURE:
            return super().with_patches(patches)
        return replace(self, reading=Reading(patches=patches))

    def require(self, task: TaskCard, dataset: Dataset) -> None:
        """See `Protocol.require`."""
        _require_classes(task, dataset)
        if len(self._fitting(task, dataset)) > 1:
            _require_choosable(task, dataset)

    def expanded(self, backbone: Backbone) -> list[Protocol]:
        """See `Protocol.expanded`; the ordinary protocol reads what comes out behind the last block.

        Raises:
            UserError: If the backbone has no blocks, or not the one asked for.
        """
        if self.reading.kind != "blocks" or not (self.every_block or self.block is not None):
            return [self]
        count = _count_blocks(Reader(backbone, [BLOCKS]).columns(BLOCKS))
        if self.every_block:
            each = [replace(self, block=i, blocks=count, every_block=False) for i in range(count)]
            return [*each, replace(self, reading=FEATURE, every_block=False)]
        if self.block is not None and self.block >= count:
            raise UserError(
                f"Backbone '{backbone.card.name}' has no block {self.block}: it has {count}, counted from 0.",
                f"Take @block{count - 1} or less, or @blocks for all.",
            )
        return [replace(self, blocks=count)]

    def run(self, given: Inputs, seed: int) -> Outcome:
        """See `Protocol.run`."""
        _require_classes(given.task, given.dataset)
        started = time.perf_counter()
        choice = self.choose(given, seed)
        chosen = time.perf_counter()
        labels = np.concatenate([given.dataset.splits[name].labels for name in self.final_splits])
        features = np.concatenate([self._matrix(given, name) for name in self.final_splits])
        arguments = self._arguments(choice.point, given, seed)
        probe = self.probe(**arguments).fit(features, labels, len(given.dataset.classes))
        fitted = time.perf_counter()
        table = probe.predict_proba(self._matrix(given, "test"))
        seconds = {
            "choose": chosen - started,
            "fit": fitted - chosen,
            "predict": time.perf_counter() - fitted,
        }
        notes = choice.notes + (() if getattr(probe, "converged_", True) else ("the final fit did not converge",))
        return Outcome(table, choice.point, choice.grid, notes, seconds, width=features.shape[1])

    def choose(self, given: Inputs, seed: int) -> Choice:
        """Fit every point of the grid on train and take the best on val, by the adapter's metrics.

        Raises:
            UserError: If no point of the grid can be fitted, or the validation split cannot tell points apart.
        """
        dataset, val = given.dataset, given.dataset.splits["val"]
        points = self._feasible(given)
        if len(points) == 1:
            return Choice(points[0], [], ())
        _require_choosable(given.task, dataset)
        arguments = [self._arguments(point, given, seed) for point in points]
        train = self._matrix(given, "train")
        tried: dict[int, dict[str, Any]] = {}
        path = self.probe.path(
            arguments, train, dataset.splits["train"].labels, len(dataset.classes), self._matrix(given, "val")
        )
        for used, table in path:
            scores = given.adapter.scores(dataset, "val", table)
            number = arguments.index(used)
            tried[number] = {**points[number], **{f"val_{name}": value for name, value in scores.items()}}
        grid = list(tried.values())
        best = given.adapter.best(grid)
        winner = {key: best[key] for key in points[0]}
        few = (f"chosen on {len(val)} validation images only",) if len(val) < _FEW else ()
        return Choice(winner, grid, edge_note(winner, points) + few)

    def _feasible(self, given: Inputs) -> list[dict[str, Any]]:
        """The points of the grid that these data and this backbone allow."""
        return self._fitting(given.task, given.dataset)

    def _fitting(self, task: TaskCard, dataset: Dataset) -> list[dict[str, Any]]:
        """The grid without the k that exceed the number of training images."""
        n_train = len(dataset.splits["train"])
        points = [point for point in self.grid if point.get("k", 0) <= n_train]
        if not points:
            raise UserError(f"{task.name} has {n_train} training images, too few for '{self.title}'.", "Add some.")
        return points

    def _arguments(self, point: dict[str, Any], given: Inputs, seed: int) -> dict[str, Any]:
        """A grid point as the probe's arguments."""
        seeded = {"seed": seed} if "seed" in inspect.signature(self.probe).parameters else {}
        return {**point, "device": str(given.how.device), **seeded}

    def _matrix(self, given: Inputs, split: str) -> np.ndarray:
        features = given.features(split, self.reading)
        return features if self.block is None else features[:, given.columns(BLOCKS)[f"block{self.block}"]]

    def _reads_otherwise(self) -> bool:
        """Whether a modifier has said already what to read."""
        return self.every_block or self.block is not None or bool(self.reading.patches)

    def _modifiers(self) -> list[str]:
        block = "blocks" if self.every_block else "" if self.block is None else f"block{self.block}"
        patches = f"patches{self.reading.patches}" if self.reading.patches else ""
        return [modifier for modifier in (*super()._modifiers(), block, patches) if modifier]


@dataclass(frozen=True, kw_only=True)
class ProbingColumns(Probing):
    """A grid that also chooses which columns of the blocks to read: key `features` of each point.

    `last1` is the backbone's own feature, `last4` the last four blocks, each pooled; `+mean` adds the mean of the last
    block's map where that is another vector. They are the choices of DINOv2's linear evaluation.

    Training images are seen 10 times, or more often where they are few: until 100,000 were seen, or each 100 times.
    """

    reading: Reading = BLOCKS

    def _feasible(self, given: Inputs) -> list[dict[str, Any]]:
        """Without the choices that read the same columns as one before them."""
        columns = given.columns(self.reading)
        first: dict[tuple[tuple[int, int], ...], str] = {}
        for name in dict.fromkeys(point["features"] for point in self.grid):
            first.setdefault(_chosen_columns(columns, name), name)
        return [point for point in super()._feasible(given) if point["features"] in first.values()]

    def _arguments(self, point: dict[str, Any], given: Inputs, seed: int) -> dict[str, Any]:
        rest = {key: value for key, value in point.items() if key != "features"}
        chosen = _chosen_columns(given.columns(self.reading), point["features"])
        epochs = math.ceil(_IMAGES_SEEN / len(given.dataset.splits["train"]))
        epochs = min(max(epochs, _EPOCHS[0]), _EPOCHS[1])
        return super()._arguments(rest, given, seed) | {"columns": chosen, "epochs": epochs}


@dataclass(frozen=True, kw_only=True)
class ProbingTokens(Probing):
    """A probe that reads the last block's map position by position."""

    def _arguments(self, point: dict[str, Any], given: Inputs, seed: int) -> dict[str, Any]:
        columns = given.columns(self.reading)
        # As many heads as usual where a token's width allows it.
        heads = math.gcd(_HEADS, columns["token0"].stop)
        return super()._arguments(point, given, seed) | {"tokens": len(columns), "heads": heads}


def _count_blocks(columns: Columns) -> int:
    return sum(1 for name in columns if name.startswith("block") and not name.endswith(".mean"))


def _chosen_columns(columns: Columns, choice: str) -> tuple[tuple[int, int], ...]:
    """(start, stop) of each part that a choice reads."""
    kind, _, mean = choice.partition("+")
    count = _count_blocks(columns)
    names = [OUTPUT] if kind == "last1" else [f"block{i}" for i in range(max(0, count - 4), count)]
    last_mean = f"block{count - 1}.mean"
    names += [last_mean] if mean and last_mean in columns else []
    return tuple((columns[name].start, columns[name].stop) for name in names)


def _require_classes(task: TaskCard, dataset: Dataset) -> None:
    if len(dataset.classes) < 2 and not dataset.multilabel:
        raise UserError(f"{task.name} has one class only.", "Classification needs at least two.")


def _require_choosable(task: TaskCard, dataset: Dataset) -> None:
    """Fail if validation could not tell one hyperparameter from another."""
    val = dataset.splits["val"]
    if val.labels.ndim == 1 and len(np.unique(val.labels)) < 2:
        raise UserError(
            f"The validation split of {task.name} ({len(val)} images) is too small to choose on: "
            "it has images of one class only.",
            "Add images of at least two classes to it, or raise val_fraction on the task's card.",
        )


def edge_note(winner: dict[str, Any], points: list[dict[str, Any]]) -> tuple[str, ...]:
    """Say so if the best value of a hyperparameter lies at the end of its range: a wider one might do better."""
    edges = []
    for key, value in winner.items():
        tried = list(dict.fromkeys(point[key] for point in points))
        if len(tried) > 1 and not isinstance(value, str) and value in (tried[0], tried[-1]):
            edges.append(f"{key} = {value:g}")
    return (f"chosen at the edge of the grid: {', '.join(edges)}",) if edges else ()
