"""LiDAR: in how many directions views of different images lie further apart than views of one image."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from bob.analysis.moments import Floats, chunks

DELTA = 1e-4  # added to the covariance within images, as a share of its mean variance
EPSILON = 1e-8  # added to each share


def lidar(views: np.ndarray, delta: float = DELTA) -> float:
    """The exponential of the entropy of the eigenvalues' shares of Sw^-1/2 Sb Sw^-1/2; from 1 to min(n - 1, D).

    Sb is the covariance of the images' mean features, Sw the mean covariance of an image's views plus delta times the
    identity. Unlike RankMe it does not count directions in which views of the same image differ as much as images do.

    Args:
        views: (n, q, D), q > 1 augmented views of each of n > 1 images.
        delta: As a share of the mean variance within images, so that the features' unit does not matter (the paper
            adds a constant).

    Raises:
        ValueError: If shapes do not make sense, features are not finite, or all images have the same mean.

    Source: Thilak et al. 2024, LiDAR, arXiv 2312.04000, section 4, equations (1) to (4).
    """
    if views.ndim != 3 or views.shape[0] < 2 or views.shape[1] < 2:
        raise ValueError(f"Expected `views` of shape (n, q, D) with n and q > 1, but got {views.shape}.")
    if not delta > 0:
        raise ValueError(f"Expected `delta` to be positive, but got {delta}.")
    n, q, width = views.shape
    own = np.concatenate(list(chunks(views.reshape(n * q, width)))).reshape(n, q, width)
    means = own.mean(axis=1)
    within = (own - means[:, None]).reshape(n * q, width)
    between = means - means.mean(axis=0)
    if not between.any():
        raise ValueError("Expected `views` of which some images differ from others.")
    return float(_entropy_rank(_ratios(within, between, delta)))


def _ratios(within: Floats, between: Floats, delta: float) -> Floats:
    """Eigenvalues of Sw^-1/2 Sb Sw^-1/2 that can differ from zero."""
    covariance = within.T @ within / len(within)
    level = float(np.trace(covariance)) / len(covariance)
    if not level:  # views of an image that do not differ: only the identity is left
        level = float((between**2).mean())
    root = linalg.cholesky(covariance + delta * level * np.eye(len(covariance)), lower=True)
    # L^-1 Sb L^-T has the same eigenvalues as Sw^-1/2 Sb Sw^-1/2.
    whitened = linalg.solve_triangular(root, between.T, lower=True)
    return np.asarray(np.linalg.svd(whitened, compute_uv=False) ** 2, dtype=np.float64)


def _entropy_rank(values: Floats) -> float:
    share = values / values.sum() + EPSILON
    return float(np.exp(-(share * np.log(share)).sum()))
