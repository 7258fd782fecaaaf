"""Fine-tuning: a backbone, a data set and a recipe in; a trained network out, however often it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch

from bob.backbones.base import Backbone, hash_tensors
from bob.data.base import Dataset, Split
from bob.engines.augment import epoch_batches
from bob.engines.checkpoint import Checkpoints
from bob.engines.devices import open_accelerator
from bob.engines.loop import Trainer
from bob.engines.network import Network, copy_backbone, make_head, require_gradients, set_drop_path
from bob.engines.prior import Prior, load_prior
from bob.engines.recipe import ENGINE_VERSION, Limits, Recipe
from bob.engines.trained import Trained
from bob.engines.training import Parts, Progress, Training
from bob.engines.training_data import Plan, make_plan, training_split

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bob.features.extract import Extraction

_NO_LIMITS = Limits()


def fine_tune(
    backbone: Backbone,
    dataset: Dataset,
    recipe: Recipe,
    *,
    how: Extraction,
    folder: Path,
    seed: int,
    splits: Sequence[str] = ("train",),
    limits: Limits = _NO_LIMITS,
    progress: Progress = lambda update: None,
) -> Trained:
    """Train a copy of the backbone with a new head, going on from the checkpoint if there is one.

    Under `torchrun` or `accelerate launch` all processes call this and share the work. Ctrl-C ends the update in hand
    and writes a checkpoint before it is raised; a killed training goes on at its last checkpoint, with the weights of
    an undisturbed one in the end.

    Args:
        backbone: Stays as it is.
        dataset: Its labels are read from `splits` alone.
        recipe: What to do.
        how: Device, precision and decoding processes.
        folder: Checkpoints and TensorBoard logs go below it, into a folder for each training.
        seed: Of the head, the order of the images, and everything random.
        splits: Trained on; never `test`.
        limits: When to stop early.
        progress: Told after each update.

    Raises:
        UserError: If the loss diverges (`Diverged`), memory or a library is missing, an image cannot be read, or the
            checkpoint is damaged.
        KeyboardInterrupt: After a checkpoint.

    Source: arXiv 2310.19909 (the recipe), timm's train.py.
    """
    accelerator = open_accelerator(how)
    split = training_split(dataset, splits)
    plan = make_plan(len(split), recipe, accelerator.num_processes, accelerator.device)
    prior = None if recipe.prior is None else load_prior(recipe.prior, backbone, len(split))
    checkpoints = Checkpoints(folder, _identity(backbone, dataset, split, recipe, prior, how, seed))
    load = _loader(backbone, split, recipe, plan, how, seed, accelerator)
    with _random_numbers_of_its_own(accelerator.device, seed):
        network, notes = _network(backbone, len(dataset.classes), recipe, accelerator.device)
        if prior is not None:
            prior.start(network.backbone.model)
        trainer = Trainer(network, len(dataset.classes), recipe, plan, seed, accelerator, prior)
        training = Training(trainer, plan, load, checkpoints, accelerator)
        training.go_on()
        training.run(limits, progress)
        network = trainer.finish()
    if trainer.largest < plan.part:
        notes.append(f"Memory held {trainer.largest} images in one forward pass of training, of {plan.part}.")
    if plan.batch != recipe.batch_size:
        rate = f"lr was {recipe.peak_lr(plan.batch):.3g}" if recipe.lr_batch else "lr stayed the same"
        notes.append(f"The batch was {plan.batch} images rather than {recipe.batch_size}, for want of images; {rate}.")
    return Trained(
        network=network,
        recipe=recipe,
        how=how,
        steps=training.step,
        planned_steps=plan.steps,
        batch_size=plan.batch,
        seconds=training.seconds,
        images_per_second=training.step * plan.batch / training.seconds if training.seconds else 0.0,
        train_loss=sum(training.losses) / len(training.losses) if training.losses else float("nan"),
        notes=tuple(notes),
    )


def _identity(
    backbone: Backbone,
    dataset: Dataset,
    split: Split,
    recipe: Recipe,
    prior: Prior | None,
    how: Extraction,
    seed: int,
) -> dict[str, Any]:
    """Everything that decides the weights, but for the rounding of another device or number of processes."""
    return {
        "engine": ENGINE_VERSION,
        "timm": timm.__version__,
        "backbone": backbone.identity(),
        "classes": list(dataset.classes),
        "images_sha256": split.images.fingerprint(),
        "split_sha256": split.checksum(),
        "recipe": recipe.as_dict(),
        "prior_sha256": None if prior is None else _prior_sha256(prior),
        "precision": how.precision,
        "seed": seed,
    }


def _prior_sha256(prior: Prior) -> str:
    """Of what is in the file, which may lie anywhere."""
    gaussian = prior.gaussian
    parts = {
        "mean": gaussian.mean,
        "variance": gaussian.variance,
        "factor": gaussian.factor,
        "buffer": gaussian.buffers,
    }
    return hash_tensors(
        (f"{part}/{name}", tensor) for part, tensors in parts.items() for name, tensor in tensors.items()
    )


def _loader(
    backbone: Backbone, split: Split, recipe: Recipe, plan: Plan, how: Extraction, seed: int, accelerator: Accelerator
) -> Any:
    def load(epoch: int, start: int) -> Parts:
        return epoch_batches(
            split,
            backbone.preprocess,
            recipe.augmentation,
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


def _network(backbone: Backbone, n_classes: int, recipe: Recipe, device: torch.device) -> tuple[Network, list[str]]:
    """The network before training, and what there is to say about it."""
    width = backbone.width()
    copied = copy_backbone(backbone, device)
    frozen = recipe.trainable == "head"
    notes = []
    if not frozen and not list(copied.model.parameters()):
        notes.append(f"'{backbone.card.name}' has no weights of its own, so the head alone was trained.")
    elif not frozen:
        require_gradients(copied)
        if not set_drop_path(copied.model, recipe.drop_path) and recipe.drop_path:
            notes.append(f"'{backbone.card.name}' has no residual branches to drop, so drop_path did nothing.")
    # On the CPU first, where its random numbers are the same for every device.
    return Network(copied, make_head(recipe.head, width, n_classes).to(device), frozen), notes


@contextmanager
def _random_numbers_of_its_own(device: torch.device, seed: int) -> Iterator[None]:
    """Seeded inside the block; the caller's random streams stay where they are."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
