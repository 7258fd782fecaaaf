"""One update after another: gradients in parts that fit, over all processes, then optimizer and moving average."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.parameter_groups import parameter_groups
from bob.engines.devices import is_out_of_memory, sum_over_processes
from bob.engines.network import Network
from bob.engines.objective import Objective
from bob.engines.recipe import Recipe
from bob.engines.schedule import make_schedule
from bob.engines.training_data import Plan
from bob.errors import UserError, first_line

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bob.engines.prior import Prior

Loaded = Sequence[Any]  # the parts of one update, as the objective wants them


class Diverged(UserError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Outcome:
    """What one update came to: the mean `loss` before it, and whether some process asks to `stop`."""

    loss: float
    stop: bool


class Trainer:
    """A network in training. Every random number of update i depends on the seed, i and the process alone.

    So neither generators nor the schedule are part of its state, and it goes on anywhere as if it had never stopped.

    Args:
        network: On the accelerator's device.
        objective: What is learnt.
        recipe: What to do.
        plan: How updates are cut.
        seed: Of dropout, drop path and whatever the objective draws.
        accelerator: Of this process.
        prior: Its penalty is added to the loss; None for none.

    Raises:
        UserError: If timm has no such optimizer, or cannot tell the layers apart.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        recipe: Recipe,
        plan: Plan,
        seed: int,
        accelerator: Accelerator,
        prior: Prior | None = None,
    ) -> None:
        self.network = network
        self.largest = plan.part  # images in one forward pass; halved when memory runs out
        self._objective, self._recipe, self._plan, self._seed = objective, recipe, plan, seed
        self._accelerator, self._prior = accelerator, prior
        # The parameters stay the optimizer's; DistributedDataParallel would neither bear that one process runs out of
        # memory and tries again, nor a parameter that the feature does not depend on.
        lr = recipe.peak_lr(plan.batch)
        optimizer = make_optimizer(network.backbone, network.head, recipe, lr)
        self._schedule = make_schedule(optimizer, recipe, plan, lr)
        self._optimizer: Any = accelerator.prepare(optimizer)
        learnt = network.learnt()
        self._ema = ModelEmaV3(learnt, decay=recipe.ema_decay) if recipe.ema_decay is not None else None

    @property
    def lr(self) -> float:
        """Learning rate of the head in the last update."""
        return max(group["lr"] for group in self._optimizer.param_groups)

    def update(self, number: int, parts: Loaded, stop: bool = False) -> Outcome:
        """Do update `number`.

        Raises:
            Diverged: If the loss is NaN or infinite; the weights are those before.
            UserError: If one image alone does not fit in memory.
        """
        self._schedule.step_update(number)
        self.network.train()
        outcome = self._accumulate(number, parts, stop)
        if not math.isfinite(outcome.loss):
            name, lr = self._recipe.name, self._recipe.lr
            raise Diverged(
                f"The loss is {outcome.loss} at step {number} of recipe '{name}' with lr {lr:g}.",
                "Use a smaller lr or more warmup_epochs; with --precision float16, bfloat16 or float32 may do.",
            )
        if self._recipe.clip_grad is not None:
            self._accelerator.clip_grad_norm_(self._trained(), self._recipe.clip_grad)
        self._optimizer.step()
        if self._ema is not None:
            self._ema.update(self.network.learnt())
        return outcome

    def state(self, to_go_on: bool = True) -> dict[str, Any]:
        """What a checkpoint keeps; where no update is left, the weights alone."""
        scaler = self._accelerator.scaler
        return {
            "network": self.network.learnt().state_dict(),
            "ema": None if self._ema is None else self._ema.module.state_dict(),
            "optimizer": self._optimizer.state_dict() if to_go_on else None,
            "scaler": scaler.state_dict() if to_go_on and scaler is not None else None,
            "largest": self.largest,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.network.learnt().load_state_dict(state["network"])
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        if state["optimizer"] is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        if self._accelerator.scaler is not None and state["scaler"]:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        self.largest = min(self.largest, state["largest"])

    def agree(self) -> None:
        """Give all processes the mean of their BatchNorm statistics, so that they hold the same network."""
        world = self._accelerator.num_processes
        statistics = list(self._statistics()) if world > 1 else []
        sum_over_processes(statistics, self._accelerator)
        for statistic in statistics:
            statistic.div_(world)

    def finish(self) -> Network:
        """Return the network in eval mode, with the averaged weights if there are any."""
        if self._ema is not None:
            self.network.learnt().load_state_dict(self._ema.module.state_dict())
        self._optimizer.zero_grad()
        return self.network.eval()

    def _accumulate(self, number: int, parts: Loaded, stop: bool) -> Outcome:
        """Leave the gradient of the update in the parameters, halving the forward pass until it fits everywhere."""
        while True:
            self._optimizer.zero_grad()
            loss, full = self._gradient(number, parts)
            said = torch.tensor(
                [loss, full, stop], dtype=torch.float64 if self._device.type != "mps" else torch.float32
            )
            said = said.to(self._device)
            sum_over_processes([said], self._accelerator)
            loss, full, stop_somewhere = said.tolist()
            if not full:
                break
            self._halve()
        gradients = [parameter.grad for parameter in self._trained() if parameter.grad is not None]
        sum_over_processes(gradients, self._accelerator)
        return Outcome(loss, bool(stop_somewhere))

    def _gradient(self, number: int, parts: Loaded) -> tuple[float, bool]:
        """Return this process's share of loss and gradient, and whether memory ran out on the way."""
        torch.manual_seed(_mixed(self._seed, number, self._accelerator.process_index))
        total = torch.zeros((), device=self._device)
        try:
            for loss in self._losses(number, parts):
                self._accelerator.backward(loss)
                total += loss.detach()
            if self._prior is not None:
                total += self._pull(self._prior)
            return total.item(), False
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"Recipe '{self._recipe.name}' gives BatchNorm a single image of backbone "
                f"'{self.network.backbone.card.name}' to normalise by.",
                "Use a larger batch_size or micro_batch, and one that leaves no part of one image.",
            ) from error
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if self.largest == 1:
                raise UserError(
                    f"Backbone '{self.network.backbone.card.name}' does not fit in the memory of {self._device} for "
                    "training, even with one image at a time.",
                    'Use a larger device, --precision bfloat16, or a recipe with trainable = "head".',
                ) from error
        return 0.0, True

    def _pull(self, prior: Prior) -> torch.Tensor:
        """The prior's part of loss and gradient; each process gives an equal share."""
        named = self.network.backbone.model.named_parameters()
        penalty = prior.penalty(named) / self._accelerator.num_processes
        self._accelerator.backward(penalty)
        return penalty.detach()

    def _losses(self, number: int, parts: Loaded) -> Iterator[torch.Tensor]:
        """What to add up, computed one at a time, of as many images at once as fit."""
        for place, part in enumerate(parts):
            step = number * self._plan.parts + place
            yield from self._objective.losses(
                self.network, part, step=step, largest=self.largest, accelerator=self._accelerator
            )

    def _halve(self) -> None:
        self.largest = max(1, self.largest // 2)
        self._optimizer.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _device(self) -> torch.device:
        return self._accelerator.device

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _statistics(self) -> Iterator[torch.Tensor]:
        """Running means and variances that training moves, and their averages."""
        learnt = self.network.learnt()
        averaged = learnt if self._ema is None else self._ema.module
        for module, average in zip(learnt.modules(), averaged.modules(), strict=True):
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                for owner in dict.fromkeys((module, average)):
                    yield from (owner.running_mean, owner.running_var)


def _mixed(*numbers: int) -> int:
    """A seed of all of them."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def make_optimizer(backbone: Backbone, head: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimizer over what is learnt of a backbone and over all of a head.

    Raises:
        UserError: If timm has no such optimizer, or cannot tell the layers apart.
    """
    layer_decay = None if recipe.trainable == "head" else recipe.layer_decay
    groups = parameter_groups(backbone, head, lr=lr, weight_decay=recipe.weight_decay, layer_decay=layer_decay)
    try:
        return create_optimizer_v2(
            groups, opt=recipe.optimizer, lr=lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
    except (ValueError, TypeError) as error:
        problem = (
            f"timm cannot make the optimizer '{recipe.optimizer}' of recipe '{recipe.name}' ({first_line(error)})."
        )
        raise UserError(problem, "Use one of timm.optim.list_optimizers(), e.g. adamw, sgd or lars.") from error
