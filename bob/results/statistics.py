"""How sure a number is, and how numbers compare: bootstrap intervals, z-scores and ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bob.errors import UserError

if TYPE_CHECKING:
    from bob.results.judged import Judged
    from bob.results.metric import Metric, Weighted

Floats: TypeAlias = NDArray[np.float64]

Values = TypeVar("Values", "pd.Series[float]", NDArray[np.float64])

_CHUNK_BYTES = (
    2**24
)  # of counts; they are held twice, and a metric may hold a few times as much beside; more is not faster
_SAME = 1e-12  # relative spread below which values differ by rounding only


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: The metric on the test split itself.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of samples in the test split.
        draws: The value on each resample.
    """

    value: float
    low: float
    high: float
    n: int
    draws: Floats = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """What a record keeps of it: value, low, high and n."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def bootstrap(
    metrics: Sequence[Metric],
    predictions: Judged,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Percentile bootstrap over test samples (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).

    All metrics see the same resamples, so their intervals belong together. The interval is about which test samples
    were drawn, not about training seeds. Its known limits: a metric at its bound on every sample (all right, all wrong)
    gets an interval of no width, and resampling adds to a calibration error, so the value of `ece` may lie low in its
    interval or, for a well calibrated classifier, even below it. To a lesser degree this holds of COCO's average
    precision, whose precision at a recall is the highest at that recall or beyond.

    Args:
        metrics: What to estimate.
        predictions: The n samples to resample.
        resamples: How many resamples of n samples to draw, with replacement.
        confidence: Coverage of the interval, between 0 and 1.
        seed: Equal seeds give equal results.

    Returns:
        By the metric's name, in the order given.

    Raises:
        UserError: If `resamples` is not positive or `confidence` not between 0 and 1; if a metric is for another kind
            of predictions, or not defined on these.
    """
    _check_bootstrap(resamples, confidence)
    values = {metric.name: metric.compute(predictions) for metric in metrics}
    weighted = [metric.weighted(predictions) for metric in metrics]
    size = len(predictions)
    drawn = replicates(weighted, size, resamples, seed)
    return {
        name: Estimate(value, *_bounds(own, confidence), size, own)
        for (name, value), own in zip(values.items(), drawn, strict=True)
    }


def paired_bootstrap(
    metric: Metric,
    first: Judged,
    second: Judged,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The difference `second` minus `first` of a metric, with its percentile bootstrap interval.

    Both classifiers see the same resamples of the test samples, so that what makes a sample hard for either cancels:
    the interval is narrower than two separate ones suggest (Efron & Tibshirani 1993, ch. 16; Koehn 2004, W04-3250).

    Args:
        metric: What to compare.
        first: On n test samples.
        second: On the same n samples in the same order.
        resamples: How many resamples of n samples to draw, with replacement.
        confidence: Coverage of the interval, between 0 and 1.
        seed: Equal seeds give equal results.

    Raises:
        UserError: If `resamples` is not positive or `confidence` not between 0 and 1, or the metric does not fit.
    """
    _check_bootstrap(resamples, confidence)
    if len(first) != len(second):
        raise UserError(f"Expected two runs on the same samples, but got {len(first)} and {len(second)} of them.")
    difference = metric.compute(second) - metric.compute(first)
    before, after = metric.weighted(first), metric.weighted(second)
    [own] = replicates([lambda weights: after(weights) - before(weights)], len(first), resamples, seed)
    return Estimate(difference, *_bounds(own, confidence), len(first), own)


def replicates(weighted: Sequence[Weighted], size: int, resamples: int, seed: int) -> list[Floats]:
    """Evaluate functions of weights on the same resamples of `size` samples, in chunks of bounded memory.

    Args:
        weighted: Each maps weights (size, r) to values (r,).
        size: Number of samples.
        resamples: How many resamples to draw, with replacement.
        seed: Equal seeds give equal resamples.

    Returns:
        For each function (resamples,).
    """
    values: list[list[Floats]] = [[] for _ in weighted]
    for counts in _counts(size, resamples, np.random.default_rng(seed)):
        weights = np.ascontiguousarray(counts.T)
        for evaluate, sink in zip(weighted, values, strict=True):
            sink.append(evaluate(weights))
    return [np.concatenate(sink) for sink in values]


def over_seeds(scores: Floats, lows: Floats, highs: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a mean over k seeds, about both which test samples and which seeds were drawn.

    The seeds share their test samples, so their mean is as uncertain about these as one run is: V, the mean over runs
    of ((high - low) / 2z)^2. What a seed draws (a low-shot subset, an initialisation) averages out: W = s^2 / k, where
    s^2 is the variance of the scores over seeds. So se^2 = V + W. Few seeds say little about s, so the quantile is
    Cochran's, (V z + W t) / (V + W) with Student's t of k - 1 degrees of freedom: t where seeds are all the noise, z
    where they make no difference (Cochran & Cox, Experimental Designs, 1950; Satterthwaite's degrees of freedom covered
    too little with two or three seeds, when we simulated both). The mean bounds of the runs, which may lie unevenly
    about the score, are moved outwards by quantile x se - z sqrt(V). With one seed they stay.

    Args:
        scores: (k,) of each seed.
        lows: (k,) lower ends of their intervals.
        highs: (k,) upper ends.
        confidence: Of the given intervals and of the result.
    """
    low, high = float(lows.mean()), float(highs.mean())
    k, z = len(scores), NormalDist().inv_cdf((1 + confidence) / 2)
    samples = float((((highs - lows) / (2 * z)) ** 2).mean())
    draws = float(scores.var(ddof=1)) / k if k > 1 else 0.0
    if draws <= _SAME**2:
        return low, high
    from scipy.special import stdtrit  # a quarter of a second to import, which tables of single seeds are spared

    t = float(stdtrit(k - 1, (1 + confidence) / 2))
    quantile = (samples * z + draws * t) / (samples + draws)
    wider = float(quantile * np.sqrt(samples + draws) - z * np.sqrt(samples))
    return low - wider, high + wider


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
    """Rank of each value, 1 for the best; ties share the mean of their ranks, NaN stays NaN.

    Args:
        values: (n,) numbers.
        higher_is_better: Whether the largest value is the best.

    Raises:
        UserError: If `values` has more than one dimension.
    """
    array = _as_vector(values)
    places = pd.Series(array).rank(method="average", ascending=not higher_is_better)
    return _like(values, np.asarray(places, dtype=np.float64))


def _bounds(values: Floats, confidence: float) -> tuple[float, float]:
    """The middle `confidence` of the values that are not NaN."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


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
