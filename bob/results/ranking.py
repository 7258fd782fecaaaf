"""Areas under ranking curves, for many weightings of the same samples at once.

An area is no sum over samples, so a bootstrap cannot resample it as one. But it needs the samples' order only once:
sorted by score and cut into runs, a resample is two sums for each run, which are all that an area looks at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


@dataclass(frozen=True)
class Ranking:
    """The samples of one label in R runs of falling score.

    A run is either all samples of one score, at least one of them positive, or a stretch of negatives whose order
    among themselves no area depends on. There are at most twice as many runs as positives, and one.

    Attributes:
        positives: (R, n) of 0 and 1, the positives of each run.
        negatives: (R, n) of 0 and 1, the negatives of each run.
    """

    positives: sparse.csr_array
    negatives: sparse.csr_array

    @classmethod
    def of(cls, labels: NDArray[np.integer], scores: NDArray[np.floating]) -> Ranking:
        """Rank the samples whose label is known.

        Args:
            labels: (n,) 1 for positives, 0 for negatives, -1 for unknown.
            scores: (n,) finite.
        """
        known = np.flatnonzero(labels >= 0)
        order = known[np.argsort(-scores[known], kind="stable")]
        positive = labels[order] == 1
        run = _runs(scores[order], positive)
        shape = (int(run[-1]) + 1 if len(run) else 0, len(labels))
        return cls(
            _indicator(run[positive], order[positive], shape), _indicator(run[~positive], order[~positive], shape)
        )

    def sums(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight of the positives and of the negatives in each run: (n, r) -> two of (R, r)."""
        return self.positives @ weights, self.negatives @ weights


def roc_auc(ranking: Ranking, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under the ROC curve: how often a positive scores above a negative, equal scores counting half.

    Equals `sklearn.metrics.roc_auc_score(..., sample_weight=...)` for each column of weights.

    Args:
        ranking: Of n samples.
        weights: (n, r) at least 0, such as how often each sample is in each of r resamples.

    Returns:
        (r,); NaN where no positive or no negative has weight.

    Source: Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    positives, negatives = ranking.sums(weights)
    above = np.cumsum(positives, axis=0) - positives / 2
    pairs = _total(positives) * _total(negatives)
    return np.divide(_total(negatives * above), pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)


def average_precision(ranking: Ranking, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the positives of the precision at their score, without interpolation.

    Equals `sklearn.metrics.average_precision_score(..., sample_weight=...)` for each column of weights.

    Args:
        ranking: Of n samples.
        weights: (n, r) at least 0.

    Returns:
        (r,); NaN where no positive has weight (scikit-learn says 0 and warns).
    """
    positives, negatives = ranking.sums(weights)
    hits = np.cumsum(positives, axis=0)
    retrieved = hits + np.cumsum(negatives, axis=0)
    precision = np.divide(hits, retrieved, out=np.zeros_like(hits), where=retrieved > 0)
    total = _total(positives)
    return np.divide(_total(positives * precision), total, out=np.full_like(total, np.nan), where=total > 0)


def _runs(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The run of each sample, of samples in falling score."""
    if not len(scores):
        return np.zeros(0, dtype=np.intp)
    tied = np.cumsum(np.concatenate([[True], scores[1:] != scores[:-1]])) - 1
    hit = np.bincount(tied, weights=positive) > 0
    opens = hit | np.concatenate([[True], hit[:-1]])
    return (np.cumsum(opens) - 1)[tied]


def _indicator(rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _total(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over runs, (R, r) -> (r,): one after another, where `sum` would take another order for a single column."""
    return np.asarray(sparse.csr_array(np.ones((1, len(values)))) @ values)[0]
