"""What every engine begins with: the backbone, the images, the recipe, and how the work is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bob.backbones.base import Backbone
from bob.data.base import Dataset, Split
from bob.engines.devices import open_accelerator
from bob.engines.recipe import ENGINE_VERSION, Recipe
from bob.engines.training import Load, Parts
from bob.engines.training_data import Plan, make_plan, training_split

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bob.features.extract import Extraction

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class Work(Generic[R]):
    """One training as it is asked for.

    Attributes:
        backbone: Stays as it is; a copy is trained.
        dataset: Its labels are read from `split` alone.
        split: The images that are trained on.
        recipe: What to do.
        plan: How an epoch is cut into updates.
        how: Device, precision and decoding processes.
        seed: Of everything random.
        accelerator: Of this process.
    """

    backbone: Backbone
    dataset: Dataset
    split: Split
    recipe: R
    plan: Plan
    how: Extraction
    seed: int
    accelerator: Accelerator

    @classmethod
    def of(
        cls, backbone: Backbone, dataset: Dataset, recipe: R, how: Extraction, seed: int, splits: Sequence[str]
    ) -> Work[R]:
        """Open the device and cut the images of the named splits into updates.

        Raises:
            UserError: If accelerate is missing, the device does not train in that precision, or the images cannot be
                cut.
        """
        accelerator = open_accelerator(how)
        split = training_split(dataset, splits)
        plan = make_plan(len(split), recipe, accelerator.num_processes, accelerator.device)
        return cls(backbone, dataset, split, recipe, plan, how, seed, accelerator)

    def identity(self, **more: Any) -> dict[str, Any]:
        """Everything that decides the weights, but for the rounding of another device or number of processes."""
        return {
            "engine": ENGINE_VERSION,
            "timm": metadata.version("timm"),
            "backbone": self.backbone.identity(),
            "classes": list(self.dataset.classes),
            "images_sha256": self.split.images.fingerprint(),
            "split_sha256": self.split.checksum(),
            "recipe": self.recipe.as_dict(),
            "precision": self.how.precision,
            "seed": self.seed,
            **more,
        }

    def epochs(self, batches: Callable[..., Parts]) -> Load:
        """What loads the parts of an epoch that this process trains on.

        Args:
            batches: `epoch_batches` or `training_batches`, all but the keywords that say which part of which epoch.
        """

        def load(epoch: int, start: int) -> Parts:
            return batches(
                seed=self.seed,
                epoch=epoch,
                batch_size=self.plan.part * self.plan.world,
                workers=self.how.workers,
                start=start,
                rank=self.accelerator.process_index,
                world=self.plan.world,
                pin_memory=self.accelerator.device.type == "cuda",
            )

        return load

    def fields(self, step: int, seconds: float, losses: Sequence[float], largest: int) -> dict[str, Any]:
        """What a `Finished` training has of `Finished`'s own fields.

        Args:
            step: Updates done.
            seconds: That they took.
            losses: Of the last epoch's updates.
            largest: Most images that memory held in one forward pass.
        """
        return {
            "recipe": self.recipe,
            "how": self.how,
            "steps": step,
            "planned_steps": self.plan.steps,
            "batch_size": self.plan.batch,
            "seconds": seconds,
            "images_per_second": step * self.plan.batch / seconds if seconds else 0.0,
            "train_loss": sum(losses) / len(losses) if losses else float("nan"),
            "notes": tuple(self._notes(largest)),
        }

    def _notes(self, largest: int) -> list[str]:
        """How the training differed from the recipe for want of memory, or of images."""
        recipe, plan, notes = self.recipe, self.plan, []
        if largest < plan.part:
            notes.append(f"Memory held {largest} images in one forward pass of training, of {plan.part}.")
        if plan.batch != recipe.batch_size:
            rate = f"lr was {recipe.peak_lr(plan.batch):.3g}" if recipe.lr_batch else "lr stayed the same"
            wanted = f"The batch was {plan.batch} images rather than {recipe.batch_size}, for want of images"
            notes.append(f"{wanted}; {rate}.")
        return notes
