"""Fine-tuning: a backbone, a data set and a recipe in; a trained network out, however often it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bob.backbones.base import Backbone, hash_tensors
from bob.data.base import Dataset
from bob.engines.augment import epoch_batches
from bob.engines.carry_out import Start, backbone_to_train, carry_out
from bob.engines.network import Network, make_head
from bob.engines.objective import Classification
from bob.engines.prior import Prior, load_prior
from bob.engines.recipe import Limits, Recipe
from bob.engines.trained import TrainedClassifier
from bob.engines.training import Progress
from bob.engines.work import Work

if TYPE_CHECKING:
    from bob.features.extract import Extraction

_NO_LIMITS = Limits()


def version() -> str:
    """The library that trains, and its version."""
    return f"timm {metadata.version('timm')}"


def train(
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
) -> TrainedClassifier:
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
    work = Work.of(backbone, dataset, recipe, how, seed, splits)
    prior = None if recipe.prior is None else load_prior(recipe.prior, backbone, len(work.split))
    prior_sha256 = None if prior is None else _prior_sha256(prior)

    def make() -> Start:
        width = backbone.width()
        copied, notes = backbone_to_train(backbone, recipe, work.accelerator.device)
        # On the CPU first, where its random numbers are the same for every device.
        head = make_head(recipe.head, width, len(dataset.classes)).to(work.accelerator.device)
        network = Network(copied, head, frozen=recipe.trainable == "head")
        return Start(network, Classification(len(dataset.classes), recipe, work.plan, seed), notes)

    return carry_out(
        work,
        make,
        work.epochs(partial(epoch_batches, work.split, backbone.preprocess, recipe.augmentation)),
        TrainedClassifier,
        identity=work.identity(prior_sha256=prior_sha256),
        folder=folder,
        limits=limits,
        progress=progress,
        prior=prior,
    )


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
