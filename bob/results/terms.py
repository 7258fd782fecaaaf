"""What each metric of a classifier adds up over samples, and what the sums make of it."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bob.results.predictions import Predictions
from bob.results.statistics import Floats

Terms: TypeAlias = Floats | sparse.csr_array

_BINS = 15
_EPSILON = float(np.finfo(np.float32).eps)


def _mean_terms(values: NDArray[np.generic]) -> Floats:
    return np.stack([values.astype(np.float64), np.ones(len(values))], axis=1)


def mean(sums: Floats) -> Floats:
    """Mean of the first column, the second counting samples."""
    return sums[..., 0] / sums[..., 1]


def _top_k_terms(predictions: Predictions, k: int) -> Floats:
    return _mean_terms(predictions.label_rank < k)


def top1_terms(predictions: Predictions) -> Floats:
    """Is the label's class first? The share of yes is top-1 accuracy, `sklearn.metrics.accuracy_score`."""
    return _top_k_terms(predictions, 1)


def top5_terms(predictions: Predictions) -> Floats:
    """Is the label's class among the first five? The mean is `sklearn.metrics.top_k_accuracy_score(k=5)`.

    With five classes or fewer the answer is always yes. Ties are in favour of the lower class index.
    """
    return _top_k_terms(predictions, 5)


def nll_terms(predictions: Predictions) -> Floats:
    """Negative log-likelihood of the label in nats; the mean is `sklearn.metrics.log_loss`.

    Like scikit-learn's, probabilities are clipped to [eps, 1 - eps]. eps is that of float32 (1.2e-7) whatever the
    classifier computed in, so one certain and wrong answer costs 15.9 nats, and numbers stay comparable.
    """
    return _mean_terms(-np.log(np.clip(predictions.label_probability, _EPSILON, 1 - _EPSILON)))


def mean_per_class_terms(predictions: Predictions) -> sparse.csr_array:
    """For each class that occurs among the labels: is it the sample's, and is that right? Shape (n, 2 classes)."""
    return _membership_terms(predictions, predictions.labels)


def worst_group_terms(predictions: Predictions) -> sparse.csr_array:
    """For each group that occurs: is it the sample's, and is that right? Shape (n, 2 groups)."""
    if predictions.groups is None:
        raise ValueError("Expected `predictions.groups` to be an array, but got None.")
    return _membership_terms(predictions, predictions.groups)


def _membership_terms(predictions: Predictions, membership: NDArray[np.int64]) -> sparse.csr_array:
    present, column = np.unique(membership, return_inverse=True)
    right = (predictions.predicted == predictions.labels).astype(np.float64)
    rows = np.arange(len(predictions))
    shape = (len(predictions), len(present))
    members = sparse.csr_array((np.ones(len(predictions)), (rows, column)), shape=shape)
    hits = sparse.csr_array((right, (rows, column)), shape=shape)
    return sparse.hstack([hits, members], format="csr")


def mean_of_recalls(sums: Floats) -> Floats:
    """Mean recall over the classes that occur; equals `sklearn.metrics.balanced_accuracy_score`.

    A class without a sample, as happens in a resample, is left out of the mean.
    """
    hits, members = np.split(sums, 2, axis=-1)
    recalls = np.divide(hits, members, out=np.zeros_like(hits), where=members > 0)
    return recalls.sum(axis=-1) / (members > 0).sum(axis=-1)


def worst_group(sums: Floats) -> Floats:
    """Accuracy of the group where it is lowest (Sagawa et al. 2020, arXiv 1911.08731).

    A group without a sample, as happens in a resample, is left out. The lowest of several noisy numbers is lower than
    the lowest of the true ones, in a resample more than in the data: its interval lies low where groups are small.
    """
    hits, members = np.split(sums, 2, axis=-1)
    return np.divide(hits, members, out=np.full_like(hits, np.inf), where=members > 0).min(axis=-1)


def ece_terms(predictions: Predictions) -> sparse.csr_array:
    """Right (0 or 1) minus confidence, in the column of the confidence's bin; the last column counts samples.

    Bins are those of torchmetrics: closed below, open above, compared in float32, and a confidence of exactly 1 (which
    Guo et al. put into the uppermost bin) has one of its own.
    """
    bins = np.searchsorted(_bin_edges(), predictions.confidence.astype(np.float32), side="right") - 1
    gap = (predictions.predicted == predictions.labels) - predictions.confidence
    rows = np.arange(len(predictions))
    values = np.concatenate([gap, np.ones(len(rows))])
    columns = np.concatenate([bins, np.full(len(rows), _BINS + 1)])
    return sparse.csr_array((values, (np.tile(rows, 2), columns)), shape=(len(rows), _BINS + 2))


def _bin_edges() -> NDArray[np.float32]:
    """The edges 0, 1/15, ..., 1 as `torch.linspace` rounds them, (16,)."""
    # torch steps in float32 from the nearer end, which puts 0.2 and 0.4 just below their edge. Such round confidences
    # are common (votes of k neighbours), so rounding otherwise would give another error than torchmetrics does.
    index = np.arange(_BINS + 1, dtype=np.float32)
    step = np.float32(1) / np.float32(_BINS)
    return np.where(index < (_BINS + 1) // 2, step * index, np.float32(1) - step * (_BINS - index))


def expected_calibration_error(sums: Floats) -> Floats:
    """Expected calibration error of the top label, L1, 15 equal-width bins (Guo et al. 2017, arXiv 1706.04599).

    Equals torchmetrics' `MulticlassCalibrationError(n_bins=15, norm="l1")`: a bin's weight (count / n) times its
    distance |accuracy - confidence| is |sum of right - confidence| / n.
    """
    return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]
