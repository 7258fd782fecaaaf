"""Multinomial logistic regression by L-BFGS, with a warm-started grid of L2 strengths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import torch

from bob.probes.base import Probe, check_features, check_grid, check_training, to_tensor
from bob.probes.principal import PrincipalFeatures

_ROUND = 10  # iterations between two looks at how much the loss has fallen
_MAGNIFY = 1e8  # torch's L-BFGS learns nothing from a step whose y^T s is below 1e-10, so the loss is scaled up
_LEAST_CURVATURE = 1e-12


class LogisticRegression(Probe):
    """Linear softmax classifier that minimises mean cross-entropy + l2 / 2 * ||W||^2; the bias is not penalised.

    The same minimum as scikit-learn's `LogisticRegression(C=1 / (l2 * n))` on the same n standardised features. It is
    solved in float64 and to the end: a looser one leaves a weakly penalised solution undetermined, and then rounding
    in the features decides which hyperparameter wins.

    Args:
        l2: Strength of the penalty, relative to the mean loss, so that it means the same for any n.
        standardize: Whether to bring each feature to mean 0 and variance 1 over the training images first.
        max_iter: L-BFGS iterations at most, in rounds of ten.
        tolerance: Stop when a round lowers the loss by no more than this share of it. Unlike a bound on the gradient
            it means the same for every l2, and rounding cannot put it out of reach.
        device: Where to compute.

    Attributes:
        weight_: (D, n_classes), on standardised features.
        bias_: (n_classes,).
        loss_: Value of the minimised function.
        converged_: Whether it stopped for the tolerance, not for `max_iter`.

    Source: Liu and Nocedal 1989 for L-BFGS; scikit-learn's LogisticRegression for the objective.
    """

    def __init__(
        self,
        l2: float = 1e-3,
        standardize: bool = True,
        max_iter: int = 2000,
        tolerance: float = 1e-8,
        device: str = "cpu",
    ) -> None:
        self.l2 = l2
        self.standardize = standardize
        self.max_iter = max_iter
        self.tolerance = tolerance
        self.device = device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """See `Probe.fit`; starts from zero."""
        problem = _Problem(features, labels, n_classes, self.standardize, self.device)
        return self._solve(problem, start=None)[0]

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        check_features(features, width=len(self.weight_))
        x = (to_tensor(features, self.device).to(self.weight_.dtype) - self.mean_) / self.scale_
        return torch.softmax(x @ self.weight_ + self.bias_, dim=1).cpu().double().numpy()

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
        problem: _Problem | None = None
        for point in points:
            probe = cls(**point)
            problem = problem or _Problem(features, labels, n_classes, probe.standardize, probe.device)
            fitted, start = probe._solve(problem, start)
            yield point, fitted.predict_proba(queries)

    def _solve(self, problem: _Problem, start: torch.Tensor | None) -> tuple[Self, torch.Tensor]:
        """Run L-BFGS from `start` ((r + 1, n_classes), the last row being the bias) or from zero; also give the end."""
        if not 0 < self.l2 < np.inf:
            raise ValueError(f"Expected `l2` to be positive and finite, but got {self.l2}.")
        descent = _descend(problem, problem.zero() if start is None else start, self.l2)
        rounds = max(1, math.ceil(self.max_iter / _ROUND))
        for state in itertools.islice(descent, rounds):
            theta, before, self.loss_ = state
            self.converged_ = before - self.loss_ <= self.tolerance * self.loss_
            if self.converged_:
                break
        self.weight_, self.bias_ = problem.basis @ theta[:-1], theta[-1]
        self.mean_, self.scale_ = problem.mean, problem.scale
        return self, theta


class _Problem:
    """The training data, validated, standardised and turned to their principal directions.

    Along these it is known how the loss curves: by h v + l2, where v is the variance of the images and h the curvature
    of the softmax. L-BFGS, told this, needs tens of iterations where it needs thousands on features that are
    correlated.

    Attributes:
        x: (n, r) in float64 (float32 on a device without it).
        y: (n,) labels.
        basis: (D, r), the directions; weights on standardised features are `basis @ weights`.
        mean, scale: (D,), of the standardisation.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, n_classes: int, standardize: bool, device: str
    ) -> None:
        check_training(features, labels, n_classes)
        training = PrincipalFeatures.of(features, device, center=standardize, standardize=standardize)
        self.x, self.basis, self._variance = training.x, training.basis, training.variance
        self.mean, self.scale = training.mean, training.scale
        self.y = torch.as_tensor(labels, dtype=torch.long, device=self.x.device)
        self._n_classes = n_classes

    def zero(self) -> torch.Tensor:
        """Where a fit without a better idea starts: (r + 1, n_classes)."""
        return torch.zeros(self.x.shape[1] + 1, self._n_classes, dtype=self.x.dtype, device=self.x.device)

    def curvature(self, theta: torch.Tensor) -> float:
        """h, the mean of p (1 - p) over the probabilities p that theta gives; at zero (1 - 1 / C) / C."""
        p = torch.softmax(torch.addmm(theta[-1], self.x, theta[:-1]), dim=1)
        return max(float((p * (1 - p)).mean()), _LEAST_CURVATURE)

    def unit(self, h: float, l2: float) -> torch.Tensor:
        """The units, (r + 1, 1), in which to measure weights and bias so that the loss curves by h along each."""
        return torch.cat([(h / (h * self._variance + l2)).sqrt(), self._variance.new_ones(1)])[:, None]


def _descend(problem: _Problem, theta: torch.Tensor, l2: float) -> Iterator[tuple[torch.Tensor, float, float]]:
    """Run L-BFGS from theta without end; after each round yield where it is, and the loss before and after."""
    while True:
        for state in _descend_in_units(problem, theta, l2):
            yield state
            theta = state[0]


def _descend_in_units(problem: _Problem, theta: torch.Tensor, l2: float) -> Iterator[tuple[torch.Tensor, float, float]]:
    """See `_descend`; ends when the classifier has become so sure that other units suit it better."""
    h = problem.curvature(theta)
    unit = problem.unit(h, l2)
    measured = (theta / unit).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [measured],
        max_iter=_ROUND,
        max_eval=25 * _ROUND,  # what that many line searches may need at most
        tolerance_grad=0.0,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        loss, gradient = loss_and_gradient(measured.detach() * unit, problem.x, problem.y, l2)
        measured.grad = _MAGNIFY * unit * gradient
        return _MAGNIFY * loss

    while h < 3 * problem.curvature(theta):
        before, after = float(optimizer.step(closure)), float(closure())
        theta = measured.detach() * unit
        yield theta, before / _MAGNIFY, after / _MAGNIFY


def loss_and_gradient(
    theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor, l2: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The objective and its gradient, written out: two matrix products instead of a graph.

    Args:
        theta: (D + 1, C), weights and, in the last row, bias.
        x: (n, D).
        y: (n,) int64 labels.
        l2: Strength of the penalty.

    Returns:
        The loss, a scalar, and d loss / d theta, (D + 1, C).
    """
    weight, bias = theta[:-1], theta[-1]
    log_probability = torch.log_softmax(torch.addmm(bias, x, weight), dim=1)
    loss = -log_probability.gather(1, y[:, None]).sum() / len(x) + 0.5 * l2 * weight.square().sum()
    residual = log_probability.exp_()
    residual[torch.arange(len(y), device=y.device), y] -= 1
    residual /= len(x)
    # residual.T @ x is x.T @ residual transposed, and goes through x in the order in which it lies in memory.
    return loss, torch.cat([(residual.T @ x).T + l2 * weight, residual.sum(dim=0, keepdim=True)])
