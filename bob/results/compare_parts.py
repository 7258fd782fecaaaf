"""What a test split falls into where it is not classes: its sets, or what its queries ask for; each with its score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bob.results import ood_metrics, retrieval
from bob.results.judged import Judged
from bob.results.ood import OODPredictions
from bob.results.ood_detection import OODDetectionPredictions
from bob.results.retrieval import RetrievalPredictions
from bob.results.statistics import replicates
from bob.results.terms import Floats


@dataclass(frozen=True)
class Parts:
    """The parts of a test split.

    Attributes:
        names: k of them.
        sizes: How many samples each has.
        scores: Maps weights of n units in r resamples, (n, r), to the score of each part, (r, k); NaN where undefined.
    """

    names: list[str]
    sizes: list[int]
    scores: Callable[[Floats], Floats]


def parts_of(predictions: Judged) -> Parts:
    """The sets of shifted images with top-1, those of outliers with AUROC, or the classes of queries with mAP.

    Raises:
        TypeError: If predictions of this kind have no such parts.
    """
    if isinstance(predictions, OODPredictions):
        terms, reduce = ood_metrics.per_set_top1(predictions)
        counted = np.bincount(predictions.part, minlength=len(predictions.sets))
        names = [predictions.sets[number].name for number in predictions.shifted]
        return Parts(names, counted[predictions.shifted].tolist(), _of_sums(terms, reduce))
    if isinstance(predictions, OODDetectionPredictions):
        sizes = [int((predictions.members == number).sum()) for number in range(len(predictions.sets))]
        return Parts(list(predictions.sets), sizes, lambda weights: predictions.areas("auroc", weights).T)
    if isinstance(predictions, RetrievalPredictions):
        return _classes_of_queries(predictions)
    raise TypeError(f"Expected `predictions` of several sets or of queries, but got {type(predictions).__name__}.")


def part_rows(a: Judged, b: Judged, resamples: int) -> list[list[object]]:
    """For each part: its name, its size, both scores, their difference, and the 95% of its paired resamples."""
    before, after = parts_of(a), parts_of(b)
    once = np.ones((len(a), 1))
    first, second = (parts.scores(once)[0] for parts in (before, after))
    [drawn] = replicates([lambda weights: after.scores(weights) - before.scores(weights)], len(a), resamples, seed=0)
    lows, highs = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    columns = (before.names, before.sizes, first, second, second - first, lows, highs)
    return [[name, size, *map(float, rest)] for name, size, *rest in zip(*columns, strict=True)]


def same_truth(a: Judged, b: Judged) -> bool:
    """Whether what is true of the samples is the same: the sets that they are in, or what each query should find."""
    first, second = _truth(a), _truth(b)
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def _truth(predictions: Judged) -> list[NDArray[np.int64]]:
    if isinstance(predictions, OODPredictions):
        return [predictions.unit, predictions.part, predictions.labels]
    if isinstance(predictions, OODDetectionPredictions):
        return [predictions.members]
    if isinstance(predictions, RetrievalPredictions):
        query = np.repeat(np.arange(len(predictions)), np.diff(predictions.starts))
        # The order within a query is that of a ranking.
        return [predictions.labels, np.sort(query * len(predictions.kinds) + predictions.kind_of)]
    raise TypeError(f"Expected `predictions` of several sets or of queries, but got {type(predictions).__name__}.")


def _classes_of_queries(predictions: RetrievalPredictions) -> Parts:
    found = predictions.found()
    asking = np.flatnonzero(found.valid)
    present, column = np.unique(predictions.labels[asking], return_inverse=True)
    shape = (len(predictions), len(present))
    precision = retrieval.average_precision(found)[asking]
    sums = sparse.csr_array((precision, (asking, column)), shape=shape)
    counts = sparse.csr_array((np.ones(len(asking)), (asking, column)), shape=shape)
    terms = sparse.hstack([sums, counts], format="csr")
    names = [predictions.classes[label] for label in present]
    return Parts(names, np.bincount(column).tolist(), _of_sums(terms, _ratios))


def _ratios(sums: Floats) -> Floats:
    values, counts = np.split(sums, 2, axis=-1)
    return np.divide(values, counts, out=np.full_like(values, np.nan), where=counts > 0)


def _of_sums(terms: sparse.csr_array, reduce: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    transposed = terms.T.tocsr()
    return lambda weights: reduce(np.ascontiguousarray((transposed @ weights).T))
