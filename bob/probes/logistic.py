"""Multinomial logistic regression by L-BFGS, with a warm-started grid of L2 strengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import torch

from bob.probes.base import Probe, check_features, to_tensor


class LogisticRegression(Probe):
    """Linear softmax classifier that minimises mean cross-entropy + l2 / 2 * ||W||^2; the bias is not penalised.

    The same minimum as scikit-learn's `LogisticRegression(C=1 / (l2 * n))` on the same n standardised features.

    Args:
        l2: Strength of the penalty, relative to the mean loss, so that it means the same for any n.
        standardize: Whether to bring each feature to mean 0 and variance 1 over the training images first.
        max_iter: L-BFGS iterations at most.
        tolerance: Stop when no gradient entry is larger.
        device: Where to compute.

    Attributes:
        weight_: (D, n_classes), on standardised features.
        bias_: (n_classes,).
        loss_: Value of the minimised function.
        converged_: Whether the gradient fell below the tolerance, or no step could lower the loss any more.

    Source: Liu and Nocedal 1989 for L-BFGS; scikit-learn's LogisticRegression for the objective.
    """

    def __init__(
        self,
        l2: float = 1e-3,
        standardize: bool = True,
        max_iter: int = 1000,
        tolerance: float = 1e-5,
        device: str = "cpu",
    ) -> None:
        self.l2 = l2
        self.standardize = standardize
        self.max_iter = max_iter
        self.tolerance = tolerance
        self.device = device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """See `Probe.fit`; starts from zero."""
        prepared = self._prepare(features, labels, n_classes)
        return self._minimize(prepared, to_tensor(labels, self.device), n_classes, start=None)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        x = (to_tensor(features, self.device).to(self.weight_.dtype) - self.mean_) / self.scale_
        return torch.softmax((x @ self.weight_ + self.bias_).double(), dim=1).cpu().numpy()

    @classmethod
    def path(
        cls, grid: Iterable[dict[str, Any]], features: np.ndarray, labels: np.ndarray, n_classes: int
    ) -> Iterator[tuple[dict[str, Any], Probe]]:
        """See `Probe.path`; goes from strong to weak penalty, each fit starting from the one before.

        Raises:
            ValueError: If the points differ in anything but `l2`.
        """
        grid = list(grid)
        if len({tuple(sorted((k, v) for k, v in point.items() if k != "l2")) for point in grid}) > 1:
            raise ValueError("Expected a grid whose points differ in `l2` alone.")
        start: torch.Tensor | None = None
        prepared: torch.Tensor | None = None
        for point in sorted(grid, key=lambda p: -p["l2"]):
            probe = cls(**point)
            if prepared is None:
                first = probe
                prepared, y = probe._prepare(features, labels, n_classes), to_tensor(labels, probe.device)
            probe.mean_, probe.scale_ = first.mean_, first.scale_
            probe._minimize(prepared, y, n_classes, start)
            start = torch.cat([probe.weight_, probe.bias_[None]])
            yield point, probe

    def _prepare(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> torch.Tensor:
        """Validate, and return the features standardised; remembers how."""
        check_features(features, labels, n_classes)
        if not self.l2 > 0:
            raise ValueError(f"Expected `l2` to be positive, but got {self.l2}.")
        x = to_tensor(features, self.device)
        self.mean_ = x.mean(dim=0) if self.standardize else torch.zeros_like(x[0])
        self.scale_ = x.std(dim=0, correction=0) if self.standardize else torch.ones_like(x[0])
        # As scikit-learn's StandardScaler: a feature that is constant up to rounding is left at zero, not blown up.
        rounding = 10 * torch.finfo(x.dtype).eps * self.mean_.abs()
        self.scale_ = torch.where(self.scale_ <= rounding, torch.ones_like(self.scale_), self.scale_)
        return (x - self.mean_) / self.scale_

    def _minimize(self, x: torch.Tensor, y: torch.Tensor, n_classes: int, start: torch.Tensor | None) -> Self:
        """Run L-BFGS from `start` ((D + 1, n_classes), the last row being the bias) or from zero."""
        theta = (
            torch.zeros(x.shape[1] + 1, n_classes, dtype=x.dtype, device=x.device) if start is None else start.clone()
        )
        theta.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [theta],
            max_iter=self.max_iter,
            tolerance_grad=self.tolerance,
            tolerance_change=0.0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> torch.Tensor:
            loss, theta.grad = loss_and_gradient(theta.detach(), x, y, self.l2)
            return loss

        optimizer.step(closure)
        iterations = optimizer.state[theta]["n_iter"]
        self.weight_, self.bias_ = theta.detach()[:-1], theta.detach()[-1]
        self.loss_ = float(closure())
        self.converged_ = iterations < self.max_iter
        return self


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
    return loss, torch.cat([x.T @ residual + l2 * weight, residual.sum(dim=0, keepdim=True)])
