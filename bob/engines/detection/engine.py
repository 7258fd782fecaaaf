"""Training a detector: a backbone, images with objects and a recipe in; a trained Cascade (Mask) R-CNN out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.engines.carry_out import Start, backbone_to_train, carry_out
from bob.engines.dense_recipe import DetectionRecipe, require_read
from bob.engines.detection.network import Detector
from bob.engines.detection.objective import Detection
from bob.engines.detection.trained import TrainedDetector
from bob.engines.recipe import Limits
from bob.engines.training import Progress
from bob.engines.views import training_batches
from bob.engines.work import Work

if TYPE_CHECKING:
    from bob.features.extract import Extraction

_NO_LIMITS = Limits()
# Raised when the same identity would give other weights than before.
_VERSION = 1


def version() -> str:
    """The library that the detector is built of, and its version."""
    return f"torchvision {metadata.version('torchvision').partition('+')[0]}"


def train(
    backbone: Backbone,
    dataset: Dataset,
    recipe: DetectionRecipe,
    *,
    how: Extraction,
    folder: Path,
    seed: int,
    splits: Sequence[str] = ("train",),
    limits: Limits = _NO_LIMITS,
    progress: Progress = lambda update: None,
) -> TrainedDetector:
    """Train a Cascade R-CNN on a copy of the backbone, with masks where the data have them.

    Images are normalised by the checkpoint's own mean and deviation. See `bob.engines.fine_tune.train` for arguments,
    checkpoints and processes.

    Raises:
        UserError: As `bob.engines.fine_tune.train`; if the backbone has no feature maps or does not take images of any
            size.
        KeyboardInterrupt: After a checkpoint.

    Source: arXiv 2310.19909 (the recipe), arXiv 1712.00726 (the detector).
    """
    require_read(recipe)
    work = Work.of(backbone, dataset, recipe, how, seed, splits)
    masks = bool(work.split.images.has_masks)  # type: ignore[attr-defined]

    def make() -> Start:
        copied, notes = backbone_to_train(backbone, recipe, work.accelerator.device)
        frozen = recipe.trainable == "head" or not list(copied.model.parameters())
        network = Detector(copied, len(dataset.classes), recipe, masks, frozen)
        return Start(network, Detection(work.plan), notes)

    return carry_out(
        work,
        make,
        work.epochs(partial(training_batches, work.split, backbone.preprocess, recipe.view)),
        TrainedDetector,
        identity=work.identity(detector=_VERSION, library=version(), masks=masks),
        folder=folder,
        limits=limits,
        progress=progress,
    )
