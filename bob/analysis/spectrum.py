"""How many directions features really use: RankMe, alpha-ReQ and the spectrum, from second moments in D x D memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bob.analysis.moments import Floats, Moments, chunks
from bob.analysis.rows import Features

EPSILON = 1e-7  # added to each share, in RankMe
FIT = (4, 100)  # first and last eigenvalue, counted from 1, of alpha-ReQ's straight line
_RESOLVED = 1e-10  # share of the largest eigenvalue below which squaring has cost a singular value its digits
_VARIES = 1e-12  # share of the largest eigenvalue of the covariance below which a direction counts as collapsed


@dataclass(frozen=True)
class Spectrum:
    """The covariance spectrum of features (n, D), and what it says.

    Attributes:
        eigenvalues: (min(n, D),), of the covariance (divided by n), largest first.
        width: D.
        alpha: Its power law's exponent; see `alpha_req`.
        participation: Participation ratio, (sum of eigenvalues)^2 / sum of their squares: directions in use, if all
            used directions were used alike.
        directions_90: How many directions hold 90% of the variance.
        directions_99: How many directions hold 99% of it.
        collapsed: Share of the directions in which nothing varies beyond rounding (dimensional collapse), of those
            min(n - 1, D) in which n features can vary.
    """

    eigenvalues: Floats
    width: int
    alpha: float
    participation: float
    directions_90: int
    directions_99: int
    collapsed: float


def rank_me(features: Features, rows: int | None = None) -> float:
    """RankMe: the exponential of the entropy of the singular values' shares; from 1 to min(n, D).

    p_k = sigma_k / sum(sigma) + 1e-7, and the result is exp(-sum p_k log p_k). Features are not centred.

    Args:
        features: (n, D), may be memory-mapped and larger than memory.
        rows: Read at a time; None for 32 MiB of them.

    Raises:
        ValueError: If they are not (n, D) and finite, or all of them are zero.

    Source: Garrido et al. 2023, RankMe, arXiv 2210.02885, equation (1).
    """
    sigma = singular_values(features, rows)
    if not sigma.sum():
        raise ValueError("Expected `features` that are not all zero.")
    share = sigma / sigma.sum() + EPSILON
    return float(np.exp(-(share * np.log(share)).sum()))


def singular_values(features: Features, rows: int | None = None, center: bool = False) -> Floats:
    """The min(n, D) singular values of features (n, D), largest first, as exact as a float64 SVD of the whole.

    They are roots of the eigenvalues of X^T X. Squaring costs half of the digits of those that are small beside the
    largest, so these are taken again from X projected onto their own directions, where nothing large is left.

    Args:
        features: (n, D), may be memory-mapped and larger than memory.
        rows: Read at a time; None for 32 MiB of them.
        center: Subtract the mean first.

    Raises:
        ValueError: If they are not (n, D) and finite.
    """
    if features.ndim == 2 and len(features) <= features.shape[1]:
        whole = np.concatenate(list(chunks(features, rows)))
        return np.linalg.svd(whole - whole.mean(axis=0) if center else whole, compute_uv=False)
    moments = Moments.of(features, rows, center)
    squares, directions = np.linalg.eigh(moments.scatter)
    weak = squares <= _RESOLVED * squares[-1]
    sigma = np.sqrt(np.maximum(squares, 0.0))
    if weak.any():
        sigma[weak] = _projected(features, moments.origin, directions[:, weak], rows)
    return np.sort(sigma)[::-1]


def spectrum(features: Features, rows: int | None = None) -> Spectrum:
    """The spectrum of the covariance of features (n, D), and how far it has collapsed; arguments as of `rank_me`.

    Raises:
        ValueError: If they are not (n, D) and finite, or there are fewer than two.

    Source: Jing et al. 2022, Understanding Dimensional Collapse, arXiv 2110.09348, section 4 (the spectrum).
    """
    if len(features) < 2:
        raise ValueError(f"Expected at least two rows of `features`, but got {len(features)}.")
    n, width = features.shape
    values = singular_values(features, rows, center=True) ** 2 / n
    total = values.sum()
    reached = np.cumsum(values) / total if total else np.ones(len(values))
    varying = int((values > _VARIES * values[0]).sum()) if total else 0
    return Spectrum(
        eigenvalues=values,
        width=width,
        alpha=alpha_req(values),
        participation=float(total**2 / (values**2).sum()) if total else 0.0,
        directions_90=int(np.searchsorted(reached, 0.9 - 1e-12)) + 1,
        directions_99=int(np.searchsorted(reached, 0.99 - 1e-12)) + 1,
        collapsed=1 - varying / min(n - 1, width),
    )


def alpha_req(eigenvalues: Floats, first: int = FIT[0], last: int = FIT[1]) -> float:
    """The exponent alpha of the power law lambda_j ~ j^-alpha of a covariance's eigenvalues; near 1 is said to be good.

    A straight line through log lambda_j over log j, for j from `first` to `last`, each point weighted by 1 / j, so that
    every stretch of the logarithmic axis counts alike. Eigenvalues that are zero up to rounding are not on the line.

    Args:
        eigenvalues: (k,), largest first.
        first: Counted from 1.
        last: Counted from 1; included.

    Returns:
        NaN if fewer than three of these eigenvalues are there.

    Source: Agrawal et al. 2022, alpha-ReQ (NeurIPS): the weighted fit of Stringer et al. 2019 (Nature 571, 361), from
        the 4th to the 100th eigenvalue as in the authors' code.
    """
    if not 1 <= first < last:
        raise ValueError(f"Expected 1 <= `first` < `last`, but got {first} and {last}.")
    place = np.arange(1, len(eigenvalues) + 1)
    used = (place >= first) & (place <= last) & (eigenvalues > _VARIES * eigenvalues[0])
    if used.sum() < 3:
        return float("nan")
    x, y, weight = np.log(place[used]), np.log(eigenvalues[used]), 1 / place[used]
    x = x - np.average(x, weights=weight)
    return float(-(weight * x * y).sum() / (weight * x * x).sum())


def _projected(features: Features, origin: Floats, basis: Floats, rows: int | None) -> Floats:
    """The singular values of (X - origin) basis, (w,), by a QR decomposition that grows with the chunks."""
    root: np.ndarray = np.zeros((0, basis.shape[1]))
    for chunk in chunks(features, rows):
        root = np.linalg.qr(np.concatenate([root, (chunk - origin) @ basis]), mode="r")  # type: ignore[assignment]
    return np.asarray(np.linalg.svd(root, compute_uv=False), dtype=np.float64)
