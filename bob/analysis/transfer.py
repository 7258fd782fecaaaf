"""How well features may serve a labelled task, estimated without training on it: LogME, H-score and NLEEP."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from bob.analysis.moments import Floats, Moments, check_labels, chunks, class_means
from bob.analysis.rows import Features

_RATIOS = np.geomspace(1e-12, 1e6, 73)  # alpha / beta in LogME, as a share of the largest eigenvalue
_TINY = 1e-300
_NEGLIGIBLE = 1e-12  # share of the largest eigenvalue below which a direction holds nothing but rounding
_ENERGY = 0.8  # share of the variance that NLEEP keeps
COMPONENTS = 5  # of its mixture, for each class
_MOST = 10_000  # images that NLEEP's mixture is fitted to


@dataclass(frozen=True)
class _Directions:
    """X = U S V^T of features (n, D), and where the classes' indicators y lie in it.

    Attributes:
        n: Number of images.
        width: D.
        squares: (k,), S^2, of the directions that hold more than rounding.
        along: (P, k), U^T y for each of the P classes that are present.
        counts: (P,), images of each of them.
    """

    n: int
    width: int
    squares: Floats
    along: Floats
    counts: Floats

    @classmethod
    def of(cls, features: Features, labels: np.ndarray, classes: int, center: bool) -> _Directions:
        """Take them from n x n products where images are few, and from D x D ones else, reading in chunks."""
        check_labels(features, labels, classes)
        present, counts = np.unique(labels, return_counts=True)
        if len(features) <= features.shape[1]:
            whole = np.concatenate(list(chunks(features)))
            if center:
                whole -= whole.mean(axis=0)
            squares, left = np.linalg.eigh(whole @ whole.T)
            along = np.stack([left[labels == c].sum(axis=0) for c in present])
        else:
            moments = Moments.of(features, center=center)
            squares, directions = np.linalg.eigh(moments.scatter)
            means = class_means(features, labels, classes)[1][present] - moments.origin
            # U = X V / S, and X^T y is a class's sum of features.
            along = counts[:, None] * (means @ directions) / np.sqrt(np.maximum(squares, _TINY))
        kept = squares > max(_NEGLIGIBLE * squares[-1], 0.0)
        if not kept.any():
            raise ValueError("Expected `features` that are not all the same.")
        n, width = features.shape
        return cls(n, width, squares[kept], along[:, kept], counts.astype(np.float64))


def log_me(features: Features, labels: np.ndarray, classes: int) -> float:
    """LogME: the log evidence, per image, of Bayesian linear regression onto each class's indicator; mean over classes.

    y = F w + noise with w ~ N(0, 1 / alpha), noise ~ N(0, 1 / beta); alpha and beta maximise the evidence. Higher is
    better. Second moments are all that is needed, so min(n, D)^2 memory is.

    Args:
        features: (n, D), may be memory-mapped; as they are, neither centred nor scaled.
        labels: (n,) integers in [0, classes).
        classes: C; those without an image are left out of the mean.

    Raises:
        ValueError: If shapes, features or labels do not make sense.

    Source: You et al. 2021, LogME, arXiv 2102.11005, algorithm 1.
    """
    found = _Directions.of(features, labels, classes, center=False)
    return float(_evidences(found).mean())


def h_score(features: Features, labels: np.ndarray, classes: int, regularised: bool = False) -> float:
    """H-score: the trace of cov(f)^-1 cov(E[f | y]), the share of each direction's variance that lies between classes.

    From 0 to C - 1; higher is better. With no more images than features it is C - 1 whatever the features are, which
    the regularised score mends: cov(f) is shrunk to the identity by Ledoit and Wolf's share s, and cov(E[f | y])
    multiplied by 1 - s.

    Args:
        features: (n, D), may be memory-mapped.
        labels: (n,) integers in [0, classes).
        classes: C.
        regularised: Take the regularised score.

    Raises:
        ValueError: If shapes, features or labels do not make sense.

    Source: Bao et al. 2019 (ICIP), An Information-Theoretic Approach to Transferability; Ibrahim et al. 2021,
        arXiv 2110.06893, for the regularised score; Ledoit and Wolf 2004 for the share.
    """
    found = _Directions.of(features, labels, classes, center=True)
    variances = found.squares / found.n
    between = (found.along**2 / found.counts[:, None]).sum(axis=0) * variances
    if not regularised:
        return float((between / variances).sum())
    share = _shrinkage(features, variances)
    shrunk = (1 - share) * variances + share * variances.sum() / found.width
    return float(((1 - share) * between / shrunk).sum())


def nleep(features: Features, labels: np.ndarray, classes: int, seed: int = 0) -> float:
    """NLEEP: the mean log likelihood of the labels, guessed from which component of a Gaussian mixture an image is in.

    Features are reduced to the principal directions that hold 80% of their variance, and a mixture of 5 components a
    class is fitted to them without labels. P(y | z) is counted from the training labels, and the score is the mean of
    log sum_z P(y | z) P(z | x): at most 0, higher is better.

    Args:
        features: (n, D); of more than 10,000 images, so many are drawn.
        labels: (n,) integers in [0, classes).
        classes: C; those without an image do not count.
        seed: Of the mixture's beginning and of the draw.

    Raises:
        ValueError: If shapes, features or labels do not make sense.

    Source: Li et al. 2021, Ranking Neural Checkpoints, arXiv 2011.11200, section 3.2; LEEP is Nguyen et al. 2020,
        arXiv 2002.12462. The reduced features are divided by their largest standard deviation, so that the
        mixture's floor of the variance does not depend on the features' unit.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    check_labels(features, labels, classes)
    if len(features) > _MOST:
        drawn = np.sort(np.random.default_rng(seed).permutation(len(features))[:_MOST])
        features, labels = features[drawn], labels[drawn]
    reduced = _principal(np.concatenate(list(chunks(features))))
    present, own = np.unique(labels, return_inverse=True)
    components = min(COMPONENTS * len(present), len(features) // 2)
    mixture = GaussianMixture(components, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the score is of the mixture as it is
        posterior = mixture.fit(reduced).predict_proba(reduced)
    return leep(posterior, own)


def leep(posterior: Floats, labels: np.ndarray) -> float:
    """LEEP: the mean of log sum_z P(y | z) P(z | x), P(y | z) being counted from the same images.

    Args:
        posterior: (n, Z), P(z | x) of each image; rows sum to one.
        labels: (n,) integers from 0.

    Source: Nguyen et al. 2020, LEEP, arXiv 2002.12462, equations (1) and (2).
    """
    joint = np.stack([posterior[labels == c].sum(axis=0) for c in range(int(labels.max()) + 1)])
    conditional = joint / np.maximum(joint.sum(axis=0), _TINY)
    likely = (posterior @ conditional.T)[np.arange(len(labels)), labels]
    return float(np.log(np.maximum(likely, _TINY)).mean())


def _evidences(found: _Directions) -> Floats:
    """The greatest log evidence per image of each class's indicator, (P,).

    With r = alpha / beta, y ~ N(0, (I + X X^T / r) / beta), for which the best beta is n / Q, Q being the squared
    length of y in that metric. What is left is a function of r alone: its greatest value is looked for on a grid, then
    near there. MacKay's updates, which the paper has, stop there too, unless features as many as images fit y exactly.
    """
    squares, along, n = found.squares, found.along**2, found.n
    # What of y lies outside of all directions; none where there are as many as images.
    outside = np.maximum(found.counts - along.sum(axis=1), 0.0) if len(squares) < n else np.zeros(len(along))

    def evidence(log_ratio: Floats, own: Floats, left: Floats) -> Floats:
        scaled = squares[:, None] / np.exp(log_ratio)
        length = own @ (1 / (1 + scaled)) + left[:, None]
        return 0.5 * (np.log(n / (2 * np.pi * length)) - 1 - np.log1p(scaled).sum(axis=0) / n)

    grid = np.log(squares[-1]) + np.log(_RATIOS)
    best = evidence(grid, along, outside).argmax(axis=1)
    greatest = np.empty(len(along))
    for c, place in enumerate(best):
        near = grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)]
        own, left = along[c : c + 1], outside[c : c + 1]
        refined = minimize_scalar(
            lambda at, own=own, left=left: -evidence(np.array([at]), own, left).item(), bounds=near, method="bounded"
        )
        greatest[c] = -refined.fun
    return greatest


def _shrinkage(features: Features, variances: Floats) -> float:
    """Ledoit and Wolf's share of the identity in the covariance of features (n, D) with these eigenvalues."""
    n, width = features.shape
    mean = Moments.mean_of(features)
    fourth = sum(float((((chunk - mean) ** 2).sum(axis=1) ** 2).sum()) for chunk in chunks(features)) / n
    squared = float((variances**2).sum())
    distance = squared - float(variances.sum()) ** 2 / width
    return 1.0 if distance <= 0 else min(1.0, (fourth - squared) / n / distance)


def _principal(features: Floats) -> Floats:
    """Features (n, D) along the principal directions that hold `_ENERGY` of the variance: (n, k), of unit size."""
    centred = features - features.mean(axis=0)
    if len(features) <= features.shape[1]:
        left, root, _ = np.linalg.svd(centred, full_matrices=False)
        turned = left * root
    else:
        turned = centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    variances = (turned**2).mean(axis=0)
    if not variances[0]:
        raise ValueError("Expected `features` that are not all the same.")
    kept = int(np.searchsorted(np.cumsum(variances), _ENERGY * variances.sum())) + 1
    return turned[:, :kept] / np.sqrt(variances[0])
