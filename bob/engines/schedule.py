"""How the learning rate rises and falls over the updates of a training."""

from __future__ import annotations

from typing import Any

import torch
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler

from bob.engines.recipe import Recipe
from bob.engines.training_data import Plan


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, plan: Plan, lr: float) -> Scheduler:
    """The recipe's schedule over all updates, the first of them replaced by a linear rise.

    Args:
        optimizer: Each group's rate is multiplied by its `lr_scale`.
        recipe: Says the shape.
        plan: Says how many updates there are.
        lr: The peak.
    """
    common: dict[str, Any] = {
        "warmup_t": warmup_updates(recipe, plan),
        "warmup_lr_init": min(recipe.warmup_lr, lr),  # a warm-up never falls
        "warmup_prefix": False,
        "t_in_epochs": False,
    }
    lowest = min(recipe.min_lr, lr)
    if recipe.schedule == "multistep":
        # timm takes a milestone m to apply from update m - 1 on.
        milestones = [round(share * plan.steps) + 1 for share in recipe.milestones]
        return MultiStepLRScheduler(optimizer, milestones, decay_rate=0.1, **common)
    if recipe.schedule == "poly":
        return PolyLRScheduler(optimizer, plan.steps, power=1.0, lr_min=lowest, **common)
    return CosineLRScheduler(optimizer, plan.steps, lr_min=lowest, **common)


def warmup_updates(recipe: Recipe, plan: Plan) -> int:
    """How many updates the rise takes; of `warmup_steps` at most half of all, which a small data set has few of."""
    if recipe.warmup_steps is None:
        return recipe.warmup_epochs * plan.updates
    return min(recipe.warmup_steps, plan.steps // 2)
