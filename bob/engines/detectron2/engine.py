"""Training of a detector by detectron2: what is asked for, before the library is needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.engines.dense_recipe import DetectionRecipe, require_read
from bob.engines.detectron2.library import quiet, require_library
from bob.engines.recipe import Limits
from bob.engines.training import Progress
from bob.errors import UserError
from bob.extras import import_extra

if TYPE_CHECKING:
    from bob.engines.detectron2.trained import TrainedDetector
    from bob.features.extract import Extraction

_NO_LIMITS = Limits()


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
    """Train a Cascade R-CNN, with masks where the data have them, going on from the checkpoint if there is one.

    Ctrl-C ends the update in hand and writes a checkpoint before it is raised; a killed training goes on at its last
    checkpoint, with the weights of an undisturbed one in the end.

    Args:
        backbone: Stays as it is; a copy is trained, or frozen if the recipe trains the head alone.
        dataset: Of detection; its targets are read from `splits` alone.
        recipe: What to do.
        how: Device, precision and decoding processes.
        folder: Checkpoints and TensorBoard logs go below it, into a folder for each training.
        seed: Of the heads, the order of the images, and everything random.
        splits: Trained on; never `test`.
        limits: When to stop early.
        progress: Told after each update.

    Raises:
        UserError: If detectron2 or another library is missing, the loss diverges (`Diverged`), memory is short, an
            image or annotation cannot be read, the checkpoint is damaged, or there are several processes.
        KeyboardInterrupt: After a checkpoint.

    Source: arXiv 1712.00726, arXiv 2310.19909 (the recipe), detectron2's tools/lazyconfig_train_net.py.
    """
    require_library()
    import_extra("accelerate", "finetune")
    _check(dataset, recipe, how)
    with quiet():
        from bob.engines.detectron2.run import run

    return run(backbone, dataset, recipe, how, folder, seed, splits, limits, progress)


def _check(dataset: Dataset, recipe: DetectionRecipe, how: Extraction) -> None:
    """What detectron2 and this engine cannot do is refused before anything is loaded."""
    if dataset.splits["train"].images.target_kind != "detection":
        raise ValueError(f"Expected `dataset` to be of detection, but got '{dataset.source}'.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "The detectron2 engine trains in one process, and several were launched.",
            "Start it without torchrun or accelerate launch, or take the torchvision engine (without @detectron2).",
        )
    if how.precision == "float16" and how.device.type == "cpu":
        raise UserError("A CPU does not train in float16.", "Use --precision bfloat16 or float32.")
    require_read(recipe)
