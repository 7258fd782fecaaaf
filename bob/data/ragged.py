"""Rows of different lengths in few flat arrays: what forked workers share without copying."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from bob.data.objects import RLE

Polygons = Sequence[Sequence[float]]


class Ragged:
    """n rows of different lengths.

    Attributes:
        values: All rows, one after the other.
        starts: (n + 1,) int64, where each row starts; the last is where the last row ends.
    """

    def __init__(self, values: np.ndarray, starts: np.ndarray) -> None:
        self.values = values
        self.starts = starts

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        """Rows of whole numbers, as int64."""
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return cls(np.array([value for row in rows for value in row], dtype=np.int64), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        part: np.ndarray = self.values[self.starts[row] : self.starts[row + 1]]
        return part


class Segments:
    """The masks of n annotations as they were given: polygons or run lengths, turned into run lengths on demand.

    Polygons stay polygons, about ten times less than their pixels and sooner loaded; coordinates stay float64, since
    rounding them to float32 moves some pixels of a mask.

    Attributes:
        polygons: A row of coordinates x, y, x, y, ... for each polygon.
        first: (n + 1,) int64, the first polygon of each annotation.
        counts: A row of bytes for each annotation, its compressed run lengths; empty where it has polygons.
    """

    def __init__(self, polygons: Ragged, first: np.ndarray, counts: Ragged) -> None:
        self.polygons, self.first, self.counts = polygons, first, counts

    def __len__(self) -> int:
        return len(self.first) - 1

    def present(self) -> np.ndarray:
        """(n,) bool: which annotations have a mask."""
        there: np.ndarray = (np.diff(self.first) > 0) | (np.diff(self.counts.starts) > 0)
        return there

    def rle(self, row: int, size: tuple[int, int]) -> RLE:
        """Return annotation `row`'s mask, compressed, in an image of `size` (height, width).

        Polygons are filled by COCO's own rule, and united where an annotation has several.
        """
        from faster_coco_eval.core import mask as coco_mask

        counts = self.counts[row]
        if len(counts):
            return {"size": list(size), "counts": counts.tobytes()}
        outlines = [self.polygons[number].tolist() for number in range(self.first[row], self.first[row + 1])]
        parts = coco_mask.frPyObjects(outlines, *size)
        merged: RLE = parts[0] if len(parts) == 1 else coco_mask.merge(parts)
        return merged

    def not_finite(self) -> np.ndarray:
        """Positions of annotations with a coordinate that is no number or infinite, ascending."""
        bad = np.flatnonzero(~np.isfinite(self.polygons.values))
        outlines = np.searchsorted(self.polygons.starts, bad, side="right") - 1
        return np.unique(np.searchsorted(self.first, outlines, side="right") - 1)

    def update(self, digest: Any) -> None:
        """Add everything to a hash."""
        for part in (self.polygons.values, self.polygons.starts, self.first, self.counts.values, self.counts.starts):
            digest.update(np.ascontiguousarray(part).data)


class SegmentsBuilder:
    """Collects the masks of one annotation after the other."""

    def __init__(self) -> None:
        self._coordinates, self._counts = array("d"), bytearray()
        self._ends, self._first, self._count_ends = array("q", [0]), array("q", [0]), array("q", [0])

    def add(self, polygons: Polygons = (), counts: bytes = b"") -> None:
        """Add an annotation with polygons, with compressed run lengths, or without a mask.

        Args:
            polygons: Each as x, y, x, y, ... in pixels.
            counts: Compressed run lengths.
        """
        for polygon in polygons:
            self._coordinates.extend(polygon)
            self._ends.append(len(self._coordinates))
        self._first.append(len(self._ends) - 1)
        self._counts += counts
        self._count_ends.append(len(self._counts))

    def build(self) -> Segments:
        """What was collected; nothing may be added any more."""
        whole = [np.frombuffer(part, dtype=np.int64) for part in (self._ends, self._first, self._count_ends)]
        polygons = Ragged(np.frombuffer(self._coordinates, dtype=np.float64), whole[0])
        return Segments(polygons, whole[1], Ragged(np.frombuffer(self._counts, dtype=np.uint8), whole[2]))


def sha256(*parts: np.ndarray | Segments | Ragged | None) -> str:
    """SHA-256 (hex) of arrays, one after the other, each with its type and shape."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Segments):
            part.update(digest)
        elif isinstance(part, Ragged):
            digest.update(sha256(part.values, part.starts).encode())
        elif part is None:
            digest.update(b"none")
        else:
            digest.update(f"{part.dtype.str}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
