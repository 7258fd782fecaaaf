"""The region proposal network: where in an image there may be an object of any class."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from bob.engines.detection.regions import STRIDES

_RATIOS = (0.5, 1.0, 2.0)  # height to width
_SAMPLES = 256  # anchors of an image that are trained on


class Anchors(nn.Module):
    """Boxes of three shapes around every place of every level.

    torchvision's generator rounds them to whole pixels, and takes the coarsest stride for less than it is where the
    image is no multiple of it.

    Args:
        edge: Of the square one on stride 4, pixels; doubled from level to level.
    """

    def __init__(self, edge: float) -> None:
        super().__init__()
        self._edges = [edge * 2**level for level in range(len(STRIDES) + 1)]
        self._strides = (*STRIDES, 2 * STRIDES[-1])

    def num_anchors_per_location(self) -> list[int]:
        """Of each level."""
        return [len(_RATIOS)] * len(self._strides)

    def forward(self, images: ImageList, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return (anchors, 4) float32 for each image: the same, level after level, row after row."""
        levels = zip(maps, self._strides, self._edges, strict=True)
        anchors = torch.cat([_grid(map_, stride, edge) for map_, stride, edge in levels])
        return [anchors] * len(images.image_sizes)


def _grid(map_: torch.Tensor, stride: int, edge: float) -> torch.Tensor:
    rows, columns = (torch.arange(n, device=map_.device, dtype=torch.float32) * stride for n in map_.shape[-2:])
    tall = torch.tensor(_RATIOS, device=map_.device).sqrt()
    half = torch.stack([edge / tall, edge * tall], dim=1) / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    centres = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
    return torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4)


class _Head(RPNHead):
    """Says objectness and boxes in float32: in half precision a box of a large image would be pixels off."""

    def forward(self, x: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


class Proposals(RegionProposalNetwork):
    """torchvision's region proposal network with detectron2's losses.

    Args:
        width: Channels of the maps.
        edge: See `Anchors`.
        count: Regions of an image to keep; before suppression of overlaps as many of each level, twice in training.
    """

    def __init__(self, width: int, edge: float, count: int) -> None:
        super().__init__(
            Anchors(edge),
            _Head(width, len(_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=_SAMPLES,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2 * count, "testing": count},
            post_nms_top_n={"training": count, "testing": count},
            nms_thresh=0.7,
        )

    def compute_loss(
        self,
        objectness: torch.Tensor,
        pred_bbox_deltas: torch.Tensor,
        labels: list[torch.Tensor],
        regression_targets: list[torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy and L1 of sampled anchors, over the number that is asked for in each image.

        Source: detectron2/modeling/proposal_generator/rpn.py. torchvision has a smooth L1, quadratic below 1/9.
        """
        positive, negative = (torch.cat(chosen).bool() for chosen in self.fg_bg_sampler(labels))
        asked = _SAMPLES * len(labels)
        sampled = positive | negative
        logits, wanted = objectness.flatten()[sampled], torch.cat(labels)[sampled]
        seen = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        placed = F.l1_loss(pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], reduction="sum")
        return seen / asked, placed / asked
