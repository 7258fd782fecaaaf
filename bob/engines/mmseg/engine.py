"""Training an UPerNet by mmsegmentation; called as every other engine is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.data.loader import make_items
from bob.engines.checkpoint import Checkpoints
from bob.engines.dense_recipe import SegmentationRecipe, require_read
from bob.engines.mmseg import library
from bob.engines.mmseg.model import make_segmentor
from bob.engines.mmseg.runner import RunnerTrainer, make_runner
from bob.engines.mmseg.samples import TrainingBatches
from bob.engines.mmseg.trained import TrainedSegmentor
from bob.engines.order import epoch_positions
from bob.engines.recipe import Limits
from bob.engines.segmentation.engine import pyramid_to_train
from bob.engines.training import Load, Parts, Progress, Training
from bob.engines.work import Work
from bob.errors import UserError

if TYPE_CHECKING:
    from bob.features.extract import Extraction

_NO_LIMITS = Limits()


def version() -> str:
    """The library that trains, and its version.

    Raises:
        UserError: If it is not installed, or does not work.
    """
    return library.version()


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
) -> TrainedSegmentor:
    """Train a copy of the backbone with mmsegmentation's UPerNet on it, going on from the checkpoint if there is one.

    As `bob.engines.segmentation.train`, on the same maps, with mmsegmentation's heads and losses, its pipeline of
    images and mmengine's runner and optimizer wrapper. One process trains.

    Args:
        backbone: Stays as it is.
        dataset: Its class maps are read from `splits` alone.
        recipe: What to do.
        how: Device, precision and decoding processes.
        folder: Checkpoints and TensorBoard logs go below it, into a folder for each training.
        seed: Of the heads, the order of the images, and everything random.
        splits: Trained on; never `test`.
        limits: When to stop early.
        progress: Told after each update.

    Raises:
        UserError: As the other engine's, and if there are several processes, or the recipe has an `ema_decay`.
        KeyboardInterrupt: After a checkpoint.

    Source: mmsegmentation's configs/_base_/models/upernet_r50.py and configs/_base_/datasets/ade20k.py.
    """
    require_read(recipe, {"ema_decay": None})
    name = version()
    work = Work.of(backbone, dataset, recipe, how, seed, splits)
    plan, accelerator = work.plan, work.accelerator
    if accelerator.num_processes > 1:
        raise UserError(
            f"mmsegmentation trains in one process here, not in {accelerator.num_processes}.",
            "Start one process, or leave @mmseg out: bob's own engine trains in several.",
        )
    checkpoints = Checkpoints(folder, work.identity(library=name))
    with library.contained(seed, accelerator.device):
        pyramid, notes = pyramid_to_train(backbone, recipe, accelerator.device)
        segmentor = make_segmentor(pyramid, len(dataset.classes), recipe, backbone.preprocess)
        segmentor.to(accelerator.device)
        trainer = RunnerTrainer(segmentor, recipe, plan, seed, accelerator.device, how.precision)
        training = Training(trainer, plan, _loader(work), checkpoints, accelerator)

        def run() -> None:
            training.go_on()
            training.run(limits, progress)

        make_runner(segmentor, trainer, run, plan, checkpoints.folder, accelerator.device).train()
    fields = work.fields(training.step, training.seconds, training.losses, trainer.largest)
    return TrainedSegmentor(
        segmentor=segmentor.eval(),
        network=trainer.network.eval(),
        **{**fields, "notes": (*notes, *fields["notes"])},
    )


def _loader(work: Work[SegmentationRecipe]) -> Load:
    def load(epoch: int, start: int) -> Parts:
        batches = epoch_positions(len(work.split), work.plan.part, seed=work.seed, epoch=epoch, start=start)
        view, preprocess = work.recipe.view, work.backbone.preprocess
        make = TrainingBatches(work.split, preprocess, view, batches, work.seed, epoch)
        return make_items(len(batches), make, work.how.workers)

    return load
