"""Regions of images: which object each is to find, which are trained on, and what the pyramid says about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import box_iou, roi_align
from torchvision.ops.poolers import LevelMapper

# Of one image: `boxes` (k, 4) float32, `labels` (k,) int64 and, if the data have them, `masks` (k, h, w) uint8.
Target = dict[str, torch.Tensor]
Size = tuple[int, int]

STRIDES = (4, 8, 16, 32)
"""Of the levels that regions are pooled from."""

_POSITIVE_SHARE = 0.25  # at most, of the regions of an image that are trained on


@dataclass(frozen=True)
class Regions:
    """The regions of one image and what they are to be.

    Attributes:
        boxes: (r, 4) float32, left, top, right and bottom in pixels.
        labels: (r,) int64, the class of the object to find, or the number of classes for background.
        truths: (r,) int64, which object of the image it is; 0 for background.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    truths: torch.Tensor

    def chosen(self, rows: torch.Tensor) -> Regions:
        """Some of them, by a mask or positions."""
        return Regions(self.boxes[rows], self.labels[rows], self.truths[rows])


def match(boxes: torch.Tensor, target: Target, least: float, background: int) -> Regions:
    """Give each box the object that it overlaps most, or background where their IoU is below `least`."""
    if not len(target["boxes"]):
        nothing = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return Regions(boxes, nothing + background, nothing)
    overlap, truths = box_iou(target["boxes"], boxes).max(dim=0)
    found = overlap >= least
    return Regions(boxes, target["labels"][truths].where(found, background), truths.where(found, 0))


def sample(regions: Regions, count: int, background: int) -> Regions:
    """Draw up to `count` regions, of which at most a quarter shows objects, from torch's global generator."""
    sampler = BalancedPositiveNegativeSampler(count, _POSITIVE_SHARE)
    positive, negative = sampler([(regions.labels != background).long()])
    return regions.chosen((positive[0] | negative[0]).bool())


class Pooling(nn.Module):
    """RoIAlign from the level of the pyramid that suits a region's size.

    torchvision's `MultiScaleRoIAlign` is not used: it pools half a pixel off (`aligned=False`) and guesses the strides
    from the first images it sees.

    Args:
        size: Edge of the pooled maps.
        canonical: Edge in pixels from which on a region is pooled from stride 16; 224 in FPN, where anchors are
            32 pixels on stride 4.

    Source: arXiv 1612.03144 (equation 1), arXiv 1703.06870; detectron2/modeling/poolers.py.
    """

    def __init__(self, size: int, canonical: float) -> None:
        super().__init__()
        self._size = size
        self._level = LevelMapper(2, 5, canonical_scale=canonical, canonical_level=4)

    def forward(self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps of strides 4, 8, 16 and 32, and the boxes of each image -> (number of boxes, C, size, size)."""
        images = torch.cat([torch.full_like(own[:, :1], number) for number, own in enumerate(boxes)])
        rows = torch.cat([images, torch.cat(list(boxes))], dim=1)
        levels = self._level(list(boxes))
        pooled = maps[0].new_zeros(len(rows), maps[0].shape[1], self._size, self._size)
        for level, stride in enumerate(STRIDES):
            here = torch.where(levels == level)[0]
            of_level = roi_align(maps[level], rows[here].to(maps[level]), self._size, 1 / stride, 0, aligned=True)
            pooled = pooled.index_put((here,), of_level.to(pooled))
        return pooled
