"""What happens around each update: the learning rate, averaged weights, word of how it stands, checkpoints, an end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from detectron2.engine import HookBase
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3

from bob.engines.detectron2.trainer import Stopped
from bob.engines.interrupts import Interrupts
from bob.engines.logs import Log
from bob.engines.recipe import Limits
from bob.engines.training import SAVE_EVERY, Progress, standing
from bob.engines.training_data import Plan

_MOST_SAVING = 0.1  # of the time; a large network on few images would else do little but write


class Schedule(HookBase):
    """Sets the rate of each update."""

    def __init__(self, schedule: Scheduler) -> None:
        self._schedule = schedule

    def before_step(self) -> None:
        """Set the rate."""
        self._schedule.step_update(self.trainer.iter)


class Average(HookBase):
    """Moves the averaged weights."""

    def __init__(self, average: ModelEmaV3) -> None:
        self._average = average

    def after_step(self) -> None:
        """Move them."""
        self._average.update(self.trainer.model)


class Standing(HookBase):
    """Keeps count, and tells how it stands.

    Attributes:
        step: Updates done.
        seconds: Wall time that they took, loading included, over all interruptions.
        losses: Of the last epoch's updates.
    """

    def __init__(self, plan: Plan, log: Log, progress: Progress, *, step: int, seconds: float) -> None:
        self.step, self.seconds = step, seconds
        self.losses: deque[float] = deque(maxlen=plan.updates)
        self._plan, self._log, self._progress = plan, log, progress
        self._begun = 0.0

    def before_step(self) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def after_step(self) -> None:
        """Count and tell."""
        named: dict[str, float] = self.trainer.losses
        self.step = self.trainer.iter + 1
        self.seconds += time.perf_counter() - self._begun
        self.losses.append(named["loss"])
        lr = max(group["lr"] for group in self.trainer.optimizer.param_groups)
        stands = standing(self._plan, self.step, named["loss"], lr, self.seconds)
        self._log.write(self.step, **{**named, "lr": stands.lr, "images_per_second": stands.images_per_second})
        self._progress(stands)


class Keep(HookBase):
    """Writes a checkpoint now and then, and at the end of each epoch unless that would take long.

    Args:
        plan: Says when an epoch ends.
        save: Writes it.
    """

    def __init__(self, plan: Plan, save: Callable[[], Any]) -> None:
        self._plan, self._save = plan, save
        self._saved_at, self._saving = time.perf_counter(), 0.0

    def after_step(self) -> None:
        """Write one if it is time."""
        begun, step = time.perf_counter(), self.trainer.iter + 1
        early = begun - self._saved_at < self._saving / _MOST_SAVING
        if step < self._plan.steps and (step % SAVE_EVERY == 0 or (step % self._plan.updates == 0 and not early)):
            self._save()
            self._saved_at = time.perf_counter()
            self._saving = self._saved_at - begun


class Stop(HookBase):
    """Ends a training early: after Ctrl-C, or when its time is over."""

    def __init__(self, stands: Standing, limits: Limits, interrupts: Interrupts) -> None:
        self._stands, self._limits, self._interrupts = stands, limits, interrupts

    def after_step(self) -> None:
        """End it if it is time.

        Raises:
            Stopped: Then.
        """
        if self._interrupts.noted or self._limits.reached(self._stands.step, self._stands.seconds):
            raise Stopped
