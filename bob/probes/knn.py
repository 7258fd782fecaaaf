"""k nearest neighbours by cosine similarity, exact and in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import torch

from bob.probes.base import Probe, check_features, check_training, to_tensor

# Similarities held at once; bounds memory whatever the number of images.
_CHUNK_ELEMENTS = 1 << 24


class KNeighbors(Probe):
    """Weighted vote of the k nearest training images, the rule of instance discrimination and DINO.

    A neighbour of cosine similarity s votes with weight exp(s / temperature); votes are normalised to probabilities.
    Among equally similar neighbours (to float32's last digit), those that come first in the training set are taken.

    Args:
        k: Number of neighbours.
        temperature: Of the weights; None for one neighbour, one vote.
        device: Where to compute.

    Source: Wu et al. 2018 (arXiv 1805.01978), section 3.4; Caron et al. 2021 (arXiv 2104.14294), appendix F.1.
    """

    def __init__(self, k: int = 20, temperature: float | None = 0.07, device: str = "cpu") -> None:
        self.k = k
        self.temperature = temperature
        self.device = device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """See `Probe.fit`; k must not exceed the number of training images."""
        check_training(features, labels, n_classes)
        self._check_hyperparameters(len(features))
        self.bank_ = self._directions(features)
        self.labels_ = np.array(labels)
        self.n_classes_ = n_classes
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        return vote(*self._neighbours(features), self.n_classes_, self.temperature)

    @classmethod
    def path(
        cls,
        grid: Iterable[dict[str, Any]],
        features: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        queries: np.ndarray,
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """See `Probe.path`; the neighbours are looked up once, for the largest k."""
        points = list(grid)
        probes = [cls(**point) for point in points]
        for probe in probes:
            probe._check_hyperparameters(len(features))
        widest = max(probes, key=lambda probe: probe.k).fit(features, labels, n_classes)
        similarity, neighbours = widest._neighbours(queries)
        for point, probe in zip(points, probes, strict=True):
            yield point, vote(similarity[:, : probe.k], neighbours[:, : probe.k], n_classes, probe.temperature)

    def _check_hyperparameters(self, n_train: int) -> None:
        if not 1 <= self.k <= n_train:
            raise ValueError(f"Expected `k` from 1 to the {n_train} training images, but got {self.k}.")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"Expected `temperature` to be positive or None, but got {self.temperature}.")

    def _neighbours(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Similarities (n, k), descending, and labels (n, k) of the nearest training images."""
        check_features(features, width=self.bank_.shape[1])
        rows = max(1, _CHUNK_ELEMENTS // len(self.bank_))
        similarities, positions = [], []
        for start in range(0, len(features), rows):
            exact = self._directions(features[start : start + rows]) @ self.bank_.T
            # Products of equal vectors differ in their last digits by where they stand in a matrix. Rounded from
            # float64 to float32 they are equal, so neither chunks nor the order of queries decides between them.
            _, nearest_ones = nearest(exact.float(), self.k)
            similarities.append(exact.gather(1, nearest_ones).cpu().double().numpy())
            positions.append(nearest_ones.cpu().numpy())
        return np.concatenate(similarities), self.labels_[np.concatenate(positions)]

    def _directions(self, features: np.ndarray) -> torch.Tensor:
        """Features scaled to length one, those of length zero left alone; float64 where the device has it."""
        x = to_tensor(features, self.device)
        x = x if x.device.type == "mps" else x.double()
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return x / torch.where(length > 0, length, torch.ones_like(length))


def nearest(similarity: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest of each row, descending, and their positions; among equals the first positions win.

    Args:
        similarity: (n, m).
        k: At most m.
    """
    values, positions = similarity.topk(k, dim=1)
    # topk breaks ties as it likes. Rows where more than k reach the k-th value, or where it has equals, are sorted.
    ties = (values[:, 1:] == values[:, :-1]).any(dim=1) | ((similarity >= values[:, -1:]).sum(dim=1) > k)
    if ties.any():
        ordered, order = similarity[ties].sort(dim=1, descending=True, stable=True)
        values[ties], positions[ties] = ordered[:, :k], order[:, :k]
    return values, positions


def vote(similarity: np.ndarray, labels: np.ndarray, n_classes: int, temperature: float | None) -> np.ndarray:
    """Return the classes' shares of the neighbours' votes, float64 (n, n_classes).

    Args:
        similarity: (n, k) of each neighbour.
        labels: (n, k) of each neighbour.
        n_classes: C.
        temperature: A neighbour's weight is exp(similarity / temperature), or 1 if it is None.
    """
    weights = np.ones_like(similarity)
    if temperature is not None:
        # Relative to the nearest, so that a small temperature cannot overflow.
        weights = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
    cells = np.arange(len(labels))[:, None] * n_classes + labels
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(labels) * n_classes).reshape(-1, n_classes)
    return votes / votes.sum(axis=1, keepdims=True)
