"""What every adapter and every protocol is: the code that turns a backbone and a task into predictions."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bob.adapters.modifiers import Shots, parse
from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.errors import UserError, did_you_mean
from bob.features.extract import Extraction
from bob.features.reading import FEATURE, Columns, Reading
from bob.progress import Reporter
from bob.results.judged import Judged
from bob.results.metrics import get_metric
from bob.task_cards import TaskCard


class Inputs(typing.Protocol):
    """What a run is given; the labels of the test split are not part of it.

    Attributes:
        task: The task's card.
        dataset: Its images; `test` is sealed, `train` and `val` are cut down to the protocol's shots.
        adapter: Judges predictions on the validation split.
        backbone: Opened.
        how: Device, precision and workers.
        folder: Where a long run keeps what it needs to go on after a kill; not made before it is needed.
        reporter: Told what happens.
    """

    task: TaskCard
    dataset: Dataset
    adapter: Adapter
    backbone: Backbone
    how: Extraction
    folder: Path
    reporter: Reporter

    def features(self, split: str, reading: Reading = FEATURE) -> np.ndarray:
        """Stored features float32 (n, D) of a split, of a reading that the protocol has declared."""
        ...

    def stored(self, split: str, reading: Reading = FEATURE) -> np.ndarray:
        """Stored features (N, D) of all images of the set behind a split, memory-mapped: for maps, which are large."""
        ...

    def columns(self, reading: Reading) -> Columns:
        """Where each part of a reading stands in its features."""
        ...

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made at the first call with this key and kept for all runs of this backbone and task.

        The key must tell all that the result depends on beside backbone and task: the seed, the shots, a protocol.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """What one run computed.

    Attributes:
        predicted: Of the test split's images, what the adapter judges: probabilities (n, C), a list of `Detections`, or
            `PredictedMasks`.
        chosen: The hyperparameters that won on validation.
        grid: Every point tried, with its validation scores.
        notes: What a reader of the number should know.
        seconds: Wall time of each stage.
        width: D of the features that the classifier reads.
        images_per_second: Of training end to end; None for a probe, whose cost is the extraction's.
    """

    predicted: Any
    chosen: dict[str, Any]
    grid: list[dict[str, Any]]
    notes: tuple[str, ...]
    seconds: dict[str, float]
    width: int
    images_per_second: float | None = None


@dataclass(frozen=True)
class Protocol(ABC):
    """A fixed recipe.

    Attributes:
        name: As on the command line and in the table, without modifiers.
        version: Raised whenever the recipe computes something else than before.
        description: One line for people.
        shots: How few training images it may see; None for all.
    """

    name: str
    version: int
    description: str
    shots: Shots | None = None

    @property
    def title(self) -> str:
        """The name with its modifiers, such as `linear@5shot`."""
        return "@".join([self.name, *self._modifiers()])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs if none are asked for: five draws for few shots."""
        return (0,) if self.shots is None else tuple(range(5))

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What must be stored of the backbone before `run`."""
        return ()

    @property
    def final_splits(self) -> tuple[str, ...]:
        """What the chosen classifier is fitted on; with few shots no more than these, whatever chose it."""
        return ("train", "val") if self.shots is None else ("train",)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, part of a run's identity."""
        said: dict[str, Any] = {"name": self.title, "version": self.version}
        return said | ({} if self.shots is None else {"shots": self.shots.as_dict()})

    def text_identity(self, backbone: Backbone, task: TaskCard, classes: Sequence[str]) -> dict[str, Any]:
        """What a text tower adds to the backbone's identity; nothing for most protocols.

        Raises:
            UserError: If the protocol needs a text tower that the backbone lacks.
        """
        return {}

    def expanded(self, backbone: Backbone) -> list[Protocol]:
        """The protocols that this one stands for, such as one for each block."""
        return [self]

    def with_shots(self, shots: Shots) -> Protocol:
        """The same recipe on fewer images.

        Raises:
            UserError: If the recipe sees none, or has its number already.
        """
        if self.shots is not None:
            raise UserError(f"'{self.title}' cannot also be '@{shots}'.", "Give one of the two.")
        return replace(self, shots=shots)

    def require(self, task: TaskCard, dataset: Dataset) -> None:
        """Fail if the data do not allow the protocol; asked before any feature is computed.

        Args:
            task: Its card.
            dataset: Cut down to the protocol's shots.

        Raises:
            UserError: Saying what the data lack.
        """
        return None

    def with_block(self, block: int | None) -> Protocol:
        """The same recipe on one block's output, or on every block's if it is None.

        Raises:
            UserError: If the recipe does not work on the output of a block.
        """
        raise UserError(f"The protocol '{self.name}' does not read single blocks.", "Take it without '@block...'.")

    def with_patches(self, patches: int) -> Protocol:
        """The same recipe on the mean feature of that many crops; raises as `with_block`."""
        raise UserError(f"The protocol '{self.name}' does not average patches.", "Take it without '@patches...'.")

    def with_scales(self) -> Protocol:
        """The same recipe on the mean feature of several scales; raises as `with_block`."""
        raise UserError(f"The protocol '{self.name}' does not average scales.", "Take it without '@multiscale'.")

    def with_engine(self, name: str) -> Protocol:
        """The same recipe by another library; raises as `with_block`."""
        raise UserError(f"The protocol '{self.name}' has no engine '{name}'.", f"Take it without '@{name}'.")

    def configured(self, overrides: dict[str, str], max_steps: int | None, max_hours: float | None) -> Protocol:
        """The recipe with settings, of `settings` alone, and a budget, which only training takes."""
        return self

    @property
    def settings(self) -> frozenset[str]:
        """Names of the settings that `configured` takes."""
        return frozenset()

    @property
    def trains(self) -> bool:
        """Whether it takes a budget, and several processes can share it."""
        return False

    @abstractmethod
    def run(self, given: Inputs, seed: int) -> Outcome:
        """Carry the protocol out; test features are asked for after the choice is made.

        Args:
            given: Backbone, images and stored features.
            seed: Of everything random in the protocol.

        Raises:
            UserError: If the data do not allow the protocol.
        """

    def _modifiers(self) -> list[str]:
        return [] if self.shots is None else [str(self.shots)]


class Adapter(ABC):
    """A kind of task: the protocols that it has, and how predictions on it are judged.

    Attributes:
        protocols: By name.
        choose_by: Metrics that choose hyperparameters on validation; each settles the ties of those before.
        tested: The split that is sealed during a run and judged after it.
    """

    protocols: ClassVar[dict[str, Protocol]]
    choose_by: ClassVar[tuple[str, ...]]
    tested: ClassVar[str] = "test"

    @classmethod
    def protocol(cls, spec: str) -> Protocol:
        """Return the protocol that `NAME[@MODIFIER...]` means.

        Raises:
            UserError: If this adapter has none of that name, or the protocol does not take the modifier.
        """
        name, *modifiers = spec.split("@")
        if name not in cls.protocols:
            hint = did_you_mean(name, cls.protocols) or f"Use one of {', '.join(cls.protocols)}."
            raise UserError(f"Unknown protocol '{name}'.", hint)
        protocol = cls.protocols[name]
        for modifier in modifiers:
            protocol = parse(modifier)(protocol)
        return protocol

    @abstractmethod
    def judge(self, dataset: Dataset, split: str, predicted: Any) -> Judged:
        """Predictions together with what is true of a split, from which every metric can be computed.

        Args:
            dataset: The task's images.
            split: Its name.
            predicted: What a protocol gave for its images, in order.

        Raises:
            RuntimeError: If the split is sealed.
        """

    def write_files(self, dataset: Dataset, split: str, predicted: Any, folder: Path) -> None:
        """Write into a record's folder what other tools and people want of the predictions; nothing for most tasks."""
        return None

    def scores(self, dataset: Dataset, split: str, predicted: Any) -> dict[str, float]:
        """The metrics of `choose_by`, by name."""
        judged = self.judge(dataset, split, predicted)
        return {name: get_metric(name).compute(judged) for name in self.choose_by}

    def best(self, tried: Sequence[dict[str, Any]], prefix: str = "val_") -> dict[str, Any]:
        """The entry with the best scores, each metric settling the ties of those before; the first among equals."""
        signs = {name: -1 if get_metric(name).higher_is_better else 1 for name in self.choose_by}
        return min(tried, key=lambda entry: tuple(sign * entry[prefix + name] for name, sign in signs.items()))


def named(protocols: Sequence[Protocol]) -> dict[str, Protocol]:
    """Name -> protocol."""
    return {protocol.name: protocol for protocol in protocols}
