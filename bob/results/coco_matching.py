"""Which detections find an object, decided as COCO's evaluation does, for all images, thresholds and sizes at once.

COCO lets each detection in turn, the surest first, take the free object that it overlaps most. Only detections of one
image and class compete, so all images and classes take their turns side by side: the first detection of each, then the
second of each, and so on; and the ten thresholds and four ranges of size are columns of the same step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = np.linspace(0.5, 0.95, 10)
# In square pixels, both ends inclusive: an object of exactly 32 x 32 is small and medium.
AREAS = {"all": (0.0, 1e5**2), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}
_LEVELS = len(THRESHOLDS)
_COLUMNS = len(AREAS) * _LEVELS
_EVERY_LEVEL = np.uint64(2**_LEVELS - 1)

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Regions:
    """Objects or detections of many images, those of one image and class side by side.

    Attributes:
        group: (k,) int64, rising: a number for each pair of image and class.
        areas: (k,) float64, square pixels; they say what is small, medium or large.
        shapes: k boxes, (k, 4) float64 of left, top, width and height, or a list of k masks in COCO's run lengths.
    """

    group: Ints
    areas: NDArray[np.float64]
    shapes: Sequence[Any] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of each detection, in bits: bit 10 a + t is about range of size a and threshold t.

    A bit in neither says that the detection counts as wrong.

    Attributes:
        hits: (d,) uint64, it found an object that counts.
        ignored: (d,) uint64, it counts neither as right nor as wrong.
    """

    hits: Bits
    ignored: Bits

    def of_area(self, area: str) -> tuple[Bits, Bits]:
        """The ten bits of each detection, a bit for each threshold, of one range of size: hits and ignored."""
        shift = np.uint64(_LEVELS * list(AREAS).index(area))
        return (self.hits >> shift) & _EVERY_LEVEL, (self.ignored >> shift) & _EVERY_LEVEL


def match(objects: Regions, crowd: Bools, detections: Regions, unsure: Bools) -> Outcome:
    """Decide about every detection.

    Args:
        objects: g objects, within a group in the order of their annotation.
        crowd: (g,) which of them are regions to ignore: any number of detections may fall into one, counting neither
            as right nor as wrong, and a detection overlaps it by the share of its own area that lies inside.
        detections: d detections, within a group by falling score.
        unsure: (d,) which are of a class of which their image need not show every object: where they find nothing they
            are ignored (LVIS).

    Source: Lin et al. 2014, arXiv 1405.0312; `COCOeval.evaluateImg` of github.com/cocodataset/cocoapi.
    """
    outside = _outside(detections.areas)
    ignored = _fill(outside | unsure[:, None])
    hits = np.zeros(len(ignored), dtype=np.uint64)
    found, truth, overlap = _overlaps(objects, crowd, detections)
    if len(found):
        rows, hit, excused = _take_turns(found, truth, overlap, detections.group, crowd, _outside(objects.areas))
        hits[rows] = _pack(hit)
        ignored[rows] = _pack(excused) | (ignored[rows] & ~hits[rows])
    return Outcome(hits, ignored)


def ranges_of(areas: NDArray[np.float64], crowd: Bools) -> NDArray[np.uint8]:
    """In which ranges of size each object counts, (g,): bit a for the a-th of `AREAS`; 0 for a region to ignore."""
    counts = ~_outside(areas) & ~crowd[:, None]
    return np.packbits(counts, axis=1, bitorder="little")[:, 0] if len(areas) else np.zeros(0, dtype=np.uint8)


def _outside(areas: NDArray[np.float64]) -> Bools:
    """Which areas are outside of each range, (k, 4)."""
    low, high = np.array(list(AREAS.values())).T
    return (areas[:, None] < low) | (areas[:, None] > high)


def _overlaps(objects: Regions, crowd: Bools, detections: Regions) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Every detection and object of one group that overlap enough for some threshold: their positions and overlap."""
    from faster_coco_eval.core import mask as coco_mask

    parts: list[tuple[Ints, Ints, NDArray[np.float64]]] = []
    for own, theirs in _shared(detections.group, objects.group):
        overlap = coco_mask.iou(detections.shapes[own], objects.shapes[theirs], crowd[theirs].astype(int).tolist())
        rows, columns = np.nonzero(overlap >= THRESHOLDS[0])
        if len(rows):
            parts.append((rows + own.start, columns + theirs.start, overlap[rows, columns]))
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    found, truth, overlap = (np.concatenate(part) for part in zip(*parts, strict=True))
    return found, truth, overlap


def _shared(first: Ints, second: Ints) -> Iterator[tuple[slice, slice]]:
    """The groups that two rising arrays have in common, as slices of both."""
    shared = np.intersect1d(first, second)
    bounds = [np.searchsorted(own, shared, side=side) for own in (first, second) for side in ("left", "right")]
    for a, b, c, d in zip(*(bound.tolist() for bound in bounds), strict=True):
        yield slice(a, b), slice(c, d)


def _take_turns(
    found: Ints, truth: Ints, overlap: NDArray[np.float64], group: Ints, crowd: Bools, outside: Bools
) -> tuple[Ints, Bools, Bools]:
    """Give objects to the detections that overlap one: their rows, and two (rows, 40) of hits and of ignored."""
    rows, first = np.unique(found, return_index=True)
    turn = places(group[rows])
    of_pair = np.repeat(np.arange(len(rows)), np.diff(np.append(first, len(found))))
    # Within a detection the best object comes last; of equally good ones COCO takes the one annotated last.
    order = np.lexsort((truth, overlap, of_pair, turn[of_pair]))
    of_pair, truth, overlap = of_pair[order], truth[order], overlap[order]
    taken = np.zeros((len(crowd), _COLUMNS), dtype=bool)
    hit, excused = (np.zeros((len(rows), _COLUMNS), dtype=bool) for _ in range(2))
    ends = np.searchsorted(turn[of_pair], np.arange(turn.max() + 2))
    for start, end in pairwise(ends.tolist()):
        own = slice(start, end)
        counts = np.repeat(~(outside[truth[own]] | crowd[truth[own], None]), _LEVELS, axis=1)
        free = ~taken[truth[own]] | crowd[truth[own], None]
        starts = np.flatnonzero(np.diff(of_pair[own], prepend=-1))
        winner, won, counted = _best(free & _enough(overlap[own]), counts, starts)
        members = of_pair[own][starts]
        hit[members], excused[members] = won & counted, won & ~counted
        _, column = np.nonzero(won)
        taken[truth[own][winner[won]], column] = True
    return rows, hit, excused


def _best(eligible: Bools, counts: Bools, starts: NDArray[np.intp]) -> tuple[Ints, Bools, Bools]:
    """For runs of pairs, the last eligible one, those that count before those that do not.

    Returns:
        Three of (runs, 40): its position, whether there is one, and whether it counts.
    """
    size = len(eligible)
    place = np.arange(size, dtype=np.int64)[:, None] + size * counts
    best = np.maximum.reduceat(np.where(eligible, place, -1), starts, axis=0)
    return best % size, best >= 0, best >= size


def _enough(overlap: NDArray[np.float64]) -> Bools:
    """Which thresholds each overlap reaches, (pairs, 40)."""
    return np.tile(overlap[:, None] >= np.minimum(THRESHOLDS, 1 - 1e-10), (1, len(AREAS)))


def places(group: Ints) -> Ints:
    """The place of each member within its group, counted from 0; (k,) rising groups."""
    return np.arange(len(group)) - np.searchsorted(group, group, side="left")


def _fill(chosen: Bools) -> Bits:
    """(k, 4) of ranges -> all ten bits of each chosen range."""
    powers = _EVERY_LEVEL << (np.arange(len(AREAS), dtype=np.uint64) * np.uint64(_LEVELS))
    return (chosen * powers).sum(axis=1, dtype=np.uint64)


def _pack(columns: Bools) -> Bits:
    """(k, 40) -> (k,) with bit c from column c."""
    padded = np.zeros((len(columns), 8), dtype=np.uint8)
    padded[:, : _COLUMNS // 8] = np.packbits(columns, axis=1, bitorder="little")
    return padded.view("<u8")[:, 0].astype(np.uint64)
