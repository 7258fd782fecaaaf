"""A training from its first update to its last, or to where it is stopped, with checkpoints and logs on the way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch

from bob.engines.checkpoint import Checkpoints
from bob.engines.devices import sum_over_processes
from bob.engines.interrupts import Interrupts
from bob.engines.logs import Log
from bob.engines.loop import Loaded, Outcome
from bob.engines.recipe import Limits
from bob.engines.training_data import Plan
from bob.errors import UserError
from bob.progress import Update

if TYPE_CHECKING:
    from accelerate import Accelerator

SAVE_EVERY = 500  # updates; and at the end of each epoch
_MOST_SAVING = 0.1  # of the time; a large network on few images would else do little but write
Parts = Iterator[Any]
# From an epoch and the part of it to begin with to its parts; closing it ends the processes that load.
Load = Callable[[int, int], Parts]
Progress = Callable[[Update], None]


class Updates(Protocol):
    """What does the updates of a training; see `bob.engines.loop.Trainer`."""

    @property
    def lr(self) -> float:
        """Largest learning rate in the last update."""
        ...

    def update(self, number: int, parts: Loaded, stop: bool = False) -> Outcome:
        """Do one update."""
        ...

    def state(self, to_go_on: bool = True) -> dict[str, Any]:
        """What a checkpoint holds."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint holds."""
        ...

    def agree(self) -> None:
        """Make all processes the same."""
        ...


class Training:
    """How far a training has come, and what it takes to go on.

    Args:
        trainer: Does the updates.
        plan: How many there are.
        load: Gives the images of an epoch.
        checkpoints: Where to go on from.
        accelerator: Of this process.

    Attributes:
        step: Updates done.
        seconds: Wall time that they took, loading included, over all interruptions.
        losses: Of the last epoch's updates.
    """

    def __init__(
        self, trainer: Updates, plan: Plan, load: Load, checkpoints: Checkpoints, accelerator: Accelerator
    ) -> None:
        self.step = 0
        self.seconds = 0.0
        self.losses: deque[float] = deque(maxlen=plan.updates)
        self._trainer, self._plan, self._load = trainer, plan, load
        self._checkpoints, self._accelerator = checkpoints, accelerator
        self._saved_at, self._saving = time.perf_counter(), 0.0

    @property
    def done(self) -> bool:
        """Whether no update is left."""
        return self.step >= self._plan.steps

    def go_on(self) -> None:
        """Take up the checkpoint, if there is one.

        Raises:
            UserError: If it is damaged, or the processes do not see the same one.
        """
        state = self._checkpoints.load()
        if state is not None:
            self._trainer.load(state["trainer"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.losses.extend(state["losses"])
        steps = torch.tensor([float(self.step)], device=self._accelerator.device)
        sum_over_processes([steps], self._accelerator)
        if steps.item() != self.step * self._plan.world:
            raise UserError(
                f"The {self._plan.world} processes do not see the same checkpoint {self._checkpoints.path}.",
                "Give a folder that all machines share.",
            )

    def run(self, limits: Limits, progress: Progress) -> None:
        """Do the updates that are left, or those that the limits allow.

        Raises:
            KeyboardInterrupt: After Ctrl-C, with a checkpoint written.
        """
        if self.done:
            return
        log = Log(self._checkpoints.folder, self.step, writes=self._accelerator.is_main_process)
        stopped = limits.reached(self.step, self.seconds)
        with closing(log), Interrupts() as interrupts:
            while not stopped and not self.done:
                stopped = self._epoch(limits, interrupts, lambda outcome: self._tell(outcome, log, progress))
                self._trainer.agree()
                self._save(at_once=stopped or self.done)
            if interrupts.noted:
                raise KeyboardInterrupt

    def _epoch(self, limits: Limits, interrupts: Interrupts, tell: Callable[[Outcome], None]) -> bool:
        """Do the rest of an epoch; returns whether something stopped it."""
        epoch, done = divmod(self.step, self._plan.updates)
        begun = time.perf_counter()
        parts = self._load(epoch, done * self._plan.parts)
        try:
            for _ in range(done, self._plan.updates):
                update = self._next(parts, interrupts)
                stop = interrupts.noted or limits.reached(self.step + 1, self.seconds)
                outcome = self._trainer.update(self.step, update, stop)
                self.step += 1
                self.losses.append(outcome.loss)
                now = time.perf_counter()
                self.seconds, begun = self.seconds + now - begun, now
                tell(outcome)
                if outcome.stop:
                    return True
                if self.step % SAVE_EVERY == 0:
                    self._trainer.agree()
                    self._save(at_once=True)
                    begun = time.perf_counter()
        finally:
            getattr(parts, "close", lambda: None)()
        return False

    def _next(self, parts: Parts, interrupts: Interrupts) -> Loaded:
        """The parts of one update, whole before any of them is used."""
        try:
            return list(islice(parts, self._plan.parts))
        except Exception:
            if not interrupts.noted:
                raise
        # Ctrl-C ends the processes that load as well.
        self._save(at_once=True)
        raise KeyboardInterrupt

    def _save(self, at_once: bool) -> None:
        """Write a checkpoint, unless it is too early to write the next."""
        begun = time.perf_counter()
        early = begun - self._saved_at < self._saving / _MOST_SAVING
        if not self._accelerator.is_main_process or (early and not at_once):
            return
        self._checkpoints.save(
            {
                "step": self.step,
                "seconds": self.seconds,
                "losses": list(self.losses),
                "trainer": self._trainer.state(to_go_on=not self.done),
            }
        )
        self._saved_at = time.perf_counter()
        self._saving = self._saved_at - begun

    def _tell(self, outcome: Outcome, log: Log, progress: Progress) -> None:
        stands = standing(self._plan, self.step, outcome.loss, self._trainer.lr, self.seconds)
        log.write(self.step, loss=stands.loss, lr=stands.lr, images_per_second=stands.images_per_second)
        progress(stands)


def standing(plan: Plan, step: int, loss: float, lr: float, seconds: float) -> Update:
    """How a training stands after `step` updates that took so many seconds."""
    return Update(
        step=step,
        steps=plan.steps,
        epoch=-(-step // plan.updates),
        epochs=plan.epochs,
        loss=loss,
        lr=lr,
        images_per_second=step * plan.batch / seconds,
        seconds_left=seconds / step * (plan.steps - step),
    )
