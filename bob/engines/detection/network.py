"""Cascade R-CNN on any backbone: pyramid, region proposals, three stages of boxes and, if asked for, masks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork

from bob.backbones.base import Backbone
from bob.backbones.pyramid import Pyramid
from bob.engines.dense_recipe import DetectionRecipe
from bob.engines.detection.cascade import Cascade, Found
from bob.engines.detection.masks import Masks
from bob.engines.detection.proposals import Proposals
from bob.engines.detection.regions import Size, Target
from bob.engines.network import Network


@dataclass(frozen=True)
class Seen:
    """What a detector says about one image at the size at which it saw it.

    Attributes:
        found: Boxes, scores and labels.
        masks: (k, 28, 28) float32, probabilities from edge to edge of each box; None without a mask head.
    """

    found: Found
    masks: torch.Tensor | None


class Head(nn.Module):
    """Everything but the backbone.

    Args:
        pyramid: What makes the backbone's maps, of the recipe's width or as they come; its new layers become part of
            the head.
        n_classes: C.
        recipe: Widths and numbers of regions.
        masks: Whether there is a mask head.
    """

    def __init__(self, pyramid: Pyramid, n_classes: int, recipe: DetectionRecipe, masks: bool) -> None:
        super().__init__()
        width = recipe.fpn_width
        # Level and size of a region go together as in FPN, where anchors of 32 pixels and a scale of 224 do.
        canonical = 7 * recipe.anchor_size
        self.pyramid = pyramid.own
        self.fpn = None if pyramid.own.outputs else FeaturePyramidNetwork(pyramid.channels, width)
        self.proposals = Proposals(width, recipe.anchor_size, recipe.proposals)
        self.boxes = Cascade(width, recipe.box_width, n_classes, recipe.roi_samples, canonical)
        self.masks = Masks(width, recipe.mask_width, n_classes, canonical) if masks else None


class Detector(Network):
    """A Cascade (Mask) R-CNN.

    The maps of a plain ViT, all made from one, go to the heads as they are, as in ViTDet; those of other backbones
    through a feature pyramid network.

    Args:
        backbone: The caller gives it away.
        n_classes: C.
        recipe: Widths and numbers of regions.
        masks: Whether there is a mask head.
        frozen: Whether the backbone stays as it is.

    Raises:
        UserError: If the backbone has no feature maps, does not take images of any size or, unless frozen, cannot be
            trained.

    Source: arXiv 1712.00726, 1612.03144, 2203.16527; detectron2.
    """

    head: Head

    def __init__(
        self, backbone: Backbone, n_classes: int, recipe: DetectionRecipe, masks: bool, frozen: bool = False
    ) -> None:
        width = recipe.fpn_width if len(backbone.strides) == 1 else None
        pyramid = Pyramid(backbone, width, frozen=frozen)
        # On the CPU first, where random numbers are the same for every device.
        head = Head(pyramid, n_classes, recipe, masks).to(memory_format=torch.channels_last).to(backbone.device)
        super().__init__(backbone, head, frozen)
        self.pyramid = pyramid
        self._threshold, self._most = recipe.score_threshold, recipe.detections

    def forward(  # type: ignore[override]
        self, images: torch.Tensor, sizes: Sequence[Size], targets: list[Target]
    ) -> dict[str, torch.Tensor]:
        """Return losses by name, float32 scalars, means over the images.

        Args:
            images: Normalised, (B, 3, H, W), padded at right and bottom.
            sizes: Height and width of the valid part of each.
            targets: What is where in each; none may be in a whole batch.
        """
        maps = self._maps(images)
        regions, losses = self._proposals(images, maps, sizes, targets)
        named = {"objectness": losses["loss_objectness"], "proposals": losses["loss_rpn_box_reg"]}
        boxes, sampled = self.head.boxes.losses(maps, regions, sizes, targets)
        named |= boxes
        if self.head.masks is not None:
            named["masks"] = self.head.masks.loss(maps, sampled, targets)
        return named

    def detect(self, images: torch.Tensor, sizes: Sequence[Size]) -> list[Seen]:
        """Return what is in each image; see `forward`."""
        maps = self._maps(images)
        regions, _ = self._proposals(images, maps, sizes, None)
        found = self.head.boxes.detect(maps, regions, sizes, self._threshold, self._most)
        if self.head.masks is None:
            return [Seen(own, None) for own in found]
        masks = self.head.masks.probabilities(maps, [own.boxes for own in found], [own.labels for own in found])
        return [Seen(own, mask) for own, mask in zip(found, masks, strict=True)]

    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Of strides 4, 8, 16, 32 and 64, all of the same width."""
        maps = self.pyramid(images)
        if self.head.fpn is not None:
            maps = list(self.head.fpn(OrderedDict((str(level), map_) for level, map_ in enumerate(maps))).values())
        return [*maps, F.max_pool2d(maps[-1], 1, 2)]

    def _proposals(
        self, images: torch.Tensor, maps: list[torch.Tensor], sizes: Sequence[Size], targets: list[Target] | None
    ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        levels = {str(level): map_ for level, map_ in enumerate(maps)}
        regions, losses = self.head.proposals(ImageList(images, list(sizes)), levels, targets)
        return regions, losses
