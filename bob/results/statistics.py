"""How sure a number is, and how numbers compare: bootstrap intervals, z-scores and ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, stats

from bob.errors import UserError
from bob.results.metrics import Floats, Metric
from bob.results.predictions import Predictions

Values = TypeVar("Values", "pd.Series[float]", NDArray[np.float64])

_CHUNK_BYTES = 2**24  # scipy copies the counts once, so twice this is held; more is not faster
_SAME = 1e-12  # relative spread below which values differ by rounding only


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: The metric on the test split itself.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of samples in the test split.
    """

    value: float
    low: float
    high: float
    n: int


def bootstrap(
    metrics: Sequence[Metric],
    predictions: Predictions,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Percentile bootstrap over test samples (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).

    All metrics see the same resamples, so their intervals belong together. The interval is about which test samples
    were drawn, not about training seeds. Its known limits: a metric at its bound on every sample (all right, all wrong)
    gets an interval of no width, and resampling adds to a calibration error, so the value of `ece` may lie low in its
    interval or, for a well calibrated classifier, even below it.

    Args:
        metrics: What to estimate.
        predictions: The n samples to resample.
        resamples: How many resamples of n samples to draw, with replacement.
        confidence: Coverage of the interval, between 0 and 1.
        seed: Equal seeds give equal results.

    Returns:
        By the metric's name, in the order given.

    Raises:
        UserError: If `resamples` is not positive or `confidence` not between 0 and 1.
    """
    _check_bootstrap(resamples, confidence)
    if not metrics:
        return {}
    terms = [sparse.csr_array(metric.terms(predictions)) for metric in metrics]
    tail = (1 - confidence) / 2
    estimates = {}
    for metric, replicates in zip(metrics, _replicates(metrics, terms, resamples, seed), strict=True):
        low, high = np.nanquantile(replicates, [tail, 1 - tail])
        estimates[metric.name] = Estimate(metric.compute(predictions), float(low), float(high), len(predictions))
    return estimates


def z_scores(values: Values, ddof: int = 1) -> Values:
    """Distance of each value from the mean, in standard deviations.

    NaN stays NaN and counts neither in the mean nor in the deviation. Where there is no spread (all values equal up to
    rounding, or a single one) nobody is ahead, and every score is 0.0 rather than NaN or infinite.

    Args:
        values: (n,) finite or NaN.
        ddof: The deviation's divisor is the number of values minus this.

    Raises:
        UserError: If `values` has more than one dimension or an infinite value.
    """
    array = _as_vector(values)
    if np.isinf(array).any():
        raise UserError(f"Expected `values` to be finite or NaN, but got {array[np.isinf(array)][0]}.")
    known = array[~np.isnan(array)]
    if len(known) <= max(ddof, 1) or np.ptp(known) <= _SAME * np.abs(known).max():
        return _like(values, np.where(np.isnan(array), np.nan, 0.0))
    return _like(values, (array - known.mean()) / known.std(ddof=ddof))


def ranks(values: Values, *, higher_is_better: bool = True) -> Values:
    """Rank of each value, 1 for the best; ties share the mean of their ranks (`scipy.stats.rankdata`), NaN stays NaN.

    Args:
        values: (n,) numbers.
        higher_is_better: Whether the largest value is the best.

    Raises:
        UserError: If `values` has more than one dimension.
    """
    array = _as_vector(values)
    return _like(values, stats.rankdata(-array if higher_is_better else array, method="average", nan_policy="omit"))


def _replicates(
    metrics: Sequence[Metric], terms: Sequence[sparse.csr_array], resamples: int, seed: int
) -> list[Floats]:
    """Each metric's value on each resample: per metric (resamples,)."""
    size = terms[0].shape[0]
    # Sparse times dense adds up sample after sample, whatever the number of resamples beside it, and `reduce` gets rows
    # that are contiguous: so chunks do not change the last digit, as they do in a dense (BLAS) product.
    transposed = sparse.hstack(terms, format="csr").T.tocsr()
    borders = np.cumsum([part.shape[1] for part in terms])[:-1]
    values: list[list[Floats]] = [[] for _ in metrics]
    for counts in _counts(size, resamples, np.random.default_rng(seed)):
        sums = np.split(np.ascontiguousarray((transposed @ counts.T).T), borders, axis=-1)
        for metric, own, sink in zip(metrics, sums, values, strict=True):
            sink.append(metric.reduce(own))
    return [np.concatenate(sink) for sink in values]


def _counts(size: int, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each of `size` samples is in each resample, in chunks of bounded memory: (rows, size)."""
    rows = max(1, _CHUNK_BYTES // (8 * size))
    for start in range(0, resamples, rows):
        counts = np.empty((min(rows, resamples - start), size))
        for row in counts:
            row[:] = np.bincount(rng.integers(size, size=size), minlength=size)
        yield counts


def _check_bootstrap(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise UserError(f"Expected `resamples` to be a positive integer, but got {resamples}.")
    if not 0 < confidence < 1:
        raise UserError(f"Expected `confidence` to be between 0 and 1, but got {confidence}.")


def _as_vector(values: pd.Series[float] | NDArray[np.float64]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise UserError(f"Expected `values` to have one dimension, but got shape {array.shape}.")
    return array


def _like(values: Values, result: Floats) -> Values:
    """Give the result a Series' index and name when it was made from one."""
    if isinstance(values, pd.Series):
        return pd.Series(result, index=values.index, name=values.name)
    return result
