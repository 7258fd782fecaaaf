"""What a detector learns: the losses of its proposals, its stages and its masks, added up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from bob.engines.dense_batch import DenseBatch
from bob.engines.network import Network
from bob.engines.objective import Objective
from bob.engines.training_data import Plan

if TYPE_CHECKING:
    from accelerate import Accelerator


class Detection(Objective):
    """All losses with the same weight, as in detectron2; each a mean over the images.

    Args:
        plan: How updates are cut.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def losses(
        self, network: Network, part: DenseBatch, *, step: int, largest: int, accelerator: Accelerator
    ) -> Iterator[torch.Tensor]:
        """See `Objective.losses`; a part is what `training_batches` gives."""
        for piece in part.split(largest):
            moved = piece.to(accelerator.device)
            images = network.backbone.preprocess.normalize(moved.images)
            with accelerator.autocast():
                named = network(images, moved.sizes, moved.targets)
            yield torch.stack(list(named.values())).sum() * (len(piece) / self._plan.batch)
