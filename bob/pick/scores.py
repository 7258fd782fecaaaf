"""How well features of few images may serve: without labels, few-shot, and by probes on folds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from bob.analysis.spectrum import rank_me
from bob.analysis.transfer import log_me
from bob.probes.knn import KNeighbors
from bob.probes.logistic import LogisticRegression

FEW = 3000  # images up to which leaving each out in turn is quick
_RIDGE = tuple(10.0**exponent for exponent in range(-4, 4))  # l2, relative to the mean error
# Few strengths, loosely solved: this ranks candidates, and the last rung solves it to the end.
_LINEAR = tuple({"l2": l2, "tolerance": 1e-4} for l2 in (1.0, 0.1, 0.01))
_NEIGHBOURS = (1, 5, 20)
_FOLDS, _MANY = 4, 20_000  # of more images than that one fold is tested on, which is exact enough


@dataclass(frozen=True)
class Score:
    """What a rung says of one candidate.

    Attributes:
        method: How it was found, in words.
        right: (n,) whether each image was classified rightly by a classifier that had not seen it.
        rank_me: Effective number of dimensions, which needs no labels.
        log_me: Log evidence of the labels, which needs no training.
        knn: Top-1 of nearest neighbours; None where they were not asked.
    """

    method: str
    right: np.ndarray
    rank_me: float
    log_me: float
    knn: float | None = None

    @property
    def top1(self) -> float:
        """Share of right answers."""
        return float(self.right.mean())

    def interval(self) -> tuple[float, float]:
        """95% interval of `top1` (Wilson's, which also holds for few images)."""
        found = stats.binomtest(int(self.right.sum()), len(self.right)).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def few_shot(features: np.ndarray, labels: np.ndarray, classes: int) -> Score:
    """Leave each image out in turn: ridge regression in closed form, its penalty the best of a few.

    Args:
        features: (n, D) finite.
        labels: (n,) integers in [0, classes).
        classes: C.

    Source: Allen 1974 (PRESS), as scikit-learn's RidgeCV computes it; targets as of its RidgeClassifier.
    """
    x = StandardScaler().fit_transform(features.astype(np.float64))
    targets = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    fitted = RidgeCV(alphas=np.array(_RIDGE) * len(x), scoring="neg_mean_squared_error", store_cv_results=True).fit(
        x, targets
    )
    # One column where scikit-learn drops an axis of length 1; classes are at least two.
    rights = fitted.cv_results_.argmax(axis=1) == labels[:, None]
    best = rights.sum(axis=0).argmax()
    return _scored("ridge, leave-one-out", rights[:, best], features, labels, classes)


def probed(features: np.ndarray, labels: np.ndarray, classes: int, seed: int, device: str) -> Score:
    """Fit the linear probe and look up nearest neighbours on stratified folds, each image tested once.

    Args:
        features: (n, D) finite.
        labels: (n,) integers in [0, classes).
        classes: C.
        seed: Of the folds.
        device: Where to compute.
    """
    linear: dict[int, list[np.ndarray]] = {}
    near: dict[int, list[np.ndarray]] = {}
    tested: list[np.ndarray] = []
    for train, test in _folds(labels, seed):
        tested.append(test)
        for grid, probe, found in ((_LINEAR, LogisticRegression, linear), (_neighbours(train), KNeighbors, near)):
            points = [{**point, "device": device} for point in grid]
            for point, table in probe.path(points, features[train], labels[train], classes, features[test]):
                found.setdefault(points.index(point), []).append(table.argmax(axis=1) == labels[test])
    best = _best(linear)
    order = np.argsort(np.concatenate(tested))  # the same images in the same order for every candidate
    method = f"linear, {_FOLDS} folds" if len(tested) > 1 else "linear, one fold"
    return _scored(method, best[order], features, labels, classes, knn=float(_best(near).mean()))


def _scored(
    method: str, right: np.ndarray, features: np.ndarray, labels: np.ndarray, classes: int, knn: float | None = None
) -> Score:
    if np.ptp(features, axis=0).max() == 0:  # all the same, of which neither is defined: nothing is worse
        return Score(method, right, math.nan, -math.inf, knn)
    return Score(method, right, rank_me(features), log_me(features, labels, classes), knn)


def _best(found: dict[int, list[np.ndarray]]) -> np.ndarray:
    """The answers of the point that is right most often; the first of equals."""
    every = [np.concatenate(parts) for parts in found.values()]
    return max(every, key=lambda right: float(right.mean()))


def _neighbours(train: np.ndarray) -> list[dict[str, int]]:
    return [{"k": k} for k in _NEIGHBOURS if k <= len(train)]


def _folds(labels: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions to fit on and to test on; every class is spread over the folds, and none of them lacks a test."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[by_class] = np.arange(len(labels)) % _FOLDS
    for number in range(_FOLDS if len(labels) <= _MANY else 1):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)
