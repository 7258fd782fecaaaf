"""k nearest neighbours by cosine similarity, exact and in chunks."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch

from bob.probes.base import Probe, check_features, to_tensor

# Similarities held at once; bounds memory whatever the number of images.
_CHUNK_ELEMENTS = 1 << 25


class KNeighbors(Probe):
    """Weighted vote of the k nearest training images, the rule of instance discrimination and DINO.

    A neighbour of cosine similarity s votes with weight exp(s / temperature); votes are normalised to probabilities.
    Among equally similar neighbours, those that come first in the training set are taken.

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
        check_features(features, labels, n_classes)
        if not 1 <= self.k <= len(features):
            raise ValueError(f"Expected `k` from 1 to the {len(features)} training images, but got {self.k}.")
        self.bank_ = torch.nn.functional.normalize(to_tensor(features, self.device), dim=1)
        self.votes_ = torch.nn.functional.one_hot(to_tensor(labels, self.device), n_classes).to(self.bank_.dtype)
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        rows = max(1, _CHUNK_ELEMENTS // max(len(self.bank_), self.k * self.votes_.shape[1]))
        chunks = [self._vote(features[start : start + rows]) for start in range(0, len(features), rows)]
        return np.concatenate(chunks)

    def _vote(self, features: np.ndarray) -> np.ndarray:
        queries = torch.nn.functional.normalize(to_tensor(features, self.device), dim=1).to(self.bank_.dtype)
        similarity, neighbours = nearest(queries @ self.bank_.T, self.k)
        weights = torch.ones_like(similarity)
        if self.temperature is not None:
            # Relative to the nearest, so that a small temperature cannot overflow.
            weights = ((similarity - similarity[:, :1]) / self.temperature).exp()
        votes = torch.einsum("nk,nkc->nc", weights.double(), self.votes_[neighbours].double())
        return (votes / votes.sum(dim=1, keepdim=True)).cpu().numpy()


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
