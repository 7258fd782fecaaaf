"""What every score of outliers is: fitted on features of the known classes, larger the less an image is like them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import torch

from bob.extras import import_extra
from bob.outliers.head import LinearHead
from bob.probes.base import check_features, check_training
from bob.probes.minibatch import exact, runs

# Rows of which quantiles are taken, at most; more would not move a quantile in its fourth digit.
_QUANTILE_ELEMENTS = 1 << 26


class Score(ABC):
    """A score of outliers on stored features, in the manner of scikit-learn.

    `__init__` only stores settings, `fit` validates, learned state ends in `_`. Scores need no new forward pass: they
    read features, and the logits of a linear head on them.

    Args:
        device: Where to compute.
    """

    needs_head: ClassVar[bool] = True

    head_: LinearHead

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def settings(self) -> dict[str, Any]:
        """What was given to `__init__`, without the device."""
        return {name: value for name, value in vars(self).items() if name != "device" and not name.endswith("_")}

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int, head: LinearHead | None = None) -> Self:
        """Learn what the known classes look like.

        Args:
            features: (n, D) of the training images.
            labels: (n,) in [0, n_classes).
            n_classes: Number of known classes.
            head: Fitted on these features; needed where `needs_head` says so.

        Raises:
            ValueError: If shapes or labels do not make sense, or the head is missing.
            UserError: If the score is not defined on these features.
        """
        check_training(features, labels, n_classes)
        if head is not None:
            self.head_ = head
        elif self.needs_head:
            raise ValueError("Expected `head` to be a linear head, but got None.")
        self.width_ = features.shape[1]
        self._fit(features, labels, n_classes)
        return self

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return float64 (n,), the larger the less known, for features (n, D).

        Raises:
            ValueError: If they are not finite or not as wide as those that it was fitted on.
        """
        check_features(features, width=self.width_)
        parts = [self._score(self._tensor(features[run])) for run in runs(features)]
        return np.concatenate([part.cpu().double().numpy() for part in parts])

    def _tensor(self, features: np.ndarray) -> torch.Tensor:
        """A few rows (m, D) in the most exact type of the device."""
        return torch.from_numpy(np.array(features)).to(self.device, exact(self.device))

    def _fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:  # noqa: B027
        """Learn; nothing where the head is all that is read."""

    @abstractmethod
    def _score(self, x: torch.Tensor) -> torch.Tensor:
        """Features (m, D) on the device -> (m,)."""


def detectors() -> Any:
    """Return pytorch-ood's module of detectors.

    Raises:
        UserError: If it is not installed.
    """
    return import_extra("pytorch_ood", "ood").detector


def sample_rows(features: np.ndarray) -> np.ndarray:
    """All features (n, D), or rows at even distances if there are too many to sort their values."""
    rows = max(1, _QUANTILE_ELEMENTS // features.shape[1])
    if len(features) <= rows:
        return features
    return np.asarray(features[np.linspace(0, len(features) - 1, rows).astype(np.int64)])
