"""Scores that measure how far a feature lies from those of the training images: Mahalanobis, ViM and KNN."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from bob.errors import UserError
from bob.outliers.base import Score, detectors
from bob.probes.bank import Bank, slices
from bob.probes.base import check_features, to_tensor
from bob.probes.minibatch import exact, runs

_QUERIES = 1 << 15  # looked up in one pass over the training images, which bounds memory


class Mahalanobis(Score):
    """Squared Mahalanobis distance to the nearest class mean, under one covariance for all classes.

    The covariance's pseudo-inverse is taken, as in the authors' code: with fewer training images than dimensions,
    directions in which no training image differs from its class mean count for nothing. pytorch-ood inverts in float32
    the sum of squares, which such features make singular, hence float64 here; elsewhere the two rank alike.

    Attributes:
        means_: (k, r), means of the k classes that have training images, in the r directions that vary, whitened.
        whitening_: (D, r).

    Source: Lee et al. 2018, arXiv 1807.03888, without input preprocessing and on one layer.
    """

    needs_head: ClassVar[bool] = False

    def _fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
        counts = np.bincount(labels, minlength=n_classes)
        dtype = exact(self.device)
        target = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(self.device)
        sums = torch.zeros(n_classes, features.shape[1], dtype=dtype, device=self.device)
        for run in runs(features):
            sums.index_add_(0, target[run], self._tensor(features[run]))
        means = sums / torch.from_numpy(np.maximum(counts, 1)).to(self.device, dtype)[:, None]
        scatter = torch.zeros(features.shape[1], features.shape[1], dtype=dtype, device=self.device)
        for run in runs(features):
            centred = self._tensor(features[run]) - means[target[run]]
            scatter += centred.T @ centred
        values, vectors = torch.linalg.eigh(scatter / len(features))
        varies = values > values[-1] * len(values) * torch.finfo(dtype).eps
        self.whitening_ = vectors[:, varies] / values[varies].sqrt()
        self.means_ = means[torch.from_numpy(counts > 0)] @ self.whitening_

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        white = x @ self.whitening_
        nearest = self.means_.square().sum(dim=1) - 2 * white @ self.means_.T
        return nearest.min(dim=1).values + white.square().sum(dim=1)


class Vim(Score):
    """Virtual-logit matching: the length of what the principal space leaves over, as a logit beside the others.

    The principal space has 1000 dimensions for features of 2048 or more, 512 for 768 or more, and half of them for
    fewer, as the authors chose for ImageNet; but no more than half as many as there are training images, for these
    could not leave anything over in a space that they fill.

    Source: Wang et al. 2022, arXiv 2203.10807; computed by pytorch-ood's `ViM`.
    """

    def _fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
        width = features.shape[1]
        principal = min(1000 if width >= 2048 else 512 if width >= 768 else width // 2, len(features) // 2)
        self.vim_ = detectors().ViM(None, principal, self.head_.weight, self.head_.bias)
        self.vim_.fit_features(to_tensor(features, self.device), torch.from_numpy(np.asarray(labels)))
        if not np.isfinite(self.vim_.alpha):
            raise UserError(
                "ViM is not defined here: the training features lie wholly in their principal space.",
                "Take another score.",
            )

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.vim_.predict_features(x)
        return scores


class KthNearest(Score):
    """Euclidean distance to the k-th nearest training image, features being brought to length 1.

    Searched by bob's own `Bank`, exactly and in chunks on any device; pytorch-ood holds all in scikit-learn.

    Args:
        k: Which neighbour; 50 as in OpenOOD and, for CIFAR-10, in the paper.
        device: Where to compute.

    Source: Sun et al. 2022, arXiv 2204.06507.
    """

    needs_head: ClassVar[bool] = False

    def __init__(self, k: int = 50, device: str = "cpu") -> None:
        super().__init__(device)
        self.k = k

    def _fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
        if not 0 < self.k <= len(features):
            raise ValueError(f"Expected `k` to be in [1, {len(features)}], but got {self.k}.")
        self.bank_ = Bank(features, self.device)

    def score(self, features: np.ndarray) -> np.ndarray:
        """See `Score.score`."""
        check_features(features, width=self.width_)
        last = [self.bank_.nearest(features[rows], self.k)[0][:, -1] for rows in slices(len(features), _QUERIES)]
        # Of directions, the squared distance is 2 - 2 cos; rounded, for the root makes 1e-8 of the last digit of a 1.
        return np.sqrt(np.clip(np.round(2 - 2 * np.concatenate(last), 12), 0, None))

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.score(x.cpu().numpy()))
