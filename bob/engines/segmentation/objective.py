"""What a segmenter is trained for: the right class in each pixel that counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from bob.data.objects import IGNORE
from bob.engines.dense_batch import DenseBatch
from bob.engines.dense_recipe import SegmentationRecipe
from bob.engines.network import Network
from bob.engines.objective import Objective
from bob.engines.training_data import Plan
from bob.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator


class Segmentation(Objective):
    """Cross-entropy of the decoder, and of the auxiliary head with its weight.

    Args:
        recipe: Says that weight.
        plan: How updates are cut.
    """

    def __init__(self, recipe: SegmentationRecipe, plan: Plan) -> None:
        self._recipe, self._plan = recipe, plan

    def losses(
        self, network: Network, part: DenseBatch, *, step: int, largest: int, accelerator: Accelerator
    ) -> Iterator[torch.Tensor]:
        """See `Objective.losses`; a part is a batch with class maps."""
        if part.classes is None:
            raise ValueError("Expected `part` to have class maps, but got none.")
        for chosen in pieces(len(part), largest, network.backbone.card.name):
            images = part.images[chosen].to(accelerator.device, non_blocking=True)
            classes = part.classes[chosen].to(accelerator.device, non_blocking=True)
            with accelerator.autocast():
                logits, auxiliary = network(network.backbone.preprocess.normalize(images))
            loss = pixel_loss(logits, classes)
            if auxiliary is not None:
                loss = loss + self._recipe.auxiliary * pixel_loss(auxiliary, classes)
            yield loss * (len(images) / self._plan.batch)


def pixel_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over the pixels that count, divided by the number of all pixels.

    So every pixel that counts weighs the same, in whichever images others are ignored, and a batch without any has a
    loss of 0.

    Args:
        logits: (B, C, h, w), brought to the size of the class maps bilinearly.
        classes: (B, H, W) int64, with `IGNORE`.

    Source: mmsegmentation's CrossEntropyLoss.
    """
    full = F.interpolate(logits.float(), size=classes.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(full, classes, ignore_index=IGNORE, reduction="sum") / classes.numel()


def pieces(images: int, largest: int, backbone: str) -> list[slice]:
    """Cut a batch into pieces of up to `largest` images, but never one alone, which BatchNorm could not normalise by.

    Args:
        images: In the batch; a single one is a piece, about which BatchNorm will complain.
        largest: Most images that memory holds.
        backbone: Its name, for the error.

    Raises:
        UserError: If memory holds but one image of several.
    """
    if largest == 1 < images:
        raise UserError(
            f"A segmenter on backbone '{backbone}' does not fit in memory for training, even with two images at a "
            "time, which its BatchNorms need.",
            'Use a larger device, --precision bfloat16, smaller crops, or a recipe with trainable = "head".',
        )
    firsts = list(range(0, images, largest))
    if images - firsts[-1] == 1 < len(firsts):
        firsts.pop()
    return [slice(first, end) for first, end in zip(firsts, [*firsts[1:], images], strict=True)]
