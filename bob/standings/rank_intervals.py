"""Which ranks a backbone may truly have, and which backbones are not told apart, from joint resamples."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bob.cores import granted_cores
from bob.results.statistics import Floats

_EPSILON = float(np.finfo(np.float32).eps)  # relative; what varies by less does so because draws are float32


def rank_intervals(values: Floats, draws: NDArray[np.floating], confidence: float = 0.95) -> tuple[Floats, Floats]:
    """For each backbone the best and the worst rank that its value does not rule out; 1 is the best.

    All differences to backbone j get intervals that hold together with the given probability: half their width is a
    critical value times their own bootstrap deviation, where the critical value is the quantile, over resamples, of the
    largest standardised deviation of any of them. Whoever's interval is above 0 is surely better than j, and whoever's
    is below it surely worse. The interval is for one backbone at a time: with the given probability that backbone's
    true rank is in it. Differences are taken within a resample, so that what all share cancels.

    Source: Mogstad, Romano, Shaikh & Wilhelm, Inference for Ranks, Review of Economic Studies 91, 2024 (marginal,
    two-sided confidence sets, in a single step).

    Args:
        values: (n,) higher is better; NaN where unknown.
        draws: (B, n) the same on B resamples, which all backbones share. A resample in which any known value has none
            (NaN) is left out.
        confidence: Probability that a true rank is within its bounds.

    Returns:
        The lower (better) and upper rank, (n,) each: NaN where the value is NaN. All are NaN if the draws of some known
        value are unknown, for a rank against a backbone of unknown uncertainty has no interval.

    Raises:
        ValueError: If the shapes do not fit, or `confidence` is not between 0 and 1.
    """
    low, high, _ = ranks_and_groups(values, draws, confidence)
    return low, high


def tied_groups(values: Floats, draws: NDArray[np.floating], confidence: float = 0.95) -> NDArray[np.int64]:
    """Number the groups of backbones that are not told apart from their leader, from the best one on.

    Group 1 is the best backbone and all that are not surely worse than it, as `rank_intervals` judges the best. The
    next group's leader is the best that is left. A backbone is in the first group that it fits. One in a later group
    may still be tied with members of an earlier one, other than its leader.

    Args:
        values: (n,) higher is better; NaN where unknown. Of equal ones the first leads.
        draws: (B, n) the same on B resamples, which all backbones share.
        confidence: Of all a leader's differences together.

    Returns:
        (n,) from 1; 0 where `rank_intervals` has no interval.

    Raises:
        ValueError: As `rank_intervals`.
    """
    return ranks_and_groups(values, draws, confidence)[2]


def ranks_and_groups(
    values: Floats, draws: NDArray[np.floating], confidence: float = 0.95
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Both of `rank_intervals` and `tied_groups`, from one comparison of all with all."""
    low, high = np.full(len(values), np.nan), np.full(len(values), np.nan)
    groups = np.zeros(len(values), dtype=np.int64)
    field = _Field.of(values, draws, confidence)
    if field is not None:
        better, worse = field.compared()
        low[field.index], high[field.index] = 1 + better.sum(axis=1), len(field.index) - worse.sum(axis=1)
        groups[field.index] = _grouped(field.values, worse)
    return low, high, groups


def _grouped(values: Floats, worse: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Groups from who is surely worse than whom: `worse[j, k]` says that k is than j."""
    groups = np.zeros(len(values), dtype=np.int64)
    for leader in np.argsort(-values, kind="stable"):
        if groups[leader] == 0:
            groups[(groups == 0) & ~worse[leader]] = groups.max() + 1
    return groups


class _Field:
    """The n backbones of known value, ready to be compared with one of them at a time.

    Args:
        index: (n,) where they are among all.
        values: (n,) higher is better.
        draws: (B, n) finite.
        confidence: Of all differences to one backbone together.
    """

    def __init__(self, index: NDArray[np.intp], values: Floats, draws: NDArray[np.floating], confidence: float) -> None:
        self.index, self.values, self._confidence = index, values, confidence
        # What is resampled minus the value itself, a row a backbone: then one row less another is the deviation of
        # their difference, in one pass and without the loss of digits that subtracting values in float32 has.
        self._deviations = np.ascontiguousarray((draws - values).T, dtype=np.float32)
        self._rooms = threading.local()
        self._rounding = _EPSILON * float(np.abs(values).max())

    @classmethod
    def of(cls, values: Floats, draws: NDArray[np.floating], confidence: float) -> _Field | None:
        """Sift what is known; None if nothing is, or a known value's draws are not."""
        if values.ndim != 1 or draws.ndim != 2 or draws.shape[1] != len(values):
            raise ValueError(f"Expected `draws` to be of shape (B, {len(values)}), but got {draws.shape}.")
        if not 0 < confidence < 1:
            raise ValueError(f"Expected `confidence` to be between 0 and 1, but got {confidence}.")
        index = np.flatnonzero(~np.isnan(values))
        own = draws[:, index]
        own = own[~np.isnan(own).any(axis=1)]
        return cls(index, values[index], own, confidence) if len(index) and len(own) > 1 else None

    def compared(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Who is surely better, and who surely worse, than the backbone of each row: (n, n) each."""
        spreads = self._spreads()
        with ThreadPoolExecutor(granted_cores()) as pool:  # numpy lets go of the interpreter's lock
            found = list(pool.map(self._surely, range(len(spreads)), spreads))
        return np.stack([better for better, _ in found]), np.stack([worse for _, worse in found])

    def _surely(self, place: int, spread: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        differences = self.values - self.values[place]
        varies = spread > self._rounding
        critical = 0.0
        if varies.any():
            scale = np.divide(1, spread, out=np.zeros_like(spread), where=varies).astype(np.float32)
            apart = np.subtract(self._deviations, self._deviations[place], out=self._room())
            largest = np.multiply(np.abs(apart, out=apart), scale[:, None], out=apart).max(axis=0)
            critical = float(np.quantile(largest, self._confidence))
        # A difference that never varies is a tie if it is none, and sure if it is one.
        bound = np.where(varies, critical * spread, self._rounding)
        return differences > bound, differences < -bound

    def _room(self) -> NDArray[np.float32]:
        """An array for a thread to work in: fresh memory for each backbone would take as long as the work."""
        if not hasattr(self._rooms, "own"):
            self._rooms.own = np.empty_like(self._deviations)
        own: NDArray[np.float32] = self._rooms.own
        return own

    def _spreads(self) -> Floats:
        """Deviation of each difference over resamples, about its mean: (n, n)."""
        deviations = self._deviations.astype(np.float64)
        deviations -= deviations.mean(axis=1, keepdims=True)
        products = deviations @ deviations.T / (deviations.shape[1] - 1)
        variances = np.diag(products)
        return np.asarray(np.sqrt(np.maximum(variances[:, None] + variances - 2 * products, 0)))
