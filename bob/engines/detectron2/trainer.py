"""detectron2's trainer with gradients that are added up, mixed precision, and parts that shrink until they fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from bob.backbones.base import Backbone
from bob.engines import loop
from bob.engines.detectron2.data import Item, Loader
from bob.engines.detectron2.detector import Detector
from bob.engines.devices import is_out_of_memory
from bob.engines.interrupts import Interrupts
from bob.engines.loop import Diverged
from bob.engines.recipe import Recipe
from bob.engines.training_data import Plan
from bob.errors import UserError


class Stopped(BaseException):
    """A training ends between two updates; no error, which detectron2's loop would log as one."""


class Trainer(SimpleTrainer):
    """Every random number of update i depends on the seed and i alone, so generators are no part of the state.

    Args:
        detector: On its device.
        loader: Gives the parts of each update that is left.
        optimizer: Of the detector's weights.
        recipe: What to do.
        plan: How updates are cut.
        seed: Of the regions that are drawn, dropout and drop path.
        precision: `float32`, or the type of mixed precision.
        interrupts: Whether Ctrl-C was pressed.

    Attributes:
        largest: Images in one forward pass; halved when memory runs out.
        losses: Each loss of the last update by name, means over its images.
    """

    def __init__(
        self,
        detector: Detector,
        loader: Loader,
        optimizer: torch.optim.Optimizer,
        *,
        recipe: Recipe,
        plan: Plan,
        seed: int,
        precision: str,
        interrupts: Interrupts,
    ) -> None:
        super().__init__(detector, loader, optimizer)
        self.largest = plan.part
        self.losses: dict[str, float] = {}
        self._recipe, self._plan, self._seed, self._interrupts = recipe, plan, seed, interrupts
        self._dtype = None if precision == "float32" else getattr(torch, precision)
        self.scaler = torch.amp.GradScaler(detector.device.type, enabled=precision == "float16")

    def run_step(self) -> None:
        """Do one update.

        Raises:
            Diverged: If the loss is NaN or infinite; the weights are those before.
            UserError: If one image alone does not fit in memory, or an image cannot be read.
        """
        parts = self._next()
        self.losses = self._accumulate(parts)
        if not math.isfinite(self.losses["loss"]):
            raise self._diverged(str(self.losses["loss"]))
        if self._recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._trained(), self._recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def close(self) -> None:
        """End the processes that load."""
        self._data_loader_iter_obj = None

    def _next(self) -> list[list[Item]]:
        """The parts of one update, whole before any of them is used."""
        try:
            return [next(self._data_loader_iter) for _ in range(self._plan.parts)]
        except Exception:
            if not self._interrupts.noted:
                raise
        raise Stopped  # Ctrl-C ends the processes that load as well

    def _accumulate(self, parts: Sequence[list[Item]]) -> dict[str, float]:
        """Leave the gradient of the update in the parameters, halving the forward pass until it fits."""
        while True:
            self.optimizer.zero_grad()
            torch.manual_seed(int(np.random.SeedSequence([self._seed, self.iter]).generate_state(1, np.uint64)[0]))
            try:
                return self._gradient(parts)
            except (FloatingPointError, AssertionError) as error:  # what detectron2 says of boxes that are no numbers
                if "NaN" not in str(error):
                    raise
                raise self._diverged("no longer a number") from error
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.largest == 1:
                    raise self._too_large() from error
            # Outside the handler, whose traceback keeps the failed pass's tensors alive.
            self._halve()

    def _gradient(self, parts: Sequence[list[Item]]) -> dict[str, float]:
        totals: dict[str, torch.Tensor] = {}
        device = self.model.device.type
        for part in parts:
            for first in range(0, len(part), self.largest):
                images = part[first : first + self.largest]
                with torch.autocast(device, dtype=self._dtype, enabled=self._dtype is not None):
                    named = self.model(images)
                named = {name: loss * (len(images) / self._plan.batch) for name, loss in named.items()}
                self.scaler.scale(sum(named.values())).backward()
                for name, loss in named.items():
                    totals[name] = totals.get(name, 0) + loss.detach().float()
        values = {name: total.item() for name, total in totals.items()}
        return {"loss": sum(values.values()), **values}

    def _halve(self) -> None:
        self.largest = max(1, self.largest // 2)
        self.optimizer.zero_grad()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _diverged(self, what: str) -> Diverged:
        return Diverged(
            f"The loss is {what} at step {self.iter} of recipe '{self._recipe.name}' with lr {self._recipe.lr:g}.",
            "Use a smaller lr or more warmup_steps; with --precision float16, bfloat16 or float32 may do.",
        )

    def _too_large(self) -> UserError:
        return UserError(
            f"The detector does not fit in the memory of {self.model.device} for training, even with one image at a "
            "time.",
            "Use a larger device, --precision bfloat16, smaller images or the protocol frozen.",
        )


def make_optimizer(detector: Detector, backbone: Backbone, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimizer over the backbone, unless it is frozen, and everything on top of it.

    Args:
        detector: Holds the backbone.
        backbone: Its own weights may learn slower, layer by layer.
        recipe: What to use.
        lr: The peak.

    Raises:
        UserError: If timm has no such optimizer, or cannot tell the layers apart.
    """
    own = {id(parameter) for parameter in backbone.parameters()}
    head = nn.ParameterList(parameter for parameter in detector.parameters() if id(parameter) not in own)
    return loop.make_optimizer(backbone, head, recipe, lr)
