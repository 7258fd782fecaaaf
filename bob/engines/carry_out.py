"""One training of a network, whatever it learns: from its first update, or its checkpoint, to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from bob.backbones.base import Backbone
from bob.data.base import Dataset, Split
from bob.engines.checkpoint import Checkpoints
from bob.engines.loop import Trainer
from bob.engines.network import Network, copy_backbone, require_gradients, set_drop_path
from bob.engines.objective import Objective
from bob.engines.recipe import ENGINE_VERSION, Limits, Recipe
from bob.engines.trained import Trained
from bob.engines.training import Load, Parts, Progress, Training
from bob.engines.training_data import Plan

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bob.engines.prior import Prior
    from bob.features.extract import Extraction

T = TypeVar("T", bound=Trained)


@dataclass(frozen=True)
class Start:
    """A network before its first update.

    Attributes:
        network: On the device.
        objective: What it is to learn.
        notes: What a record should say of it.
    """

    network: Network
    objective: Objective
    notes: list[str]


def carry_out(
    make: Callable[[], Start],
    load: Load,
    kind: type[T],
    *,
    recipe: Recipe,
    plan: Plan,
    identity: dict[str, Any],
    accelerator: Accelerator,
    how: Extraction,
    folder: Path,
    seed: int,
    limits: Limits,
    progress: Progress,
    prior: Prior | None = None,
) -> T:
    """Train what `make` gives, going on from the checkpoint if there is one.

    Args:
        make: Called once, with the random numbers of `seed`.
        load: Gives the images of an epoch.
        kind: What to return.
        recipe: What to do.
        plan: How an epoch is cut into updates.
        identity: Everything that decides the weights; see `identity_of`.
        accelerator: Of this process.
        how: Device, precision and decoding processes.
        folder: Checkpoints and TensorBoard logs go below it, into a folder for each training.
        seed: Of everything random.
        limits: When to stop early.
        progress: Told after each update.
        prior: Its penalty is added to the loss; None for none.

    Raises:
        UserError: If the loss diverges (`Diverged`), memory or a library is missing, an image cannot be read, or the
            checkpoint is damaged.
        KeyboardInterrupt: After a checkpoint.
    """
    checkpoints = Checkpoints(folder, identity)
    with random_numbers_of_its_own(accelerator.device, seed):
        start = make()
        if prior is not None:
            prior.start(start.network.backbone.model)
        trainer = Trainer(start.network, start.objective, recipe, plan, seed, accelerator, prior)
        training = Training(trainer, plan, load, checkpoints, accelerator)
        training.go_on()
        training.run(limits, progress)
        network = trainer.finish()
    return kind(
        network=network,
        recipe=recipe,
        how=how,
        steps=training.step,
        planned_steps=plan.steps,
        batch_size=plan.batch,
        seconds=training.seconds,
        images_per_second=training.step * plan.batch / training.seconds if training.seconds else 0.0,
        train_loss=sum(training.losses) / len(training.losses) if training.losses else float("nan"),
        notes=(*start.notes, *planned_notes(recipe, plan, trainer.largest)),
    )


def epochs(batches: Callable[..., Parts], plan: Plan, how: Extraction, seed: int, accelerator: Accelerator) -> Load:
    """What loads the parts of an epoch that this process trains on.

    Args:
        batches: `epoch_batches` or `training_batches`, all but the keywords that say which part of which epoch.
        plan: How an epoch is cut.
        how: Decoding processes.
        seed: Of order and augmentation.
        accelerator: Of this process.
    """

    def load(epoch: int, start: int) -> Parts:
        return batches(
            seed=seed,
            epoch=epoch,
            batch_size=plan.part * plan.world,
            workers=how.workers,
            start=start,
            rank=accelerator.process_index,
            world=plan.world,
            pin_memory=accelerator.device.type == "cuda",
        )

    return load


def identity_of(
    backbone: Backbone, dataset: Dataset, split: Split, recipe: Recipe, how: Extraction, seed: int, **more: Any
) -> dict[str, Any]:
    """Everything that decides the weights, but for the rounding of another device or number of processes."""
    return {
        "engine": ENGINE_VERSION,
        "timm": metadata.version("timm"),
        "backbone": backbone.identity(),
        "classes": list(dataset.classes),
        "images_sha256": split.images.fingerprint(),
        "split_sha256": split.checksum(),
        "recipe": recipe.as_dict(),
        "precision": how.precision,
        "seed": seed,
        **more,
    }


def backbone_to_train(backbone: Backbone, recipe: Recipe, device: torch.device) -> tuple[Backbone, list[str]]:
    """A copy on the device, its branches dropped as the recipe says, and what there is to say about it.

    Raises:
        UserError: If it is to be trained and cannot be.
    """
    copied = copy_backbone(backbone, device)
    notes: list[str] = []
    if recipe.trainable == "head":
        return copied, notes
    if not list(copied.model.parameters()):
        notes.append(f"'{backbone.card.name}' has no weights of its own, so the head alone was trained.")
        return copied, notes
    require_gradients(copied)
    if not set_drop_path(copied.model, recipe.drop_path) and recipe.drop_path:
        notes.append(f"'{backbone.card.name}' has no residual branches to drop, so drop_path did nothing.")
    return copied, notes


def planned_notes(recipe: Recipe, plan: Plan, largest: int) -> list[str]:
    """How the training differed from the recipe for want of memory, of which `largest` images fit, or of images."""
    notes = []
    if largest < plan.part:
        notes.append(f"Memory held {largest} images in one forward pass of training, of {plan.part}.")
    if plan.batch != recipe.batch_size:
        rate = f"lr was {recipe.peak_lr(plan.batch):.3g}" if recipe.lr_batch else "lr stayed the same"
        notes.append(f"The batch was {plan.batch} images rather than {recipe.batch_size}, for want of images; {rate}.")
    return notes


@contextmanager
def random_numbers_of_its_own(device: torch.device, seed: int) -> Iterator[None]:
    """Seeded inside the block; the caller's random streams stay where they are."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
