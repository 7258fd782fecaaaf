"""What a classifier gets wrong, factor by factor: accuracies, error ratios, shifts and how sure each number is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bob.results.checks import check_integers, check_probabilities, check_shape, check_size
from bob.results.terms import Floats

AVERAGE, WORST = "average", "worst_factor"
_BINS = 15


@dataclass(frozen=True, eq=False)
class Correctness:
    """Whether a classifier is right about each of n images, and which factors each image has.

    Attributes:
        labels: (n,) int64, the class of each image.
        right: (n,) bool.
        flags: (n, F) bool; an image may have several factors, or none.
        factors: Names of the F factors.
        confidence: (n,) float64, the probability of the predicted class; None where it is not known.

    Raises:
        UserError: If there is no image, or the arrays disagree in length, or a probability is none.
    """

    labels: NDArray[np.int64]
    right: NDArray[np.bool_]
    flags: NDArray[np.bool_]
    factors: tuple[str, ...]
    confidence: Floats | None = None

    def __post_init__(self) -> None:
        check_size(len(self.right))
        check_shape("labels", self.labels, self.right.shape)
        check_integers("labels", self.labels, 0, np.iinfo(np.int64).max)
        check_shape("flags", self.flags, (len(self.right), len(self.factors)))
        if self.confidence is not None:
            check_shape("confidence", self.confidence, self.right.shape)
            check_probabilities("confidence", self.confidence)

    def __len__(self) -> int:
        return len(self.right)

    def only(self, rows: NDArray[np.bool_]) -> Correctness:
        """Some of the images, by a mask (n,)."""
        confidence = None if self.confidence is None else self.confidence[rows]
        return Correctness(self.labels[rows], self.right[rows], self.flags[rows], self.factors, confidence)


@dataclass(frozen=True, eq=False)
class Sums:
    """Counts from which every number about factors follows, of the data or of r resamples of them.

    Attributes:
        hits: (..., F), images of each factor that the classifier is right about.
        members: (..., F), images of each factor.
        right: (...), images that it is right about.
        size: (...), number of images.
    """

    hits: Floats
    members: Floats
    right: Floats
    size: Floats

    @property
    def average(self) -> Floats:
        """(...), the accuracy over all images, those without a factor among them."""
        return self.right / self.size

    @property
    def accuracies(self) -> Floats:
        """(..., F), the share of a factor's images that is right; NaN for a factor without images."""
        return _ratio(self.hits, self.members)

    @property
    def error_ratios(self) -> Floats:
        """(..., F), the error on a factor's images over the error on all; NaN where one of the two has nothing.

        Source: Idrissi et al. 2023, arXiv 2211.01866, section 4.
        """
        return _ratio(1 - self.accuracies, 1 - self.average[..., None])

    @property
    def shifts(self) -> Floats:
        """(..., F), how much more of the errors a factor has than of the images: (p(f|error) - p(f)) / p(f).

        p is the share of all flags, so that the shares sum to one. NaN as for `error_ratios`.
        """
        among_all = _ratio(self.members, self.members.sum(axis=-1, keepdims=True))
        missed = self.members - self.hits
        return _ratio(_ratio(missed, missed.sum(axis=-1, keepdims=True)) - among_all, among_all)

    @property
    def worst(self) -> Floats:
        """(...), the lowest accuracy of a factor; NaN where no image has one."""
        lowest = np.where(self.members > 0, self.accuracies, np.inf).min(axis=-1, initial=np.inf)
        return np.where(np.isinf(lowest), np.nan, lowest)

    @property
    def largest_ratio(self) -> Floats:
        """(...), the largest error ratio, that of the worst factor; NaN where `error_ratios` are."""
        return _ratio(1 - self.worst, 1 - self.average)


def sums_of(judged: Correctness) -> Sums:
    """The counts of the data themselves."""
    hits, members = judged.flags[judged.right].sum(axis=0), judged.flags.sum(axis=0)
    right, size = np.asarray(judged.right.sum(), np.float64), np.asarray(len(judged), np.float64)
    return Sums(hits.astype(np.float64), members.astype(np.float64), right, size)


def resample(judged: Correctness, resamples: int, seed: int) -> Sums:
    """The counts of `resamples` draws of n images with replacement.

    The counts depend on an image only through its flags and on whether it is right, and most images share these with
    thousands of others. How often each such pattern is drawn is multinomial, so a resample costs as many numbers as
    there are patterns (34 for one factor an image), not as there are images. Its distribution is the same.
    """
    packed = np.packbits(np.column_stack([judged.flags, judged.right]), axis=1)
    patterns, counts = np.unique(packed, axis=0, return_counts=True)
    bits = np.unpackbits(patterns, axis=1, count=judged.flags.shape[1] + 1).astype(np.float64)
    flags, right = bits[:, :-1], bits[:, -1]
    drawn = np.random.default_rng(seed).multinomial(len(judged), counts / len(judged), resamples).astype(np.float64)
    # Sums of whole numbers are exact in floats, whatever the order in which BLAS adds them.
    return Sums(drawn @ (flags * right[:, None]), drawn @ flags, drawn @ right, drawn.sum(axis=1))


def factor_table(
    judged: Correctness, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Every number about each factor, with percentile bootstrap intervals over images.

    Rare factors have few images, so their intervals are wide. The worst of several noisy numbers is worse than the
    worst of the true ones, in a resample more than in the data: where factors are rare, the interval of `worst_factor`
    lies on the side of worse.

    Args:
        judged: n images.
        resamples: How many resamples of n images to draw.
        confidence: Coverage of the intervals.
        seed: Equal seeds give equal intervals.

    Returns:
        A row for each factor, then `average` (all images) and `worst_factor`. Columns: `factor`, `n` (its images),
        `right`, `accuracy`, `error_ratio`, each of the two with `_low` and `_high`; `prevalence_shift`; and `ece`, if
        confidences are known. What is not defined (a factor without images, ratios where nothing is wrong) is NaN.
    """
    sums, drawn = sums_of(judged), resample(judged, resamples, seed)
    worst = int(np.nanargmin(sums.accuracies)) if sums.members.any() else None
    n_worst, hits_worst = (0.0, 0.0) if worst is None else (sums.members[worst], sums.hits[worst])
    counts = np.array([[*sums.members, sums.size, n_worst], [*sums.hits, sums.right, hits_worst]])
    columns: dict[str, Any] = {"factor": [*judged.factors, AVERAGE, WORST], "n": counts[0].astype(int)}
    columns["right"] = counts[1].astype(int)
    for name, value, own in (
        ("accuracy", _accuracies(sums), _accuracies(drawn)),
        ("error_ratio", _error_ratios(sums), _error_ratios(drawn)),
    ):
        low, high = _bounds(own, confidence)
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    columns["prevalence_shift"] = [*sums.shifts, np.nan, np.nan]
    if judged.confidence is not None:
        errors = calibration_errors(judged)
        columns["ece"] = [*errors, np.nan if worst is None else errors[worst]]
    return pd.DataFrame(columns)


def calibration_errors(judged: Correctness) -> Floats:
    """(F + 1,) expected calibration error of each factor's images, and of all; 15 bins of equal width, open below.

    A bin's weight times its distance |accuracy - confidence| is |sum of right - confidence| over the number of images.

    Source: Guo et al. 2017, arXiv 1706.04599; the bins are those of ImageNet-X's `aggregate.py`, as its tables have it.
    """
    if judged.confidence is None:
        raise ValueError("Expected `judged.confidence` to be an array, but got None.")
    bins = np.searchsorted(np.linspace(0, 1, _BINS + 1)[1:-1], judged.confidence)
    gap = judged.right - judged.confidence
    members = np.column_stack([judged.flags, np.ones(len(judged), dtype=bool)])
    by_bin = np.stack([np.bincount(bins[own], gap[own], _BINS) for own in members.T])
    return _ratio(np.abs(by_bin).sum(axis=1), members.sum(axis=0))


def worst_classes(judged: Correctness, count: int) -> tuple[int, int]:
    """Images of the `count` classes of lowest accuracy, and how many of them are right; the lower class on ties.

    Source: ImageNet-X's `aggregate.worst_k_class_acc`, which leaves the order of ties open.
    """
    present, own = np.unique(judged.labels, return_inverse=True)
    members, hits = np.bincount(own), np.bincount(own, judged.right)
    lowest = np.argsort(hits / members, kind="stable")[: min(count, len(present))]
    return int(members[lowest].sum()), int(hits[lowest].sum())


def _accuracies(sums: Sums) -> Floats:
    """(..., F + 2), those of the factors, of all images, and the worst."""
    return np.concatenate([sums.accuracies, sums.average[..., None], sums.worst[..., None]], axis=-1)


def _error_ratios(sums: Sums) -> Floats:
    average = _ratio(1 - sums.average, 1 - sums.average)
    return np.concatenate([sums.error_ratios, average[..., None], sums.largest_ratio[..., None]], axis=-1)


def _bounds(values: Floats, confidence: float) -> tuple[Floats, Floats]:
    """The middle `confidence` of each column's values that are not NaN; NaN where all are."""
    tail = (1 - confidence) / 2
    known = ~np.isnan(values).all(axis=0)
    bounds = np.full((2, values.shape[1]), np.nan)
    bounds[:, known] = np.nanquantile(values[:, known], [tail, 1 - tail], axis=0)
    return bounds[0], bounds[1]


def _ratio(above: Floats, below: Floats) -> Floats:
    """The quotient; NaN where there is nothing below."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
