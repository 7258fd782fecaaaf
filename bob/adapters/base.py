"""What every adapter is: the code that turns a backbone's features and a task into predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bob.cards import TaskCard
from bob.data.base import Dataset
from bob.errors import UserError, did_you_mean
from bob.probes.base import Probe
from bob.results.predictions import Predictions

# Split name -> features float32 (n, D) of its images, from the store.
Features = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Protocol:
    """A fixed recipe.

    Attributes:
        name: As on the command line and in the table.
        version: Raised whenever the recipe computes something else than before.
        description: One line for people.
        probe: The estimator.
        grid: Hyperparameters to choose from on the validation split.
    """

    name: str
    version: int
    description: str
    probe: type[Probe]
    grid: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, part of a run's identity."""
        return {"name": self.name, "version": self.version, "probe": self.probe.__name__, "grid": list(self.grid)}


@dataclass(frozen=True)
class Outcome:
    """What one run computed.

    Attributes:
        predictions: On the test split.
        chosen: The hyperparameters that won on validation.
        grid: Every point tried, with its validation scores.
        notes: What a reader of the number should know.
        seconds: Wall time of each stage.
    """

    predictions: Predictions
    chosen: dict[str, Any]
    grid: list[dict[str, Any]]
    notes: tuple[str, ...]
    seconds: dict[str, float]


class Adapter(ABC):
    """Evaluates any backbone on one task.

    Args:
        task: The task's card.
        dataset: Its images, opened.
        device: Where probes compute.
    """

    protocols: ClassVar[dict[str, Protocol]]

    def __init__(self, task: TaskCard, dataset: Dataset, device: str = "cpu") -> None:
        self.task = task
        self.dataset = dataset
        self.device = device

    @classmethod
    def protocol(cls, name: str) -> Protocol:
        """Return the protocol of that name.

        Raises:
            UserError: If this adapter has none of that name.
        """
        if name not in cls.protocols:
            hint = did_you_mean(name, cls.protocols) or f"Use one of {', '.join(cls.protocols)}."
            raise UserError(f"Unknown protocol '{name}'.", hint)
        return cls.protocols[name]

    @abstractmethod
    def run(self, protocol: Protocol, features: Features, seed: int) -> Outcome:
        """Carry the protocol out.

        Args:
            protocol: One of `protocols`.
            features: Gives the features of a split; test features are asked for after the choice is made.
            seed: Of everything random in the protocol.

        Raises:
            UserError: If the data do not allow the protocol.
        """
