"""Whether a difference between two backbones is real: on the same samples, over seeds, in many settings at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from bob.results.statistics import Floats

_SAME = 1e-12  # differences that vary by less do so by rounding only


@dataclass(frozen=True)
class McNemar:
    """What two classifiers that were right or wrong about the same samples disagree on.

    Attributes:
        gains: How many samples only the second is right about.
        losses: How many only the first is right about.
        p_value: How likely a split at least as uneven is, if both were right equally often.
    """

    gains: int
    losses: int
    p_value: float


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """McNemar's test in its exact form: of the samples that one alone is right about, each has half of them.

    The number of gains is then binomial with p = 1/2, so that the two-sided p-value is twice the smaller tail, at most
    1. It is exact with any number of samples; the chi-square form, which needs some 25 disagreements, is never used.

    Source: McNemar, Psychometrika 12, 1947; Dietterich, Neural Computation 10, 1998, for comparing classifiers.

    Args:
        right_a: (n,) booleans, whether the first is right about each sample.
        right_b: (n,) of the second, for the same samples in the same order.

    Raises:
        ValueError: If the two are not vectors of one length.
    """
    first, second = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"Expected two vectors of one length, but got shapes {first.shape} and {second.shape}.")
    gains, losses = int((second & ~first).sum()), int((first & ~second).sum())
    return McNemar(gains, losses, min(1.0, 2 * float(special.bdtr(min(gains, losses), gains + losses, 0.5))))


def paired_p_value(draws: ArrayLike) -> float:
    """The two-sided p-value of "no difference", from bootstrap replicates of a paired difference.

    Twice the share of replicates on the rarer side of 0, those at 0 on both sides: the smallest alpha at which the
    percentile interval of the same replicates leaves out 0, so a table's interval and its p-value agree. One replicate
    is added to each side, so that B replicates never claim less than 2 / (B + 1).

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 15; Davison & Hinkley, Bootstrap Methods and
    their Application, 1997, section 4.2, for the added one.

    Args:
        draws: (B,) differences on B resamples; NaN where a resample has none.

    Returns:
        Between 0 and 1; NaN if every replicate is.
    """
    values = np.asarray(draws, dtype=np.float64)
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return float("nan")
    rarer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(known) + 1))


def over_seeds_too(draws: Floats, differences: Floats, seed: int = 0) -> Floats:
    """Replicates of a mean over k seeds that vary with the seeds drawn, not with the test samples alone.

    To each is added sqrt(W) t: W = s^2 / k, where s^2 is the variance of the differences over seeds, and t follows
    Student's distribution of k - 1 degrees of freedom, because few seeds say little about s. The quantiles of that sum
    are what Cochran's formula in `statistics.over_seeds` approximates. One seed, or equal ones, change nothing.

    Source: Behrens-Fisher distribution; Cochran & Cox, Experimental Designs, 1950.

    Args:
        draws: (B,) mean over the seeds of the difference on each resample, the same one for all seeds.
        differences: (k,) of each seed, on the test samples themselves.
        seed: Equal seeds give equal results.
    """
    k = len(differences)
    error = float(differences.std(ddof=1)) / np.sqrt(k) if k > 1 else 0.0
    if error <= _SAME:
        return draws
    # The quantiles themselves in a random order: as good as random numbers, and without their noise.
    student = special.stdtrit(k - 1, (np.arange(len(draws)) + 0.5) / len(draws))
    return draws + error * np.random.default_rng(seed).permutation(student)


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p-values so that, of all that then are below alpha, one is false with a probability of at most alpha.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none is less than one before it, or more than 1.
    It holds however the tests depend on each other.

    Source: Holm, Scandinavian Journal of Statistics 6, 1979.

    Args:
        p_values: (m,) between 0 and 1; NaN stays NaN, and is not counted among the m.

    Raises:
        ValueError: If one is not between 0 and 1.
    """
    given = np.asarray(p_values, dtype=np.float64)
    known: NDArray[np.bool_] = ~np.isnan(given)
    own = given[known]
    if ((own < 0) | (own > 1)).any():
        raise ValueError(f"Expected `p_values` to be between 0 and 1, but got {own[(own < 0) | (own > 1)][0]}.")
    order = np.argsort(own, kind="stable")
    raised = np.minimum(np.maximum.accumulate(own[order] * np.arange(len(own), 0, -1)), 1.0)
    adjusted = np.full(given.shape, np.nan)
    adjusted[np.flatnonzero(known)[order]] = raised
    return adjusted
