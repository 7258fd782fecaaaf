"""k nearest neighbours by cosine similarity, and their vote: for one class or, multi-label, for each label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np

from bob.probes.bank import Bank, slices
from bob.probes.bank import nearest as nearest  # `bob check` asks for it here
from bob.probes.base import Probe, check_features, check_grid, check_training

_QUERIES = 1 << 15  # looked up in one pass over the training images, which bounds memory


class KNeighbors(Probe):
    """Weighted vote of the k nearest training images, the rule of instance discrimination and DINO.

    Training features stay what they are, a memory-mapped file for one, and must not change between fit and predict.

    A neighbour of cosine similarity s votes with weight exp(s / temperature); votes are normalised to probabilities.
    Among equally similar neighbours (to float32's last digit), those that come first in the training set are taken.

    Args:
        k: Number of neighbours.
        temperature: Of the weights; None for one neighbour, one vote.
        device: Where to compute.
        multi_label: Whether labels are (n, L) of 1, 0 and -1 for unknown (see `Probe`). A label's probability is its
            share of the votes of those neighbours for which it is known, and 0 if it is known for none.

    Source: Wu et al. 2018 (arXiv 1805.01978), section 3.4; Caron et al. 2021 (arXiv 2104.14294), appendix F.1.
    """

    def __init__(
        self, k: int = 20, temperature: float | None = 0.07, device: str = "cpu", multi_label: bool = False
    ) -> None:
        self.k = k
        self.temperature = temperature
        self.device = device
        self.multi_label = multi_label

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """See `Probe.fit`; k must not exceed the number of training images."""
        check_training(features, labels, n_classes, multi_label=self.multi_label)
        self._check_hyperparameters(len(features))
        self.bank_ = Bank(features, self.device)
        self.labels_ = np.array(labels)
        self.n_classes_ = n_classes
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        return self._vote(*self._neighbours(features), self.labels_, self.n_classes_)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict`; multi-label, a label is 1 if it is more probable than not."""
        table = self.predict_proba(features)
        return (table > 0.5).astype(np.int64) if self.multi_label else table.argmax(axis=1)

    @classmethod
    def path(
        cls,
        grid: Iterable[dict[str, Any]],
        features: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        queries: np.ndarray,
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """See `Probe.path`; the neighbours are looked up once, for the largest k.

        Raises:
            ValueError: If the points differ in anything but `k` and `temperature`.
        """
        points = list(grid)
        probes = [cls(**point) for point in points]
        check_grid((vars(probe) for probe in probes), "k", "temperature")
        for probe in probes:
            probe._check_hyperparameters(len(features))
        widest = max(probes, key=lambda probe: probe.k).fit(features, labels, n_classes)
        similarity, positions = widest._neighbours(queries)
        for point, probe in zip(points, probes, strict=True):
            yield point, probe._vote(similarity[:, : probe.k], positions[:, : probe.k], labels, n_classes)

    def _check_hyperparameters(self, n_train: int) -> None:
        if not 1 <= self.k <= n_train:
            raise ValueError(f"Expected `k` from 1 to the {n_train} training images, but got {self.k}.")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"Expected `temperature` to be positive or None, but got {self.temperature}.")

    def _vote(self, similarity: np.ndarray, positions: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
        if not self.multi_label:
            return vote(similarity, labels[positions], n_classes, self.temperature)
        columns = [vote_on_label(similarity, label[positions], self.temperature) for label in labels.T]
        return np.stack(columns, axis=1)

    def _neighbours(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Similarities (n, k), descending, and positions (n, k) of the nearest training images."""
        check_features(features, width=self.bank_.features.shape[1])
        parts = [self.bank_.nearest(features[part], self.k) for part in slices(len(features), _QUERIES)]
        similarity, positions = (np.concatenate(part) for part in zip(*parts, strict=True))
        return similarity, positions


def vote(similarity: np.ndarray, labels: np.ndarray, n_classes: int, temperature: float | None) -> np.ndarray:
    """Return the classes' shares of the neighbours' votes, float64 (n, n_classes).

    Args:
        similarity: (n, k) of each neighbour.
        labels: (n, k) of each neighbour.
        n_classes: C.
        temperature: A neighbour's weight is exp(similarity / temperature), or 1 if it is None.
    """
    weights = _weights(similarity, temperature)
    cells = np.arange(len(labels))[:, None] * n_classes + labels
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=len(labels) * n_classes).reshape(-1, n_classes)
    return votes / votes.sum(axis=1, keepdims=True)


def vote_on_label(similarity: np.ndarray, labels: np.ndarray, temperature: float | None) -> np.ndarray:
    """Return the share of one label in the votes of the neighbours for which it is known, float64 (n,); 0 if none.

    Args:
        similarity: (n, k) of each neighbour.
        labels: (n, k) of each neighbour: 1, 0 or -1 for unknown.
        temperature: As for `vote`.
    """
    known = labels >= 0
    votes = _weights(np.where(known, similarity, -np.inf), temperature) * known
    return (votes * (labels == 1)).sum(axis=1) / np.where(known.any(axis=1), votes.sum(axis=1), 1)


def _weights(similarity: np.ndarray, temperature: float | None) -> np.ndarray:
    if temperature is None:
        return np.ones_like(similarity)
    # Relative to the nearest, so that a small temperature can neither overflow nor leave nothing.
    nearest_of_all = similarity.max(axis=1, keepdims=True)
    return np.exp((similarity - np.where(np.isfinite(nearest_of_all), nearest_of_all, 0)) / temperature)
