"""Metrics of a classifier on shifted sets: accuracy, drop, calibration, and mean corruption error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bob.results.metric import Metric, Weighted
from bob.results.ood import OODPredictions
from bob.results.predictions import Predictions
from bob.results.terms import Floats, ece_terms

# Sums over units (..., m) to values (...).
Reduce: TypeAlias = Callable[[Floats], Floats]

_IMAGENET = 1000  # classes
_SEVERITIES = {1, 2, 3, 4, 5}
# AlexNet's top-1 error on ImageNet-C at severities 1 to 5 together, which mCE divides by.
# Source: https://github.com/hendrycks/robustness.
ALEXNET_ERROR: dict[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


@dataclass(frozen=True, kw_only=True)
class ShiftMetric(Metric):
    """A number made of accuracies of several sets, each a ratio of sums over photographs.

    A set without a photograph, as happens in a resample, is left out of a mean.

    Attributes:
        prepare: Maps predictions to summands (n units, m), sparse, and to what makes values of their sums.
        defined: Whether the predictions have what the metric is about.
    """

    prepare: Callable[[OODPredictions], tuple[sparse.csr_array, Reduce]]
    defined: Callable[[OODPredictions], bool] = lambda predictions: True
    kind: str = "ood"

    def defined_on(self, predictions: Any) -> bool:
        """See `Metric.defined_on`."""
        return self.defined(predictions)

    def _value(self, predictions: Any) -> float:
        return super()._value(predictions) if self.defined(predictions) else np.nan

    def _weighted(self, predictions: Any) -> Weighted:
        terms, reduce = self.prepare(predictions)
        transposed = terms.T.tocsr()
        return lambda weights: reduce(np.ascontiguousarray((transposed @ weights).T))


def shifted_top1(predictions: OODPredictions) -> tuple[sparse.csr_array, Reduce]:
    """Mean over the card's sets of top-1 accuracy; a set of corruptions counts once, as the mean over its own."""
    return _then(_accuracies(predictions, _entries(predictions)), _mean)


def clean_top1(predictions: OODPredictions) -> tuple[sparse.csr_array, Reduce]:
    """Mean over the card's sets of top-1 accuracy on the clean images of the same classes."""
    return _then(_accuracies(predictions, *_clean(predictions)), _mean)


def drop(predictions: OODPredictions) -> tuple[sparse.csr_array, Reduce]:
    """Clean less shifted, for the same draw of photographs."""
    before, after = (make(predictions) for make in (clean_top1, shifted_top1))
    width = before[0].shape[1]
    both = sparse.hstack([before[0], after[0]], format="csr")
    return both, lambda sums: before[1](sums[..., :width]) - after[1](sums[..., width:])


def per_set_top1(predictions: OODPredictions) -> tuple[sparse.csr_array, Reduce]:
    """Top-1 accuracy of each shifted set, each corruption at each severity being one: (..., sets)."""
    group = np.full(len(predictions.sets), -1)
    group[predictions.shifted] = np.arange(len(predictions.shifted))
    return _accuracies(predictions, group)


def worst_set(predictions: OODPredictions) -> tuple[sparse.csr_array, Reduce]:
    """The lowest of `per_set_top1`."""
    return _then(per_set_top1(predictions), _smallest)


def mean_corruption_error(predictions: OODPredictions) -> tuple[sparse.csr_array, Reduce]:
    """Mean over corruptions of the top-1 error over their severities, relative to nobody."""
    group, _ = _corruptions(predictions)
    return _then(_accuracies(predictions, group), lambda values: 1 - _mean(values))


def mce(predictions: OODPredictions) -> tuple[sparse.csr_array, Reduce]:
    """Mean over ImageNet-C's fifteen corruptions of the error over severities divided by AlexNet's, 1 for AlexNet.

    Source: Hendrycks & Dietterich 2019, arXiv 1903.12261, section 4.1 (there in per cent).
    """
    group, names = _corruptions(predictions, ALEXNET_ERROR)
    reference = np.array([ALEXNET_ERROR[name] for name in names])
    return _then(_accuracies(predictions, group), lambda values: _mean((1 - values) / reference))


def shifted_ece(predictions: OODPredictions) -> tuple[sparse.csr_array, Reduce]:
    """Mean over the card's sets of the expected calibration error, of corrupted sets the mean over their own.

    Each is that of `bob.results.terms`, on the probabilities among the classes of the set.
    """
    kept = np.flatnonzero(np.isin(predictions.part, predictions.shifted))
    gaps = ece_terms(cast(Predictions, _Rows(predictions, kept)))[:, :-1].tocoo()
    bins, place = gaps.shape[1], np.searchsorted(predictions.shifted, predictions.part[kept])
    rows, columns = predictions.unit[kept][gaps.coords[0]], place[gaps.coords[0]] * bins + gaps.coords[1]
    shape = (len(predictions), bins * len(predictions.shifted))
    summed = sparse.csr_array((gaps.data, (rows, columns)), shape=shape)
    counts, pool = _pools(predictions)
    number = np.array([pool[each] for each in predictions.shifted])
    entries = _entries(predictions)[predictions.shifted]

    def reduce(sums: Floats) -> Floats:
        distance = np.abs(sums[..., : shape[1]]).reshape(*sums.shape[:-1], -1, bins).sum(axis=-1)
        errors = _ratio(distance, sums[..., shape[1] :][..., number])
        means = [_mean(errors[..., entries == entry]) for entry in np.unique(entries)]
        return _mean(np.stack(means, axis=-1))

    return sparse.hstack([summed, counts], format="csr"), reduce


def has_corruptions(predictions: OODPredictions) -> bool:
    """Whether some set is a corruption of the clean images."""
    return any(each.corruption for each in predictions.sets)


def is_imagenet_c(predictions: OODPredictions) -> bool:
    """Whether there are 1,000 classes and ImageNet-C's fifteen corruptions at all five severities."""
    if len(predictions.classes) != _IMAGENET:
        return False
    found = {(each.corruption, each.severity) for each in predictions.sets if each.corruption}
    return {(corruption, severity) for corruption in ALEXNET_ERROR for severity in _SEVERITIES} <= found


def _accuracies(
    predictions: OODPredictions, group: NDArray[np.integer], sources: NDArray[np.integer] | None = None
) -> tuple[sparse.csr_array, Reduce]:
    """Top-1 accuracy of each group of sets of the same photographs: (..., groups).

    Args:
        predictions: Of m rows in S sets.
        group: (S,) number of each set's group, or -1 for no group; or (G,) with `sources`, the group of each source.
        sources: (G,) sets, where one set serves several groups.
    """
    sets = np.flatnonzero(group >= 0) if sources is None else sources
    of_set = group[sets] if sources is None else group
    count = int(of_set.max()) + 1
    # Rows x sets of right answers, then sets x groups: corruptions of the same photographs add up to few columns.
    hits = _by_set(predictions, predictions.right.astype(np.float64))
    joins = sparse.csr_array((np.ones(len(sets)), (sets, of_set)), shape=(len(predictions.sets), count))
    counts, pool = _pools(predictions)
    number = np.array([pool[sets[of_set == each][0]] for each in range(count)])
    size = np.bincount(of_set, minlength=count)
    summed = sparse.hstack([hits @ joins, counts], format="csr")
    return summed, lambda sums: _ratio(sums[..., :count], sums[..., count:][..., number] * size)


def _by_set(predictions: OODPredictions, values: Floats) -> sparse.csr_array:
    """A value of each row, at its unit and its set."""
    shape = (len(predictions), len(predictions.sets))
    return sparse.csr_array((values, (predictions.unit, predictions.part)), shape=shape)


def _pools(predictions: OODPredictions) -> tuple[sparse.csr_array, NDArray[np.int64]]:
    """Which units are in each pool of photographs, (n, pools), and the pool of each set, (S,)."""
    members = _by_set(predictions, np.ones(len(predictions.unit))).tocsc()
    first: dict[bytes, int] = {}
    pool = [
        first.setdefault(members.indices[start:end].tobytes(), len(first))
        for start, end in zip(members.indptr[:-1], members.indptr[1:], strict=True)
    ]
    number = np.array(pool, dtype=np.int64)
    representatives = [pool.index(each) for each in range(len(first))]
    return members[:, representatives].tocsr(), number


def _entries(predictions: OODPredictions) -> NDArray[np.int64]:
    """(S,) the number of the card's set that each set belongs to, -1 for clean ones."""
    names = list(dict.fromkeys(each.entry for each in predictions.sets if each.entry))
    return np.array([names.index(each.entry) if each.entry else -1 for each in predictions.sets])


def _clean(predictions: OODPredictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each set of the card its number, and the clean set with the same classes."""
    beside = {each.entry: each.clean for each in predictions.sets if each.entry}
    return np.arange(len(beside)), np.array(list(beside.values()))


def _corruptions(
    predictions: OODPredictions, among: dict[str, float] | None = None
) -> tuple[NDArray[np.int64], list[str]]:
    """(S,) the number of each set's corruption, -1 for none or another than these, and their names."""
    wanted = [each.corruption if among is None or each.corruption in among else "" for each in predictions.sets]
    names = list(dict.fromkeys(name for name in wanted if name))
    return np.array([names.index(name) if name else -1 for name in wanted]), names


def _then(made: tuple[sparse.csr_array, Reduce], finish: Reduce) -> tuple[sparse.csr_array, Reduce]:
    terms, reduce = made
    return terms, lambda sums: finish(reduce(sums))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _mean(values: Floats) -> Floats:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def _smallest(values: Floats) -> Floats:
    """Minimum over the last axis of what is defined; NaN where nothing is."""
    lowest = np.where(np.isnan(values), np.inf, values).min(axis=-1)
    return np.where(np.isinf(lowest), np.nan, lowest)


class _Rows:
    """Some rows of predictions, as the terms of a classifier's calibration read them."""

    def __init__(self, predictions: OODPredictions, kept: NDArray[np.integer]) -> None:
        self.labels, self.predicted = predictions.labels[kept], predictions.predicted[kept]
        self.confidence = predictions.confidence[kept]

    def __len__(self) -> int:
        return len(self.labels)


OOD_METRICS: tuple[Metric, ...] = (
    ShiftMetric("shifted_top1", "shifted top-1", True, prepare=shifted_top1),
    ShiftMetric("clean_top1", "clean top-1", True, prepare=clean_top1),
    ShiftMetric("drop", "drop", False, prepare=drop),
    ShiftMetric("worst_set", "worst set", True, prepare=worst_set),
    ShiftMetric("shifted_ece", "shifted ECE", False, prepare=shifted_ece),
    ShiftMetric(
        "mean_corruption_error",
        "corruption error",
        False,
        prepare=mean_corruption_error,
        defined=has_corruptions,
        lacking="no set of it is a corruption of the clean images",
        remedy="Leave the metric out of the task's card.",
    ),
    ShiftMetric(
        "mce",
        "mCE",
        False,
        largest=np.inf,
        prepare=mce,
        defined=is_imagenet_c,
        lacking="it is not ImageNet-C's fifteen corruptions at five severities of 1,000 classes",
        remedy="Use mean_corruption_error instead.",
    ),
)
