"""Ridge classification in closed form: one decomposition of the features for every strength of the penalty."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from bob.probes.base import Probe, check_features, check_grid, check_training
from bob.probes.minibatch import Standardizer, runs
from bob.probes.principal import PrincipalFeatures

_LOG_TEMPERATURES = (math.log(1e-3), math.log(1e3))
_ENOUGH = 1024  # images for one number, the temperature; more would cost as much as the fit
_LEAST_FREEDOM = 1e-9  # an image that determines its own fitted value says nothing about how others are predicted


class RidgeClassifier(Probe):
    """Least squares on targets of +1 for an image's class and -1 for the others, penalised by l2 * ||W||^2.

    Minimises the mean squared error + l2 * ||W||^2, the bias not being penalised: the same decisions as scikit-learn's
    `RidgeClassifier(alpha=l2 * n)` on the same n features. Its scores are no probabilities; a softmax of scores /
    temperature makes them some, with the temperature at which the leave-one-out scores of the training images have the
    lowest negative log-likelihood. Leaving one out costs nothing extra in a linear smoother.

    Args:
        l2: Strength of the penalty, relative to the mean error, so that it means the same for any n.
        standardize: Whether to bring each feature to variance 1 over the training images first.
        device: Where to compute.

    Attributes:
        weight_: (D, n_classes), on standardised features.
        bias_: (n_classes,).
        temperature_: Of the softmax.

    Source: Hoerl and Kennard 1970; scikit-learn's RidgeClassifier for the targets; Allen 1974 (PRESS) for the
        leave-one-out scores; Guo et al. 2017 (arXiv 1706.04599) for the temperature.
    """

    def __init__(self, l2: float = 1e-2, standardize: bool = True, device: str = "cpu") -> None:
        self.l2 = l2
        self.standardize = standardize
        self.device = device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """See `Probe.fit`."""
        return self._solve(_Problem(features, labels, n_classes, self.standardize, self.device))

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        """Scores float64 (n, n_classes) of features (n, D), about 1 for the class and -1 for the others."""
        return self._scores(features).cpu().double().numpy()

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        return self._probabilities(self._scores(features))

    @classmethod
    def path(
        cls,
        grid: Iterable[dict[str, Any]],
        features: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        queries: np.ndarray,
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """See `Probe.path`; the features are decomposed once.

        Raises:
            ValueError: If the points differ in anything but `l2`.
        """
        points = list(grid)
        check_grid(points, "l2")
        probes = [cls(**point) for point in points]
        problem = _Problem(features, labels, n_classes, probes[0].standardize, probes[0].device)
        # Classes times queries, because BLAS multiplies few columns more slowly than few rows.
        turned = (problem.training.scaled(queries) @ problem.training.basis).T
        for point, probe in zip(points, probes, strict=True):
            probe.temperature_ = problem.temperature(probe._checked_l2())
            scores = problem.weights(probe.l2).T @ turned + problem.mean_target[:, None]
            yield point, probe._probabilities(scores.T)

    def _scores(self, features: np.ndarray) -> torch.Tensor:
        check_features(features, width=len(self.weight_))
        x = Standardizer(self.mean_, self.scale_)(features, self.weight_.dtype)
        return x @ self.weight_ + self.bias_

    def _probabilities(self, scores: torch.Tensor) -> np.ndarray:
        return torch.softmax(scores.cpu().double() / self.temperature_, dim=1).numpy()

    def _solve(self, problem: _Problem) -> Self:
        l2 = self._checked_l2()
        self.mean_, self.scale_ = problem.training.standardizer.mean, problem.training.standardizer.scale
        self.weight_ = problem.training.basis @ problem.weights(l2)
        self.bias_ = problem.mean_target
        self.temperature_ = problem.temperature(l2)
        return self

    def _checked_l2(self) -> float:
        if not 0 < self.l2 < np.inf:
            raise ValueError(f"Expected `l2` to be positive and finite, but got {self.l2}.")
        return self.l2


class _Problem:
    """The training data, validated and decomposed.

    With x (n, r) centred and x^T x = n diag(v), the weights are (x^T y / n) / (v + l2), and the fitted values
    H y with H = 1 1^T / n + x diag(1 / (v + l2)) x^T / n.

    Attributes:
        training: The features along their principal directions.
        mean_target: (n_classes,), what is predicted for the mean image.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, n_classes: int, standardize: bool, device: str
    ) -> None:
        check_training(features, labels, n_classes)
        self.training = PrincipalFeatures.of(features, device, center=True, standardize=standardize)
        basis, n = self.training.basis, len(labels)
        y = torch.as_tensor(labels, dtype=torch.long, device=basis.device)
        self.mean_target = 2 * torch.bincount(y, minlength=n_classes).to(basis.dtype) / n - 1
        moments = basis.new_zeros(features.shape[1], n_classes)
        for run in runs(features):
            x = self.training.standardizer(features[run], basis.dtype)
            moments += x.T @ (_targets(y[run], n_classes, x.dtype) - self.mean_target)
        self._moments = basis.T @ moments / n
        every = math.ceil(n / _ENOUGH)
        self._some = self.training.standardizer(features[::every], basis.dtype) @ basis
        self._labels, self._n = y[::every], n

    def weights(self, l2: float) -> torch.Tensor:
        """(r, n_classes), along the principal directions."""
        return self._moments / (self.training.variance + l2)[:, None]

    def leave_one_out(self, l2: float) -> torch.Tensor:
        """Scores (m, n_classes) of images, each by the classifier fitted to all others.

        Of all images, if they are no more than `_ENOUGH`; of every k-th, if they are.
        """
        targets = _targets(self._labels, len(self.mean_target), self._some.dtype)
        fitted = self._some @ self.weights(l2) + self.mean_target
        leverage = (1 + (self._some.square() / (self.training.variance + l2)).sum(dim=1)) / self._n
        freedom = (1 - leverage).clamp_min(_LEAST_FREEDOM)
        return targets - (targets - fitted) / freedom[:, None]

    def temperature(self, l2: float) -> float:
        """The temperature at which the leave-one-out scores have the lowest mean negative log-likelihood."""
        scores = self.leave_one_out(l2)

        def loss(log_temperature: float) -> float:
            return float(torch.nn.functional.cross_entropy(scores / math.exp(log_temperature), self._labels))

        return math.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-2}).x)


def _targets(y: torch.Tensor, n_classes: int, dtype: torch.dtype) -> torch.Tensor:
    """(n, n_classes) of 1 for an image's class and -1 for the others."""
    return torch.nn.functional.one_hot(y, n_classes).to(dtype).mul_(2).sub_(1)
