"""Logistic regression by L-BFGS, multinomial or one for each label, with a warm-started grid of L2 strengths."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import torch

from bob.probes.base import Probe, check_features, check_grid, check_training
from bob.probes.logistic_problem import Problem
from bob.probes.minibatch import Standardizer, runs

_LOSSES = ("softmax", "bce")


class LogisticRegression(Probe):
    """Linear classifier that minimises mean cross-entropy + l2 / 2 * ||W||^2; the bias is not penalised.

    The same minimum as scikit-learn's `LogisticRegression(C=1 / (l2 * n))` on the same n standardised features. It is
    solved to the end, the last steps in float64: a looser one leaves a weakly penalised solution undetermined, and
    then rounding in the features decides which hyperparameter wins.

    Multi-label, an image's loss is the sum over its known labels of binary cross-entropy. This is what scikit-learn
    minimises label by label with the same C on the images whose label is known, n still counting all. A label of which
    only one outcome is known, or none, has no minimum. Its weights are 0, and its probability is Laplace's
    (k + 1) / (m + 2) for k ones among m known.

    Args:
        l2: Strength of the penalty, relative to the mean loss, so that it means the same for any n.
        standardize: Whether to bring each feature to mean 0 and variance 1 over the training images first.
        max_iter: Steps of L-BFGS at most.
        tolerance: Stop when the loss is estimated to be above its minimum by no more than this share of it. Unlike a
            bound on the gradient it means the same for every l2.
        loss: "softmax" for one class per image; "bce" for multi-label (see `Probe`).
        device: Where to compute.

    Attributes:
        weight_: (D, n_classes), on standardised features.
        bias_: (n_classes,).
        mean_, scale_: (D,), of the standardisation.
        loss_: Value of the minimised function.
        converged_: Whether it stopped for the tolerance, or because rounding let it go no lower, not for `max_iter`.

    Source: Liu and Nocedal 1989 for L-BFGS; scikit-learn's LogisticRegression for the objective.
    """

    weight_: torch.Tensor
    bias_: torch.Tensor
    mean_: torch.Tensor
    scale_: torch.Tensor

    def __init__(
        self,
        l2: float = 1e-3,
        standardize: bool = True,
        max_iter: int = 2000,
        tolerance: float = 1e-12,
        loss: str = "softmax",
        device: str = "cpu",
    ) -> None:
        self.l2 = l2
        self.standardize = standardize
        self.max_iter = max_iter
        self.tolerance = tolerance
        self.loss = loss
        self.device = device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """See `Probe.fit`; starts from zero."""
        self._solve(self._problem(features, labels, n_classes), start=None)
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        check_features(features, width=len(self.weight_))
        standardizer = Standardizer(self.mean_, self.scale_)
        chunks = (standardizer(features[run], self.weight_.dtype) for run in runs(features))
        return np.concatenate([self._probabilities(x) for x in chunks])

    def predict(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict`; multi-label, a label is 1 if it is more probable than not."""
        table = self.predict_proba(features)
        return (table > 0.5).astype(np.int64) if self.loss == "bce" else table.argmax(axis=1)

    @classmethod
    def path(
        cls,
        grid: Iterable[dict[str, Any]],
        features: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        queries: np.ndarray,
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """See `Probe.path`; goes from strong to weak penalty, each fit starting from the one before.

        Raises:
            ValueError: If the points differ in anything but `l2`.
        """
        points = sorted(grid, key=lambda point: -point["l2"])
        check_grid(points, "l2")
        start: torch.Tensor | None = None
        problem: Problem | None = None
        for point in points:
            probe = cls(**point)
            problem = problem or probe._problem(features, labels, n_classes)
            start = probe._solve(problem, start)
            yield point, probe.predict_proba(queries)

    def _problem(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Problem:
        if self.loss not in _LOSSES:
            raise ValueError(f"Expected `loss` to be one of {', '.join(_LOSSES)}, but got {self.loss}.")
        check_training(features, labels, n_classes, multi_label=self.loss == "bce")
        return Problem(features, labels, n_classes, self.standardize, self.device)

    def _solve(self, problem: Problem, start: torch.Tensor | None) -> torch.Tensor:
        """Go down from `start` ((r + 1, n_classes), the last row being the bias) or from zero; return the end."""
        if not 0 < self.l2 < np.inf:
            raise ValueError(f"Expected `l2` to be positive and finite, but got {self.l2}.")
        for state in itertools.islice(problem.descend(self.l2, start), max(1, self.max_iter) + 1):
            done = state.end or state.excess <= self.tolerance * state.point.value
            self.converged_ = state.exact and done
            if self.converged_:
                break
        theta, self.loss_ = state.point.theta, state.point.value
        self.weight_ = theta[:-1] if problem.basis is None else problem.basis @ theta[:-1]
        self.bias_ = problem.with_undetermined(theta[-1])
        self.mean_, self.scale_ = problem.standardizer.mean, problem.standardizer.scale
        return theta

    def _probabilities(self, x: torch.Tensor) -> np.ndarray:
        scores = (x @ self.weight_ + self.bias_).cpu().double()
        return (torch.sigmoid(scores) if self.loss == "bce" else torch.softmax(scores, dim=1)).numpy()
