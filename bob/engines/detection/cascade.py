"""The cascade of box heads: each stage starts from the boxes of the one before and is trained on closer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, clip_boxes_to_image

from bob.engines.detection.regions import Pooling, Regions, Size, Target, match, sample

OVERLAPS = (0.5, 0.6, 0.7)
"""Of each stage the least IoU with an object at which a region is to find it."""

_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
_SAME = 0.5  # IoU from which on two boxes of a class are one detection
_POOLED = 7


@dataclass(frozen=True)
class Found:
    """Detections in one image: `boxes` (k, 4) float32, `scores` (k,) falling, `labels` (k,) int64."""

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


class Stage(nn.Module):
    """Two hidden layers on a pooled region, then its class and how to move its box, the same for all classes."""

    def __init__(self, channels: int, width: int, n_classes: int) -> None:
        super().__init__()
        first, second = nn.Linear(channels * _POOLED**2, width), nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.Flatten(), first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))
        self.logits = nn.Linear(width, n_classes + 1)
        self.deltas = nn.Linear(width, 4)
        for layer in (first, second):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        for layer, std in ((self.logits, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(r, C, 7, 7) -> logits (r, classes + 1), the last for background, and deltas (r, 4); float32."""
        hidden = self.hidden(pooled)
        return self.logits(hidden).float(), self.deltas(hidden).float()


class Cascade(nn.Module):
    """Three stages, or as many as there are `overlaps`, as in detectron2.

    Args:
        channels: Of the maps.
        width: Of the hidden layers.
        n_classes: C; label C is background.
        samples: Regions of an image to train on.
        canonical: See `Pooling`.
        overlaps: See `OVERLAPS`.

    Source: arXiv 1712.00726; detectron2/modeling/roi_heads/{cascade_rcnn,fast_rcnn,roi_heads}.py.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        n_classes: int,
        samples: int,
        canonical: float,
        overlaps: Sequence[float] = OVERLAPS,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Stage(channels, width, n_classes) for _ in overlaps)
        self.pooling = Pooling(_POOLED, canonical)
        self._coders = [BoxCoder(weights) for weights in _WEIGHTS[: len(overlaps)]]
        self._overlaps, self._samples, self._background = tuple(overlaps), samples, n_classes

    def losses(
        self,
        maps: Sequence[torch.Tensor],
        proposals: Sequence[torch.Tensor],
        sizes: Sequence[Size],
        targets: list[Target],
    ) -> tuple[dict[str, torch.Tensor], list[Regions]]:
        """Losses by name, and the regions of each image that the first stage was trained on.

        The true boxes are among the proposals. Regions that a stage places outside their image end there.
        """
        with_truth = [torch.cat([boxes, target["boxes"]]) for boxes, target in zip(proposals, targets, strict=True)]
        matched = self._matched(with_truth, targets, 0)
        sampled = regions = [sample(image, self._samples, self._background) for image in matched]
        losses: dict[str, torch.Tensor] = {}
        for number in range(len(self.stages)):
            boxes = [image.boxes for image in regions]
            logits, deltas = self._run(number, maps, boxes)
            seen, placed = self._loss(number, logits, deltas, regions, targets)
            losses |= {f"class_{number + 1}": seen, f"box_{number + 1}": placed}
            if number + 1 < len(self.stages):
                moved = self._moved(number, deltas.detach(), boxes, sizes)
                regions = self._matched([_nonempty(own) for own in moved], targets, number + 1)
        return losses, sampled

    def detect(
        self,
        maps: Sequence[torch.Tensor],
        proposals: Sequence[torch.Tensor],
        sizes: Sequence[Size],
        threshold: float,
        most: int,
    ) -> list[Found]:
        """What each image shows: boxes of the last stage, scores averaged over all, overlaps suppressed by class."""
        boxes = list(proposals)
        scores = []
        for number in range(len(self.stages)):
            logits, deltas = self._run(number, maps, boxes)
            scores.append(logits.softmax(dim=1))
            boxes = self._moved(number, deltas, boxes, sizes)
        mean = torch.stack(scores).mean(dim=0).split([len(own) for own in boxes])
        return [chosen(own, shares[:, :-1], threshold, most) for own, shares in zip(boxes, mean, strict=True)]

    def _run(
        self, number: int, maps: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.pooling(maps, boxes)
        if pooled.requires_grad:  # the maps get the mean of the stages' gradients
            pooled.register_hook(partial(torch.mul, other=1 / len(self.stages)))
        logits, deltas = self.stages[number](pooled)
        return logits, deltas

    def _matched(self, boxes: Sequence[torch.Tensor], targets: Sequence[Target], number: int) -> list[Regions]:
        least, background = self._overlaps[number], self._background
        return [match(own, target, least, background) for own, target in zip(boxes, targets, strict=True)]

    def _loss(
        self, number: int, logits: torch.Tensor, deltas: torch.Tensor, regions: list[Regions], targets: list[Target]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy, and L1 of the boxes of those that are to find an object; both over the number of all."""
        labels = torch.cat([image.labels for image in regions])
        positive = [image.chosen(image.labels != self._background) for image in regions]
        truths = torch.cat([target["boxes"][p.truths] for p, target in zip(positive, targets, strict=True)])
        wanted = self._coders[number].encode_single(truths, torch.cat([p.boxes for p in positive]))
        count = max(1, len(labels))
        seen = F.cross_entropy(logits, labels, reduction="sum") / count
        return seen, F.l1_loss(deltas[labels != self._background], wanted, reduction="sum") / count

    def _moved(
        self, number: int, deltas: torch.Tensor, boxes: Sequence[torch.Tensor], sizes: Sequence[Size]
    ) -> list[torch.Tensor]:
        """The boxes where the stage says they are, cut off at the images' edges."""
        moved = self._coders[number].decode_single(deltas, torch.cat(list(boxes))).split([len(own) for own in boxes])
        return [clip_boxes_to_image(own, size) for own, size in zip(moved, sizes, strict=True)]


def chosen(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, most: int) -> Found:
    """The best detections of an image: those above the threshold, the surest of each place and class, at most `most`.

    Args:
        boxes: (r, 4), for all classes.
        scores: (r, C).
        threshold: What a score has to pass.
        most: Detections to keep.
    """
    rows, labels = torch.where((scores > threshold) & _has_area(boxes)[:, None])
    found, sure = boxes[rows], scores[rows, labels]
    keep = batched_nms(found, sure, labels, _SAME)[:most]
    return Found(found[keep], sure[keep], labels[keep])


def _has_area(boxes: torch.Tensor) -> torch.Tensor:
    # False for what is not a number, too, which would make RoIAlign read anywhere.
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def _nonempty(boxes: torch.Tensor) -> torch.Tensor:
    return boxes[_has_area(boxes)]
