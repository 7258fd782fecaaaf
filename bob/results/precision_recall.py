"""Average precision of detections, for many weightings of the same images at once.

Precision is highest right after a hit, and recall only changes there, so an average precision looks at the hits alone:
how many there are up to each, and how many wrong detections come before it. A resample of images weighs both. Most
detections are wrong at every threshold; they are summed once for all ten.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bob.results.coco_matching import THRESHOLDS, Bits, Bools, Ints

_RECALLS = np.linspace(0.0, 1.0, 101)
_SPACING = np.spacing(1)  # keeps 0 / 0 away, as in COCO's own evaluation
_BLOCK = 2**17  # numbers that are worked on at once: they stay in the processor's cache
_EVERY_LEVEL = 2 ** len(THRESHOLDS) - 1


@dataclass(frozen=True, eq=False)
class _Level:
    """The m hits of one threshold, by falling score.

    Attributes:
        rows: (m,) their places among the curve's undecided detections.
        images: (m,) where they are, positions in the curve's images.
        misses: (m, i) how many detections of each image that are wrong here, but not at every threshold, come between
            the hit before and this one.
        once: (1, m) of ones, which adds up over hits.
    """

    rows: NDArray[np.intp]
    images: Ints
    misses: sparse.csr_array
    once: sparse.csr_array


@dataclass(frozen=True, eq=False)
class Curve:
    """The detections of one class and range of size, as far as an average precision depends on them.

    Detections of equal score stay in the order of their images, and of their rank in the image, as in COCO's own
    evaluation. A detection that is in a resample several times has its copies side by side.

    Attributes:
        images: (i,) the images that matter.
        objects: (i,) how many objects that count are in each.
        misses: (u, i) how many detections of each image that are wrong at every threshold come between the undecided
            detection before (right at some threshold, or not the same at all) and this one.
        levels: For each threshold; none if no detection is right at any.
    """

    images: Ints
    objects: NDArray[np.float64]
    misses: sparse.csr_array
    levels: tuple[_Level, ...]

    @classmethod
    def of(cls, images: Ints, hits: Bits, ignored: Bits, objects: Ints) -> Curve:
        """Prepare a curve.

        Args:
            images: (d,) where the detections of the class are, by falling score.
            hits: (d,) a bit for each threshold: found an object that counts.
            ignored: (d,) a bit for each threshold: counts neither as right nor as wrong.
            objects: (g,) where the objects that count are.
        """
        right = np.flatnonzero(hits)
        end = int(right[-1]) + 1 if len(right) else 0  # what comes after the last hit changes nothing
        images, hits, ignored = images[:end], hits[:end], ignored[:end]
        wrong = (hits == 0) & (ignored == 0)
        rows = np.flatnonzero(~wrong & (ignored != _EVERY_LEVEL))
        used, place = np.unique(np.concatenate([images, objects]), return_inverse=True)
        own, where = place[:end], place[end:]
        misses = _between(rows, np.flatnonzero(wrong), own, len(used))
        every = range(len(THRESHOLDS)) if end else ()
        levels = tuple(_level(own[rows], hits[rows], ignored[rows], t, len(used)) for t in every)
        return cls(used, np.bincount(where, minlength=len(used)).astype(np.float64), misses, levels)


def average_precision(curve: Curve, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the interpolated precision at 101 recalls, for each threshold.

    With whole weights it is what COCO's evaluation says of a data set in which each image occurs as often as its weight
    is. Equal columns get equal values, whatever stands beside them.

    Args:
        curve: Of n images.
        weights: (n, r) at least 0, such as how often each image is in each of r resamples.

    Returns:
        (10, r); NaN where no object that counts has weight.

    Source: `COCOeval.accumulate` of github.com/cocodataset/cocoapi.
    """
    resamples = weights.shape[1]
    values = np.empty((len(THRESHOLDS), resamples))
    step = max(8, _BLOCK // max(1, len(curve.images), curve.misses.shape[0]))
    for start in range(0, resamples, step):
        own = slice(start, start + step)
        values[:, own] = _evaluate(curve, weights[curve.images, own])
    return values


def mean_over_classes(curves: list[Curve], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of `average_precision` over the classes that have an object with weight, (10, r); NaN where none has."""
    total, defined = np.zeros((len(THRESHOLDS), weights.shape[1])), np.zeros(weights.shape[1])
    for curve in curves:
        values = average_precision(curve, weights)
        defined += ~np.isnan(values[0])
        total += np.nan_to_num(values)
    return np.divide(total, defined, out=np.full_like(total, np.nan), where=defined > 0)


def _level(images: Ints, hits: Bits, ignored: Bits, threshold: int, size: int) -> _Level:
    right, excused = (_bit(bits, threshold) for bits in (hits, ignored))
    rows = np.flatnonzero(right)
    misses = _between(rows, np.flatnonzero(~right & ~excused), images, size)
    once = sparse.csr_array((np.ones(len(rows)), np.arange(len(rows)), [0, len(rows)]), shape=(1, len(rows)))
    return _Level(rows, images[rows], misses, once)


def _bit(bits: Bits, place: int) -> Bools:
    return (bits >> np.uint64(place)) & np.uint64(1) == 1


def _between(rows: NDArray[np.intp], others: NDArray[np.intp], images: Ints, size: int) -> sparse.csr_array:
    """Count the `others` between one row and the next, by image: (rows, size)."""
    gap = np.searchsorted(rows, others)
    starts = np.searchsorted(gap, np.arange(len(rows) + 1))
    columns = images[others[: starts[-1]]]
    return sparse.csr_array((np.ones(len(columns)), columns, starts), shape=(len(rows), size))


def _evaluate(curve: Curve, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    objects = curve.objects @ weights
    passed = np.cumsum(curve.misses @ weights, axis=0)
    some = np.where(objects > 0, objects, 1.0)
    values = np.zeros((len(THRESHOLDS), weights.shape[1]))
    for value, level in zip(values, curve.levels, strict=False):
        value[:] = _area(level, passed, some, weights)
    return np.where(objects > 0, values, np.nan)


def _area(
    level: _Level, passed: NDArray[np.float64], objects: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of one threshold: misses before each undecided detection (u, r), objects (r,) and weights (i, r) -> (r,)."""
    if not len(level.rows):
        return np.zeros(weights.shape[1])
    hits = np.cumsum(weights[level.images], axis=0)
    found = hits + passed[level.rows] + np.cumsum(level.misses @ weights, axis=0)
    precision = hits / (found + _SPACING)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    # A sparse product adds up one after another, where `sum` would take another order for a single column.
    return np.asarray(level.once @ (best * _newly_reached(hits / objects)))[0] / len(_RECALLS)


def _newly_reached(recall: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the 101 recalls each hit is the first to reach, (m, r)."""
    nearest = np.rint(recall * (len(_RECALLS) - 1)).astype(np.int64)
    reached = nearest + (_RECALLS[nearest] <= recall)  # compared as COCO does: 0.07 is not 7 * 0.01
    reached[1:] -= reached[:-1].copy()
    return reached
