"""Whether two backbones have learnt the same thing: linear CKA, and how often images have the same neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bob.analysis.geometry import unit_rows
from bob.analysis.moments import Floats, Moments, chunks
from bob.analysis.rows import Features

NEIGHBOURS = 10  # of the mutual neighbours, as in the paper
_QUERIES = 1024  # looked up at once


def linear_cka(first: Features, second: Features, rows: int | None = None, unbiased: bool = False) -> float:
    """Linear centred kernel alignment of two features of the same images, read in chunks, in D1 x D2 memory.

    HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), where HSIC is ||Y^T X||_F^2 of centred features or, `unbiased`, the
    estimator whose expectation is 0 for independent features. With no more images than features the plain one is near 1
    whatever was learnt. It does not change under rotation and scaling of either.

    Args:
        first: (n, D1), may be memory-mapped.
        second: (n, D2), of the same images in the same order.
        rows: Read at a time.
        unbiased: Take the unbiased estimator, which may come out slightly negative; it needs n > 3.

    Returns:
        NaN if one of the features is the same for all images.

    Raises:
        ValueError: If the numbers of images differ or are too few, or features are not finite.

    Source: Kornblith et al. 2019, arXiv 1905.00414; Song et al. 2012 (JMLR 13), equation (5), for the unbiased HSIC,
        which Nguyen et al. 2021, arXiv 2010.15327, take for CKA.
    """
    _check_pair(first, second, least=4 if unbiased else 2)
    pairs = ((first, second), (first, first), (second, second))
    together, *alone = (_hsic(one, other, rows, unbiased) for one, other in pairs)
    return _ratio(together, *alone)


def minibatch_cka(first: Features, second: Features, batch: int = 256, seed: int = 0) -> float:
    """Linear CKA from the mean of unbiased HSIC over batches of images drawn without replacement; see `linear_cka`.

    Args:
        first: (n, D1), may be memory-mapped.
        second: (n, D2), of the same images.
        batch: Images in a batch, at least 4; what is left over is not used.
        seed: Of the order of the images.

    Raises:
        ValueError: As `linear_cka`, and if there is not one batch.

    Source: Nguyen et al. 2021, arXiv 2010.15327, equation (3).
    """
    _check_pair(first, second, least=max(4, batch))
    order = np.random.default_rng(seed).permutation(len(first))
    sums = np.zeros(3)
    for start in range(0, len(order) - batch + 1, batch):
        drawn = np.sort(order[start : start + batch])
        one, other = first[drawn], second[drawn]
        sums += [_hsic(x, y, None, unbiased=True) for x, y in ((one, other), (one, one), (other, other))]
    return _ratio(*sums)


def cka_matrix(features: Sequence[Features], unbiased: bool = True) -> Floats:
    """Linear CKA (k, k) of every pair of k features of the same n images, by their n x n kernels: k n^2 memory.

    For few images and many features (every block of several backbones); equal to `linear_cka`.

    Raises:
        ValueError: As `linear_cka`.
    """
    for other in features:
        _check_pair(features[0], other, least=4 if unbiased else 2)
    kernels = np.stack([_kernel(own) for own in features])
    flat, diagonals = kernels.reshape(len(kernels), -1), np.diagonal(kernels, axis1=1, axis2=2)
    together = flat @ flat.T
    if unbiased:
        traces = diagonals.sum(axis=1)
        together = _unbiased(together, diagonals @ diagonals.T, np.outer(traces, traces), kernels.shape[1])
    alone = np.diag(together)
    return np.array(
        [[_ratio(value, alone[i], alone[j]) for j, value in enumerate(row)] for i, row in enumerate(together)]
    )


def mutual_neighbours(features: Sequence[Features], k: int = NEIGHBOURS) -> Floats:
    """The share of an image's k nearest others that two features agree on, mean over images: (f, f) for f features.

    Neighbours are by cosine similarity, and the first of equals. Two features that have nothing in common agree on
    k / (n - 1) of them.

    Args:
        features: Each (n, D), of the same n images in the same order.
        k: Neighbours of each image, fewer than n.

    Raises:
        ValueError: If the numbers of images differ, or k is not from 1 to n - 1.

    Source: Huh et al. 2024, The Platonic Representation Hypothesis, arXiv 2405.07987, section 3 and appendix A.
    """
    for other in features:
        _check_pair(features[0], other, least=2)
    if not 1 <= k < len(features[0]):
        raise ValueError(f"Expected `k` from 1 to {len(features[0]) - 1}, but got {k}.")
    near = [_neighbours(own, k) for own in features]
    shared = np.eye(len(near))
    for i in range(len(near)):
        for j in range(i):
            both = np.sort(np.concatenate([near[i], near[j]], axis=1), axis=1)
            shared[i, j] = shared[j, i] = (both[:, 1:] == both[:, :-1]).sum() / near[i].size
    return shared


def _hsic(first: Features, second: Features, rows: int | None, unbiased: bool) -> float:
    """HSIC of linear kernels, up to a factor, from products of features: n x n is never made."""
    step = rows or max(1, (1 << 22) // max(first.shape[1], second.shape[1]))
    means = [Moments.mean_of(own, step) for own in (first, second)]
    cross = np.zeros((first.shape[1], second.shape[1]))
    diagonals, traces = 0.0, np.zeros(2)
    for one, other in zip(chunks(first, step), chunks(second, step), strict=True):
        one -= means[0]
        other -= means[1]
        cross += one.T @ other
        squares = (one**2).sum(axis=1), (other**2).sum(axis=1)
        diagonals += float(squares[0] @ squares[1])
        traces += [own.sum() for own in squares]
    plain = float((cross**2).sum())
    return float(_unbiased(plain, diagonals, traces.prod(), len(first))) if unbiased else plain


def _unbiased(plain: Any, diagonals: Any, traces: Any, n: int) -> Any:
    """Give n (n - 3) times the unbiased HSIC of two kernels K and L of centred features.

    It is tr(K~ L~) + 1'K~1 1'L~1 / ((n - 1)(n - 2)) - 2 1'K~L~1 / (n - 2), where K~ is K with a diagonal of zeros. The
    rows of K sum to zero, so those of K~ to minus K's diagonal, and all is in tr(K L), the product of the diagonals
    and the product of the traces.
    """
    return plain - n / (n - 2) * diagonals + traces / ((n - 1) * (n - 2))


def _kernel(features: Features) -> Floats:
    """The linear kernel (n, n) of centred features, over its largest entry, since squares of squares may overflow."""
    centred = np.concatenate(list(chunks(features))) - Moments.mean_of(features)
    kernel = centred @ centred.T
    return kernel / max(float(np.abs(kernel).max()), np.finfo(np.float64).tiny)


def _neighbours(features: Features, k: int) -> np.ndarray:
    """The positions (n, k) of each image's nearest others by cosine similarity."""
    units = unit_rows(features)
    near = np.empty((len(units), k), dtype=np.int64)
    for start in range(0, len(units), _QUERIES):
        alike = units[start : start + _QUERIES] @ units.T
        alike[np.arange(len(alike)), start + np.arange(len(alike))] = -np.inf
        near[start : start + _QUERIES] = np.argsort(-alike, axis=1, kind="stable")[:, :k]
    return near


def _ratio(together: float, one: float, other: float) -> float:
    return float(together / np.sqrt(one) / np.sqrt(other)) if one > 0 and other > 0 else float("nan")


def _check_pair(first: Features, second: Features, least: int) -> None:
    if len(first) != len(second):
        raise ValueError(f"Expected two features of the same images, but got {len(first)} and {len(second)} rows.")
    if len(first) < least:
        raise ValueError(f"Expected at least {least} images, but got {len(first)}.")
