"""The mask head: which pixels of a detected box belong to the object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from bob.data.objects import RLE, encode_masks
from bob.engines.detection.regions import Pooling, Regions, Target

_POOLED = 14
_SIZE = 2 * _POOLED


class Masks(nn.Module):
    """Four convolutions on a pooled region, then a mask of 28 x 28 for each class.

    Args:
        channels: Of the maps.
        width: Of the convolutions.
        n_classes: C; label C is background.
        canonical: See `Pooling`.

    Source: arXiv 1703.06870; detectron2/modeling/roi_heads/mask_head.py.
    """

    def __init__(self, channels: int, width: int, n_classes: int, canonical: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (channels, width, width, width):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(width, width, 2, 2), nn.ReLU(inplace=True), nn.Conv2d(width, n_classes, 1)]
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(layers[-1].weight, std=0.001)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers)
        self.pooling = Pooling(_POOLED, canonical)
        self._background = n_classes

    def loss(self, maps: Sequence[torch.Tensor], regions: Sequence[Regions], targets: Sequence[Target]) -> torch.Tensor:
        """Mean cross-entropy over the pixels of the regions that are to find an object; 0 where there are none."""
        positive = [image.chosen(image.labels != self._background) for image in regions]
        logits = self._logits(maps, [image.boxes for image in positive], [image.labels for image in positive])
        wanted = torch.cat([mask_targets(image, target) for image, target in zip(positive, targets, strict=True)])
        total = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return total / max(1, wanted.numel())

    def probabilities(
        self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Of each image's detections (k, 28, 28) float32, from edge to edge of its box."""
        return list(self._logits(maps, boxes, labels).sigmoid().split([len(own) for own in boxes]))

    def _logits(
        self, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        every = self.layers(self.pooling(maps, boxes)).float()
        rows = torch.arange(len(every), device=every.device)
        logits: torch.Tensor = every[rows, torch.cat(list(labels))]
        return logits


def mask_targets(regions: Regions, target: Target) -> torch.Tensor:
    """The part of each region's object that it shows, (r, 28, 28) float32 of 0 and 1."""
    if not len(regions.boxes):
        return regions.boxes.new_zeros(0, _SIZE, _SIZE)
    rows = torch.cat([regions.truths[:, None].to(regions.boxes), regions.boxes], dim=1)
    masks = target["masks"][:, None].to(regions.boxes)
    return (roi_align(masks, rows, _SIZE, 1.0, 0, aligned=True)[:, 0] >= 0.5).float()


def paste(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> tuple[RLE, ...]:
    """Masks in their boxes as run lengths in the image.

    Args:
        masks: (k, m, m) float32, probabilities from edge to edge of the box.
        boxes: (k, 4) float32, in pixels of the image.
        size: Height and width of the image.

    Source: detectron2/layers/mask_ops.py. torchvision's own rounds the boxes to whole pixels.
    """
    # One by one: all masks of a large photograph would take hundreds of megabytes.
    return tuple(rle for mask, box in zip(masks, boxes, strict=True) for rle in encode_masks(_pasted(mask, box, size)))


def _pasted(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(1, height, width) bool."""
    canvas = np.zeros((1, *size), dtype=bool)
    starts, ends = np.floor(box[:2]).clip(min=0).astype(int), np.ceil(box[2:]).astype(int)
    (left, top), (right, bottom) = starts, np.minimum(ends, size[::-1])
    x, y = (
        (torch.arange(first, last) + 0.5 - float(box[axis])) / float(box[axis + 2] - box[axis]) * 2 - 1
        for axis, (first, last) in enumerate(((left, right), (top, bottom)))
    )
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    sampled = F.grid_sample(torch.from_numpy(mask)[None, None], places.float(), align_corners=False)
    canvas[0, top:bottom, left:right] = (sampled[0, 0] >= 0.5).numpy()
    return canvas
