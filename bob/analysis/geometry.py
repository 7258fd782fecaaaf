"""How features lie on the sphere: evenly spread (uniformity), and near where they should be alike (alignment)."""

from __future__ import annotations

import numpy as np

from bob.analysis.moments import Floats, chunks
from bob.analysis.rows import Features

_QUERIES = 1024  # rows compared with all at once


def unit_rows(features: Features) -> Floats:
    """Features (n, D) in float64, each row divided by its length; a row of zeros stays.

    Raises:
        ValueError: If they are not (n, D) and finite.
    """
    whole = np.concatenate(list(chunks(features)))
    length = np.linalg.norm(whole, axis=1, keepdims=True)
    return whole / np.where(length > 0, length, 1.0)


def uniformity(features: Features, t: float = 2.0) -> float:
    """Log of the mean over pairs of exp(-t d^2), d being the distance of two features of length 1; lower is more even.

    0 if all features are the same; near -2 t for many of them spread evenly over a sphere of many dimensions.

    Args:
        features: (n, D) of n > 1 images, all of whose pairs are looked at, a chunk at a time.
        t: Sharpness.

    Raises:
        ValueError: If there are fewer than two rows, or they are not finite.

    Source: Wang and Isola 2020, arXiv 2005.10242, section 4.1.
    """
    units = unit_rows(features)
    if len(units) < 2:
        raise ValueError(f"Expected at least two rows of `features`, but got {len(units)}.")
    total = 0.0
    for start in range(0, len(units), _QUERIES):
        chunk = units[start : start + _QUERIES]
        squared = np.maximum(_squares(chunk)[:, None] + _squares(units) - 2 * chunk @ units.T, 0.0)
        squared[np.arange(len(chunk)), start + np.arange(len(chunk))] = np.inf  # an image is no pair with itself
        total += float(np.exp(-t * squared).sum())
    return float(np.log(total / (len(units) * (len(units) - 1))))


def alignment(views: np.ndarray) -> float:
    """Mean squared distance of the features, of length 1, of two views of one image; 0 is perfect, 2 that of strangers.

    Args:
        views: (n, q, D), q > 1 views of each of n images; all pairs of an image's views count.

    Raises:
        ValueError: If shapes do not make sense, or features are not finite.

    Source: Wang and Isola 2020, arXiv 2005.10242, section 4.1, with their exponent alpha = 2.
    """
    if views.ndim != 3 or views.shape[1] < 2:
        raise ValueError(f"Expected `views` of shape (n, q, D) with q > 1, but got {views.shape}.")
    n, q, width = views.shape
    return class_alignment(views.reshape(n * q, width), np.repeat(np.arange(n), q))


def class_alignment(features: Features, labels: np.ndarray) -> float:
    """Alignment with images of the same class as pairs: the mean over all such pairs, from sums by class alone.

    Args:
        features: (n, D).
        labels: (n,), any integers.

    Returns:
        NaN if no class has two images.

    Raises:
        ValueError: If shapes do not make sense, or features are not finite.
    """
    if labels.shape != (len(features),):
        raise ValueError(f"Expected `labels` of shape {(len(features),)}, but got {labels.shape}.")
    units = unit_rows(features)
    squares, total, pairs = _squares(units), 0.0, 0
    for c in np.unique(labels):
        own = np.flatnonzero(labels == c)
        # Over ordered pairs i, j: the sum of |x_i - x_j|^2 is 2 n sum |x_i|^2 - 2 |sum x_i|^2.
        total += 2 * len(own) * float(squares[own].sum()) - 2 * float((units[own].sum(axis=0) ** 2).sum())
        pairs += len(own) * (len(own) - 1)
    return max(total, 0.0) / pairs if pairs else float("nan")


def _squares(rows: Floats) -> Floats:
    return (rows**2).sum(axis=1)
