"""mmengine's Runner around bob's checkpoints, limits and logs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bob.engines.dense_recipe import SegmentationRecipe
from bob.engines.devices import is_out_of_memory
from bob.engines.loop import Diverged, Loaded, Outcome, make_optimizer
from bob.engines.mmseg.library import load, silent_logger
from bob.engines.mmseg.model import as_network
from bob.engines.mmseg.samples import collate
from bob.engines.schedule import make_schedule
from bob.engines.segmentation.objective import pieces
from bob.engines.training_data import Plan

_NO_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")


class RunnerTrainer:
    """Updates of a segmentor by mmengine's optimizer wrapper; for the rest as `bob.engines.loop.Trainer`.

    Args:
        segmentor: On its device, in a `Runner`.
        wrapper: Of its optimizer.
        recipe: What to do.
        plan: How updates are cut.
        seed: Of dropout and drop path.
        device: Of the segmentor.
        precision: `float32`, or the type of mixed precision.

    Attributes:
        network: See `as_network`.
        largest: Most images of one forward pass; halved when memory runs out.
        runner: Its hooks are called around each update; set by `make_runner`.
    """

    runner: Any = None

    def __init__(
        self,
        segmentor: Any,
        recipe: SegmentationRecipe,
        plan: Plan,
        seed: int,
        device: torch.device,
        precision: str,
    ) -> None:
        self.network = as_network(segmentor)
        self.largest = plan.part
        self._segmentor, self._recipe, self._plan, self._seed = segmentor, recipe, plan, seed
        self._device, self._precision = device, precision
        lr = recipe.peak_lr(plan.batch)
        self._optimizer = make_optimizer(self.network.backbone, self.network.head, recipe, lr)
        self._schedule = make_schedule(self._optimizer, recipe, plan, lr)
        self.wrapper = _wrapper(self._optimizer, recipe, device, precision)

    @property
    def lr(self) -> float:
        """Learning rate of the heads in the last update."""
        return max(group["lr"] for group in self._optimizer.param_groups)

    def update(self, number: int, parts: Loaded, stop: bool = False) -> Outcome:
        """See `Trainer.update`; a part is a list of samples."""
        self._schedule.step_update(number)
        self._segmentor.train()
        self.runner.call_hook("before_train_iter", batch_idx=number, data_batch=parts)
        loss = self._accumulate(number, parts)
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss is {loss} at step {number} of recipe '{self._recipe.name}' with lr {self._recipe.lr:g}.",
                "Use a smaller lr or more warmup_steps; with --precision float16, bfloat16 or float32 may do.",
            )
        self.wrapper.step()
        self.runner.call_hook("after_train_iter", batch_idx=number, data_batch=parts, outputs={"loss": loss})
        return Outcome(loss, stop)

    def state(self, to_go_on: bool = True) -> dict[str, Any]:
        """See `Trainer.state`."""
        scaler = getattr(self.wrapper, "loss_scaler", None)
        return {
            "network": self.network.learnt().state_dict(),
            "optimizer": self._optimizer.state_dict() if to_go_on else None,
            "scaler": scaler.state_dict() if to_go_on and scaler is not None else None,
            "largest": self.largest,
        }

    def load(self, state: dict[str, Any]) -> None:
        """See `Trainer.load`."""
        self.network.learnt().load_state_dict(state["network"])
        if state["optimizer"] is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.wrapper.loss_scaler.load_state_dict(state["scaler"])
        self.largest = min(self.largest, state["largest"])

    def agree(self) -> None:
        """Nothing, in one process."""

    def _accumulate(self, number: int, parts: Loaded) -> float:
        """Leave the gradient of the update in the parameters; returns the loss."""
        while True:
            self.wrapper.zero_grad()
            try:
                return self._gradient(number, parts)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.largest == 1:
                    raise
            # Outside the handler, whose traceback keeps the failed pass's tensors alive.
            self.largest = max(1, self.largest // 2)
            self.wrapper.zero_grad()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _gradient(self, number: int, parts: Loaded) -> float:
        _seed_update(self._seed, number)
        total = torch.zeros((), device=self._device)
        for part in parts:
            for chosen in pieces(len(part), self.largest, self.network.backbone.card.name):
                share = len(part[chosen]) / self._plan.batch
                with self._forward():
                    data = self._segmentor.data_preprocessor(collate(part[chosen]), True)
                    losses = self._segmentor(**data, mode="loss")
                loss = self._segmentor.parse_losses(losses)[0] * share
                self.wrapper.backward(loss)
                total += loss.detach()
        return total.item()

    def _forward(self) -> AbstractContextManager[Any]:
        if self._precision == "float32" or self._device.type == "cuda":
            context: AbstractContextManager[Any] = self.wrapper.optim_context(self._segmentor)
            return context
        return torch.autocast(self._device.type, dtype=getattr(torch, self._precision))


def make_runner(
    segmentor: Any, trainer: RunnerTrainer, run: Callable[[], None], plan: Plan, folder: Path, device: torch.device
) -> Any:
    """A Runner whose `train()` initialises the heads and then does what `run` does.

    It moves the model to `device` and to no other, and leaves seeds, logs and limits of the process as they are.

    Args:
        segmentor: What it holds.
        trainer: Does the updates.
        run: Does all of them.
        plan: Says how many there are.
        folder: Everything that it writes goes below it.
        device: Of the segmentor.
    """
    runner = _quiet_runner(run, plan, device)(
        segmentor,
        str(folder),
        train_dataloader=[],
        train_cfg={},
        optim_wrapper=trainer.wrapper,
        default_hooks=dict.fromkeys(_NO_HOOKS),
        visualizer={"type": load("mmengine.visualization").Visualizer, "vis_backends": None},
        default_scope="mmseg",
        experiment_name="bob",
    )
    trainer.runner = runner
    (folder / runner.timestamp).rmdir()  # for logs, of which there are none
    return runner


def _quiet_runner(run: Callable[[], None], plan: Plan, device: torch.device) -> Any:
    """The class of a Runner that trains by `run` and changes nothing of the process."""
    module = load("mmengine.runner")

    class Loop(module.BaseLoop):  # type: ignore[name-defined]
        max_epochs, max_iters, epoch, iter = plan.epochs, plan.steps, 0, 0

        def run(self) -> Any:
            self.runner.call_hook("before_train")
            run()
            self.runner.call_hook("after_train")
            return self.runner.model

    class Quiet(module.Runner):  # type: ignore[name-defined]
        def setup_env(self, env_cfg: dict[str, Any]) -> None:
            self._rank, self._world_size, self._timestamp = 0, 1, "mmengine"

        def set_randomness(self, **_: Any) -> None:
            self._deterministic, self._seed = False, None

        def build_logger(self, *_: Any, **__: Any) -> Any:
            return silent_logger(self._experiment_name)

        def _log_env(self, env_cfg: dict[str, Any]) -> None:
            pass

        def dump_config(self) -> None:
            pass

        def wrap_model(self, _: Any, model: Any) -> Any:
            return model.to(device)

        def build_train_loop(self, _: Any) -> Any:
            return Loop(self, self._train_dataloader)

    return Quiet


def _wrapper(optimizer: torch.optim.Optimizer, recipe: SegmentationRecipe, device: torch.device, precision: str) -> Any:
    module = load("mmengine.optim")
    clip = None if recipe.clip_grad is None else {"max_norm": recipe.clip_grad}
    if precision == "float32" or device.type != "cuda":
        return module.OptimWrapper(optimizer, clip_grad=clip)
    # Only float16 has so few exponents that small gradients would be lost.
    scale = {"enabled": precision == "float16"}
    return module.AmpOptimWrapper(loss_scale=scale, dtype=precision, optimizer=optimizer, clip_grad=clip)


def _seed_update(*numbers: int) -> None:
    """Random numbers that depend on the update alone, so that a training goes on anywhere."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
