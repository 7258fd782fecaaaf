"""What is to be found in an image, and what a detector or a segmenter says: boxes, masks, class maps."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IGNORE = -1
"""In a class map: the pixel counts for nothing."""

# A mask as COCO's compressed run lengths: {"size": [height, width], "counts": bytes}.
RLE = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Objects:
    """What is annotated in one image of k objects.

    Attributes:
        boxes: (k, 4) float64, left, top, right and bottom in pixels, ends exclusive.
        labels: (k,) int64, positions in the data set's classes.
        ids: (k,) int64, the annotations' own numbers.
        areas: (k,) float64, square pixels as annotated; they say what is small, medium or large.
        crowd: (k,) bool, regions where finding something counts neither for nor against (COCO's `iscrowd`, VOC's
            `difficult`); never trained on.
        size: Height and width of the image.
        rles: A mask for each object; None where the data have none.
        negatives: Labels that are known to be absent; None where everything present is annotated. With it, labels that
            are neither annotated nor here say nothing (LVIS's federated annotation).
        partial: Labels of which not every object is annotated (LVIS).
    """

    boxes: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    size: tuple[int, int]
    rles: tuple[RLE, ...] | None = None
    negatives: tuple[int, ...] | None = None
    partial: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def masks(self) -> np.ndarray:
        """The objects' masks, (k, height, width) bool; (0, height, width) where there are none."""
        return decode_masks(self.rles or (), self.size)

    def chosen(self, keep: np.ndarray) -> Objects:
        """Some of the objects, by a mask or positions."""
        rows = np.arange(len(self))[keep]
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in ("boxes", "labels", "ids", "areas", "crowd")},
            rles=None if self.rles is None else tuple(self.rles[row] for row in rows),
        )


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector says about one image, the surest first.

    Attributes:
        boxes: (k, 4) float32, left, top, right and bottom in pixels of the image as it lies on disk.
        scores: (k,) float32, falling.
        labels: (k,) int64, positions in the data set's classes.
        rles: A mask for each box; None from a detector of boxes alone.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    rles: tuple[RLE, ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass
class PredictedMasks:
    """A class map for each image, kept as PNG so that thousands of photographs fit in memory."""

    _encoded: list[bytes] = field(default_factory=list)

    def append(self, classes: np.ndarray) -> None:
        """Add the next image's class of each pixel, (height, width), none of them `IGNORE`."""
        narrow = np.asarray(classes).astype(np.uint8 if classes.max(initial=0) < 256 else np.uint16)
        content = io.BytesIO()
        Image.fromarray(narrow).save(content, format="PNG", compress_level=1)
        self._encoded.append(content.getvalue())

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index`'s class of each pixel, (height, width) int16."""
        with Image.open(io.BytesIO(self._encoded[index])) as image:
            return np.asarray(image).astype(np.int16)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def save(self, path: Path, index: int) -> None:
        """Write image `index`'s map as a PNG whose grey value is the class.

        Raises:
            OSError: If the disk refuses.
        """
        path.write_bytes(self._encoded[index])


def encode_masks(masks: np.ndarray) -> tuple[RLE, ...]:
    """(k, height, width) bool -> compressed run lengths."""
    from faster_coco_eval.core import mask as coco_mask

    columns = np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    return tuple(coco_mask.encode(columns)) if len(masks) else ()


def decode_masks(rles: tuple[RLE, ...], size: tuple[int, int]) -> np.ndarray:
    """Compressed run lengths -> (k, height, width) bool."""
    from faster_coco_eval.core import mask as coco_mask

    if not rles:
        return np.zeros((0, *size), dtype=bool)
    return np.ascontiguousarray(coco_mask.decode(list(rles)).transpose(2, 0, 1)).astype(bool)
