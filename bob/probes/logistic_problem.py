"""The objective of logistic regression on given training data, and what is known of its curvature."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from bob.probes.descent import Point, State, descend
from bob.probes.minibatch import exact, runs
from bob.probes.principal import PrincipalFeatures, gram, standardizer_of

_CHUNK_ELEMENTS = 1 << 22  # numbers in what is multiplied at once, which bounds memory beyond the features
_LEAST_CURVATURE = 1e-12


class Problem:
    """The training data, standardised, and mean cross-entropy + l2 / 2 * ||W||^2 on them.

    It is known how the loss curves along the principal directions of the features: for class c by h_c v + l2, where v
    is the variance of the images and h_c the curvature of softmax or sigmoid. L-BFGS, told this, needs tens of steps
    where it needs thousands on features that are correlated.

    Args:
        features: (n, D), finite.
        labels: (n,) of classes, or (n, n_classes) of 1, 0, and -1 for unknown.
        n_classes: Columns of the weights.
        standardize: Whether to bring each feature to mean 0 and variance 1 first.
        device: Where to compute.

    Attributes:
        x: (n, r), standardised, in float32 if the features are no finer; if n < D, along principal directions.
        y: As `labels`, int64.
        basis: (D, r), these directions, or None; weights on standardised features are `basis @ weights`.
        standardizer: What was done to the features.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, n_classes: int, standardize: bool, device: str
    ) -> None:
        self.y = torch.as_tensor(labels, dtype=torch.long, device=device)
        self.basis: torch.Tensor | None = None
        if len(features) < features.shape[1]:
            training = PrincipalFeatures.of(features, device, center=standardize, standardize=standardize)
            self.standardizer, self.basis = training.standardizer, training.basis
            self.x = training.scaled(features) @ training.basis
        else:
            self.standardizer = standardizer_of(features, device, center=standardize, standardize=standardize)
            fine = features.dtype not in (np.float16, np.float32)
            self.x = self.y.new_empty(features.shape, dtype=exact(device) if fine else torch.float32)
            for run in runs(features):
                self.x[run] = self.standardizer(features[run], exact(device))
        self._n_classes = n_classes
        rows = max(1, _CHUNK_ELEMENTS // (self.x.shape[1] + n_classes))
        self._runs = [slice(start, start + rows) for start in range(0, len(self.x), rows)]
        square, self._directions = torch.linalg.eigh(gram(self.x[run] for run in self._runs))
        self._variance = (square / len(self.x)).clamp_min(0)
        self._settle_undetermined()

    def descend(self, l2: float, start: torch.Tensor | None) -> Iterator[State]:
        """Go down from `start` ((r + 1, n_classes), the last row being the bias) or from zero; see `descend`."""
        if start is None:
            start = self._variance.new_zeros(self.x.shape[1] + 1, self._n_classes)
        dtypes = dict.fromkeys((self.x.dtype, start.dtype))

        def precondition(gradient: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            turned = self._directions.T @ gradient[:-1] / (h * self._variance[:, None] + l2)
            return torch.cat([self._directions @ turned, gradient[-1:] / h])

        return descend(lambda theta, dtype: self.evaluate(theta, l2, dtype), precondition, start, *dtypes)

    def evaluate(self, theta: torch.Tensor, l2: float, dtype: torch.dtype) -> Point:
        """The objective at theta (r + 1, n_classes), its products in `dtype`, its sums as exact as can be.

        The gradient is written out: two matrix products instead of a graph. The curvature is h, (n_classes,): the mean
        of p (1 - p) over the probabilities p that theta gives, for softmax over the classes too.
        """
        value = theta.new_zeros(())
        gradient, curvature = torch.zeros_like(theta), torch.zeros_like(theta[0])
        weight, bias = theta[:-1].to(dtype), theta[-1].to(dtype)
        loss = _bce if self.y.ndim == 2 else _softmax
        for run in self._runs:
            x = self.x[run].to(dtype)
            losses, p, spread = loss(torch.addmm(bias, x, weight), self.y[run])
            value += losses.sum(dtype=value.dtype)
            curvature += spread
            gradient[:-1] += x.T @ p
            gradient[-1] += p.sum(dim=0)
        n = len(self.x)
        gradient /= n
        gradient[:-1] += l2 * theta[:-1]
        value = value / n + 0.5 * l2 * theta[:-1].square().sum()
        return Point(theta, float(value), gradient, (curvature / n).clamp_min(_LEAST_CURVATURE))

    def with_undetermined(self, bias: torch.Tensor) -> torch.Tensor:
        """The bias, with the values of the labels that the data leave undetermined."""
        return torch.where(self._undetermined, self._laplace, bias)

    def _settle_undetermined(self) -> None:
        """Leave out labels without two known outcomes, whose bias would go to infinity."""
        self._undetermined = torch.zeros(self._n_classes, dtype=torch.bool, device=self.y.device)
        self._laplace = torch.zeros(self._n_classes, dtype=exact(self.y.device), device=self.y.device)
        if self.y.ndim == 2:
            ones, zeros = (self.y == 1).sum(dim=0), (self.y == 0).sum(dim=0)
            self._undetermined = (ones == 0) | (zeros == 0)
            self._laplace = torch.log((ones + 1).to(exact(ones.device)) / (zeros + 1))
            self.y = self.y.masked_fill(self._undetermined, -1)


def _softmax(scores: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses, their gradient by the scores (n, C), written over these, and the sums (C,) of p (1 - p)."""
    scores -= scores.amax(dim=1, keepdim=True)
    right = scores.gather(1, y[:, None])
    p = scores.exp_()
    total = p.sum(dim=1, keepdim=True)
    p /= total
    # The mean over the classes: of a class that is never in doubt, nothing can be said.
    spread = ((p.sum() - p.square().sum()) / p.shape[1]).expand(p.shape[1])
    p[torch.arange(len(y), device=y.device), y] -= 1
    return total.log() - right, p, spread


def _bce(scores: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See `_softmax`; scores and labels (n, L), of which the unknown have no part."""
    known = (y >= 0).to(scores.dtype)
    losses = known * torch.nn.functional.binary_cross_entropy_with_logits(scores, y.to(scores.dtype), reduction="none")
    p = scores.sigmoid_()
    spread = (known * p * (1 - p)).sum(dim=0)
    return losses, p.sub_(y).mul_(known), spread
