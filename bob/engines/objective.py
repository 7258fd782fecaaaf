"""What a training makes smaller: the loss of a part of an update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from bob.engines.augment import UNKNOWN, finish_batch
from bob.engines.network import Network
from bob.engines.recipe import Recipe
from bob.engines.training_data import Plan

if TYPE_CHECKING:
    from accelerate import Accelerator


class Objective(ABC):
    """The loss of a part of an update, in pieces that fit in memory."""

    @abstractmethod
    def losses(
        self, network: Network, part: Any, *, step: int, largest: int, accelerator: Accelerator
    ) -> Iterator[torch.Tensor]:
        """Yield losses, float32 scalars that need gradients; over all parts and processes they add up to the update's.

        Each is computed when it is asked for, after the gradient of the one before. The forward pass is under
        `accelerator.autocast()`, what comes after it is not.

        Args:
            network: In training mode, on `accelerator.device`.
            part: As the loader gives it.
            step: Number of the part among all of this process.
            largest: Most images of one forward pass.
            accelerator: Of this process.
        """


class Classification(Objective):
    """Cross-entropy, or one sigmoid for each label, of images that are mixed and erased on the device.

    Args:
        n_classes: C.
        recipe: Its augmentation and loss.
        plan: How updates are cut.
        seed: Of the augmentation.
    """

    def __init__(self, n_classes: int, recipe: Recipe, plan: Plan, seed: int) -> None:
        self._n_classes, self._recipe, self._plan, self._seed = n_classes, recipe, plan, seed

    def losses(
        self,
        network: Network,
        part: tuple[torch.Tensor, torch.Tensor],
        *,
        step: int,
        largest: int,
        accelerator: Accelerator,
    ) -> Iterator[torch.Tensor]:
        """See `Objective.losses`; a part is images uint8 (B, 3, h, w) and labels (B,) or (B, L)."""
        finished, targets = finish_batch(
            *part,
            self._n_classes,
            network.backbone.preprocess,
            self._recipe.augmentation,
            seed=self._seed,
            step=step,
            device=accelerator.device,
            rank=accelerator.process_index,
            world=self._plan.world,
        )
        for images, wanted in zip(finished.split(largest), targets.split(largest), strict=True):
            with accelerator.autocast():
                logits = network(images)
            yield _loss(self._recipe.loss, logits, wanted) * (len(images) / self._plan.batch)


def _loss(kind: str, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over images; of multi-label targets, over those that are known."""
    if kind == "cross_entropy":
        return F.cross_entropy(logits, targets)
    known = (targets != UNKNOWN).float()
    each = F.binary_cross_entropy_with_logits(logits, targets, weight=known, reduction="sum")
    return each / known.sum().clamp(min=1)
