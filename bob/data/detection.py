"""Image files with the objects in them: boxes, masks and classes in few flat arrays, given out image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from bob.data.annotations import Problem
from bob.data.files import FileImages
from bob.data.objects import Objects
from bob.data.ragged import Ragged, Segments, sha256


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """M objects of N images, those of one image together.

    Attributes:
        starts: (N + 1,) int64, the first object of each image.
        boxes: (M, 4) float64, as in `Objects`.
        labels: (M,) int32.
        ids: (M,) int64, numbers of the annotations.
        areas: (M,) float64, square pixels.
        crowd: (M,) bool.
        segments: The masks, in any order; None where there are none.
        segment: (M,) int64, which of `segments` is each object's.
    """

    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    segments: Segments | None = None
    segment: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def sha256(self) -> str:
        """SHA-256 (hex) of everything."""
        columns = (self.starts, self.boxes, self.labels, self.ids, self.areas, self.crowd)
        return sha256(*columns, self.segments, self.segment)

    def presence(self, classes: int) -> np.ndarray:
        """(N, classes) int64: 1 where an image has an object of the class, crowds too."""
        present = np.zeros((len(self.starts) - 1, classes), dtype=np.int64)
        present[np.repeat(np.arange(len(present)), np.diff(self.starts)), self.labels] = 1
        return present


@dataclass(frozen=True, eq=False)
class Federation:
    """What LVIS says of classes that are not annotated everywhere: rows of labels for each of N images.

    Attributes:
        negatives: Labels that are known to be absent.
        partial: Labels of which not every object is annotated.
    """

    negatives: Ragged
    partial: Ragged


class DetectionImages(FileImages):
    """Image files with the objects in them.

    Boxes are as annotated: up to a pixel of them may lie outside the image. Nothing is decoded before it is asked for,
    and all objects together are a few flat arrays, which forked workers share.

    Attributes:
        classes: Class names; label i is `classes[i]`.
        image_ids: (N,) int64, the images' own numbers.
        category_ids: (C,) int64, the classes' own numbers.
        has_masks: Whether every object has a mask.
        federated: Whether some classes are annotated in some images only.
        problems: What could not be used and was left out.

    Args:
        root: The folder.
        paths: N paths relative to it.
        sizes: (N, 2) int64, height and width.
        image_ids: (N,) int64.
        category_ids: C numbers.
        classes: C names.
        table: The objects.
        federation: For LVIS alone.
        problems: What was left out.
    """

    target_kind: ClassVar[Literal["detection", "segmentation"] | None] = "detection"

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        sizes: np.ndarray,
        image_ids: np.ndarray,
        category_ids: Sequence[int],
        classes: Sequence[str],
        table: ObjectTable,
        federation: Federation | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(root, paths, table.presence(len(classes)))
        self.classes = tuple(classes)
        self.image_ids = np.asarray(image_ids, dtype=np.int64)
        self.category_ids = np.asarray(category_ids, dtype=np.int64)
        self.has_masks = table.segments is not None
        self.federated = federation is not None
        self.problems = list(problems)
        self._sizes, self._table, self._federation = sizes, table, federation
        self._annotations_sha256: str | None = None

    def size(self, index: int) -> tuple[int, int]:
        """See `ImageSet.size`; from the file's header, read when the set was opened."""
        return int(self._sizes[index, 0]), int(self._sizes[index, 1])

    def target(self, index: int) -> Objects:
        """See `ImageSet.target`; polygons become run lengths here."""
        table, size = self._table, self.size(index)
        rows = slice(table.starts[index], table.starts[index + 1])
        segments, known = table.segments, self._federation
        return Objects(
            boxes=table.boxes[rows].copy(),
            labels=table.labels[rows].astype(np.int64),
            ids=table.ids[rows].copy(),
            areas=table.areas[rows].copy(),
            crowd=table.crowd[rows].copy(),
            size=size,
            rles=None if segments is None else tuple(segments.rle(row, size) for row in table.segment[rows]),
            negatives=None if known is None else tuple(known.negatives[index].tolist()),
            partial=() if known is None else tuple(known.partial[index].tolist()),
        )

    def annotations_sha256(self) -> str:
        """See `ImageSet.annotations_sha256`."""
        if self._annotations_sha256 is None:
            known = self._federation
            lists = (None, None) if known is None else (known.negatives, known.partial)
            numbers = (self._sizes, self.image_ids, self.category_ids, np.array([self._table.sha256()]))
            self._annotations_sha256 = sha256(*numbers, *lists)
        return self._annotations_sha256
