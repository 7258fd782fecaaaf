"""What every engine gives back: how far a training came, and what it predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bob.data.base import Split
from bob.engines.recipe import Recipe

if TYPE_CHECKING:
    from bob.features.extract import Extraction


@dataclass(frozen=True, kw_only=True)
class Finished(ABC):
    """A training at its end, or where a limit stopped it.

    Attributes:
        recipe: What was followed.
        how: Device, precision and workers.
        steps: Updates done, those before an interruption included.
        planned_steps: Updates that the recipe asks for.
        batch_size: Images in one update.
        seconds: Wall time of the updates, loading included, over all interruptions.
        images_per_second: Images trained on, over all processes, in each of these seconds.
        train_loss: Mean over the last epoch's updates.
        notes: What a record should say besides.
    """

    recipe: Recipe
    how: Extraction
    steps: int
    planned_steps: int
    batch_size: int
    seconds: float
    images_per_second: float
    train_loss: float
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether no limit stopped it."""
        return self.steps == self.planned_steps

    def facts(self) -> dict[str, Any]:
        """What a record says of how far it came: `steps`, `planned_steps`, `batch_size`, `peak_lr` and `train_loss`."""
        return {
            "peak_lr": self.recipe.peak_lr(self.batch_size),
            "steps": self.steps,
            "planned_steps": self.planned_steps,
            "batch_size": self.batch_size,
            "train_loss": self.train_loss,
        }

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights as safetensors.

        Raises:
            UserError: If the disk refuses.
        """

    @abstractmethod
    def predict(self, split: Split) -> Any:
        """What the task's adapter judges: probabilities (n, C), a list of `Detections`, or `PredictedMasks`.

        Raises:
            UserError: If an image cannot be read, or one image alone does not fit in memory.
        """
