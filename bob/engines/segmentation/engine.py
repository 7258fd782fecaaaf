"""Training an UPerNet: a backbone, images with a class for each pixel and a recipe in; a segmenter out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bob.backbones.base import Backbone
from bob.backbones.pyramid import Pyramid
from bob.data.base import Dataset
from bob.engines.carry_out import Start, backbone_to_train, carry_out
from bob.engines.dense_recipe import SegmentationRecipe, require_read
from bob.engines.recipe import Limits
from bob.engines.segmentation.network import SegmentationNetwork, UPerNet
from bob.engines.segmentation.objective import Segmentation
from bob.engines.segmentation.trained import TrainedSegmenter
from bob.engines.training import Progress
from bob.engines.training_data import Plan
from bob.engines.views import training_batches
from bob.engines.work import Work
from bob.extras import import_extra

if TYPE_CHECKING:
    from bob.features.extract import Extraction

_NO_LIMITS = Limits()


def version() -> str:
    """The library of the decoder, and its version.

    Raises:
        UserError: If it is not installed.
    """
    import_extra("segmentation_models_pytorch", "smp")
    return f"segmentation-models-pytorch {metadata.version('segmentation-models-pytorch')}"


def train(
    backbone: Backbone,
    dataset: Dataset,
    recipe: SegmentationRecipe,
    *,
    how: Extraction,
    folder: Path,
    seed: int,
    splits: Sequence[str] = ("train",),
    limits: Limits = _NO_LIMITS,
    progress: Progress = lambda update: None,
) -> TrainedSegmenter:
    """Train a copy of the backbone with an UPerNet on it, going on from the checkpoint if there is one.

    All that `bob.engines.fine_tune.train` says of processes, Ctrl-C and checkpoints holds here too. BatchNorms of the
    backbone keep their statistics; with `trainable = "head"` all of the backbone stays as it is.

    Args:
        backbone: Stays as it is.
        dataset: Its class maps are read from `splits` alone.
        recipe: What to do.
        how: Device, precision and decoding processes.
        folder: Checkpoints and TensorBoard logs go below it, into a folder for each training.
        seed: Of the decoder, the order of the images, and everything random.
        splits: Trained on; never `test`.
        limits: When to stop early.
        progress: Told after each update.

    Raises:
        UserError: If the loss diverges (`Diverged`), memory or a library is missing, an image or its annotation cannot
            be read, the backbone has no feature maps of such images, or the checkpoint is damaged.
        KeyboardInterrupt: After a checkpoint.

    Source: arXiv 1807.10221 (UPerNet), mmsegmentation's configs/_base_/models/upernet_r50.py.
    """
    require_read(recipe)
    library = version()
    work = Work.of(backbone, dataset, recipe, how, seed, splits)
    return carry_out(
        work,
        lambda: start(backbone, len(dataset.classes), recipe, work.plan, work.accelerator.device),
        work.epochs(partial(training_batches, work.split, backbone.preprocess, recipe.view)),
        TrainedSegmenter,
        identity=work.identity(library=library),
        folder=folder,
        limits=limits,
        progress=progress,
    )


def start(backbone: Backbone, n_classes: int, recipe: SegmentationRecipe, plan: Plan, device: torch.device) -> Start:
    """A network before its first update, with the random numbers of torch's global generator."""
    pyramid, notes = pyramid_to_train(backbone, recipe, device)
    head = UPerNet(pyramid.own, pyramid.channels, n_classes, recipe)
    return Start(SegmentationNetwork(pyramid, head), Segmentation(recipe, plan), notes)


def pyramid_to_train(backbone: Backbone, recipe: SegmentationRecipe, device: torch.device) -> tuple[Pyramid, list[str]]:
    """The maps of a copy of the backbone, frozen if the recipe says so, and what there is to say about it.

    Raises:
        UserError: If the backbone has no maps, or is to be trained and cannot be.
    """
    copied, notes = backbone_to_train(backbone, recipe, device)
    frozen = recipe.trainable == "head" or not list(copied.model.parameters())
    return Pyramid(copied, frozen=frozen), notes
