"""One training by detectron2, from its first update or its checkpoint to its last, or to where it is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from timm.utils import ModelEmaV3

from bob.backbones.base import Backbone
from bob.data.base import Dataset, Split
from bob.engines.carry_out import backbone_to_train
from bob.engines.checkpoint import Checkpoints
from bob.engines.dense_recipe import DetectionRecipe
from bob.engines.detectron2.data import training_loader
from bob.engines.detectron2.detector import Detector, make_detector, make_pyramid
from bob.engines.detectron2.hooks import Average, Keep, Schedule, Standing, Stop
from bob.engines.detectron2.library import quiet, version
from bob.engines.detectron2.trained import TrainedDetector, learnt
from bob.engines.detectron2.trainer import Stopped, Trainer, make_optimizer
from bob.engines.interrupts import Interrupts
from bob.engines.logs import Log
from bob.engines.recipe import Limits
from bob.engines.schedule import make_schedule
from bob.engines.training import Progress
from bob.engines.work import Work

if TYPE_CHECKING:
    from bob.features.extract import Extraction

# Of this engine: raised when the same identity would give other weights than before.
ENGINE_VERSION = 1


def run(
    backbone: Backbone,
    dataset: Dataset,
    recipe: DetectionRecipe,
    how: Extraction,
    folder: Path,
    seed: int,
    splits: Sequence[str],
    limits: Limits,
    progress: Progress,
) -> TrainedDetector:
    """See `bob.engines.detectron2.engine.train`."""
    work = Work.of(backbone, dataset, recipe, how, seed, splits)
    identity = work.identity(detectron2=version(), detectron2_engine=ENGINE_VERSION)
    # The caller's random streams stay where they are.
    with quiet(), torch.random.fork_rng(devices=[how.device] if how.device.type == "cuda" else []):
        torch.manual_seed(seed)
        copied, notes = backbone_to_train(backbone, recipe, how.device)
        detector = _detector(copied, dataset, work.split, recipe).to(how.device)
        training = _Training(detector, copied, work, Checkpoints(folder, identity))
        training.run(limits, progress)
        training.finish()
    fields = work.fields(training.step, training.seconds, training.losses, training.largest)
    return TrainedDetector(detector=detector, backbone=copied, **{**fields, "notes": (*notes, *fields["notes"])})


def _detector(backbone: Backbone, dataset: Dataset, split: Split, recipe: DetectionRecipe) -> Detector:
    frozen = recipe.trainable == "head" or not list(backbone.model.parameters())
    pyramid = make_pyramid(backbone, recipe, frozen)
    masks = split.images.has_masks  # type: ignore[attr-defined]
    return make_detector(pyramid, len(dataset.classes), masks, recipe, backbone.preprocess)


class _Training:
    """How far a training has come, and what it takes to go on.

    Args:
        detector: On its device.
        backbone: The detector's.
        work: What is trained on what.
        checkpoints: Where to go on from.
    """

    def __init__(
        self, detector: Detector, backbone: Backbone, work: Work[DetectionRecipe], checkpoints: Checkpoints
    ) -> None:
        recipe, plan = work.recipe, work.plan
        self.step, self.seconds, self.largest = 0, 0.0, plan.part
        self.losses: list[float] = []
        self._detector, self._backbone, self._work = detector, backbone, work
        self._plan, self._checkpoints = plan, checkpoints
        self._frozen = recipe.trainable == "head"
        self._average = ModelEmaV3(detector, decay=recipe.ema_decay) if recipe.ema_decay is not None else None
        lr = recipe.peak_lr(plan.batch)
        self._optimizer = make_optimizer(detector, backbone, recipe, lr)
        self._schedule = make_schedule(self._optimizer, recipe, plan, lr)
        self._scaler: dict[str, Any] = {}
        self._take_up(checkpoints.load())

    def run(self, limits: Limits, progress: Progress) -> None:
        """Do the updates that are left, or those that the limits allow.

        Raises:
            KeyboardInterrupt: After Ctrl-C, with a checkpoint written.
        """
        last = min(self._plan.steps, limits.max_steps or self._plan.steps)
        if self.step >= last or limits.reached(self.step, self.seconds):
            return
        log = Log(self._checkpoints.folder, self.step)
        with closing(log), Interrupts() as interrupts:
            stands = Standing(self._plan, log, progress, step=self.step, seconds=self.seconds)
            stands.losses.extend(self.losses)
            trainer = self._trainer(interrupts)
            averages = [] if self._average is None else [Average(self._average)]
            keep = Keep(self._plan, lambda: self._save(trainer, stands))
            stop = Stop(stands, limits, interrupts)
            trainer.register_hooks([Schedule(self._schedule), *averages, stands, keep, stop])
            with closing(trainer):
                with suppress(Stopped):
                    trainer.train(self.step, last)
                self._save(trainer, stands)
            if interrupts.noted:
                raise KeyboardInterrupt

    def finish(self) -> None:
        """Leave the detector in eval mode, with the averaged weights if there are any."""
        if self._average is not None:
            self._detector.load_state_dict(self._average.module.state_dict())
        self._optimizer.zero_grad()
        self._detector.eval()

    def _trainer(self, interrupts: Interrupts) -> Trainer:
        loader = training_loader(
            self._work.split,
            self._backbone.preprocess,
            self._work.recipe.view,
            self._plan,
            seed=self._work.seed,
            workers=self._work.how.workers,
            step=self.step,
        )
        trainer = Trainer(
            self._detector,
            loader,
            self._optimizer,
            recipe=self._work.recipe,
            plan=self._plan,
            seed=self._work.seed,
            precision=self._work.how.precision,
            interrupts=interrupts,
        )
        trainer.largest = self.largest
        if self._scaler:
            trainer.scaler.load_state_dict(self._scaler)
        return trainer

    def _take_up(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        self._detector.load_state_dict({**self._detector.state_dict(), **state["network"]})
        if self._average is not None:
            self._average.module.load_state_dict(state["average"])
        if state["optimizer"] is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]
        self.largest = min(self.largest, state["largest"])
        self._scaler = state["scaler"]

    def _save(self, trainer: Trainer, stands: Standing) -> None:
        self.step, self.seconds, self.losses = stands.step, stands.seconds, list(stands.losses)
        self.largest = trainer.largest
        going_on = self.step < self._plan.steps  # where no update is left, the weights alone
        self._checkpoints.save(
            {
                "step": self.step,
                "seconds": self.seconds,
                "losses": self.losses,
                "largest": self.largest,
                "network": learnt(self._detector, self._backbone, self._frozen),
                "average": None if self._average is None else self._average.module.state_dict(),
                "optimizer": self._optimizer.state_dict() if going_on else None,
                "scaler": trainer.scaler.state_dict() if going_on else {},
            }
        )
