"""What every probe is: an estimator on stored features that knows nothing of images or backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import torch

# Features looked at at once when they are searched for what is not finite; bounds memory for memory-mapped ones.
_CHUNK_ELEMENTS = 1 << 22


class Probe(ABC):
    """A classifier on features, in the manner of scikit-learn.

    `__init__` only stores hyperparameters, `fit` validates, learned state ends in `_`. A probe that says it is
    multi-label takes labels (n, n_classes) of 1, 0 and -1 for unknown, gives each label's own probability, so that
    rows do not sum to one, and predicts int64 (n, n_classes) of 1 and 0.
    """

    @abstractmethod
    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """Learn from features (n, D) and labels (n,) in [0, n_classes).

        Raises:
            ValueError: If shapes, labels or hyperparameters do not make sense.
        """

    @abstractmethod
    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Return float64 (n, n_classes), each row summing to one, for features (n, D)."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return int64 (n,), the most probable class; the lowest of equal ones."""
        return self.predict_proba(features).argmax(axis=1)

    @classmethod
    def path(
        cls,
        grid: Iterable[dict[str, Any]],
        features: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        queries: np.ndarray,
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Fit each point of the grid and yield it with its probabilities for `queries`, in any order.

        A probe that can share work between points overrides this.
        """
        for point in grid:
            yield point, cls(**point).fit(features, labels, n_classes).predict_proba(queries)


def check_training(features: np.ndarray, labels: np.ndarray, n_classes: int, multi_label: bool = False) -> None:
    """Fail unless features are (n, D) and finite, and labels (n,) integers of at least two classes in range.

    With `multi_label`, labels must be integers (n, n_classes) of 1, 0 and -1, not all of them -1.

    Raises:
        ValueError: Stating what was expected and what was found.
    """
    check_features(features)
    shape = (len(features), n_classes) if multi_label else (len(features),)
    if labels.shape != shape:
        raise ValueError(f"Expected labels of shape {shape}, but got {labels.shape}.")
    low, high = (-1, 2) if multi_label else (0, n_classes)
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < low or labels.max() >= high:
        raise ValueError(f"Expected integer labels in [{low}, {high}), but got {labels.min()} to {labels.max()}.")
    if multi_label and labels.max() == -1:
        raise ValueError("Expected at least one known label, but all are -1.")
    if not multi_label and labels.min() == labels.max():
        raise ValueError(f"Expected at least two classes, but all labels are {labels.min()}.")


def check_grid(points: Iterable[dict[str, Any]], *varying: str) -> None:
    """Fail unless the points of a grid differ in these hyperparameters alone, so that they can share their work.

    Raises:
        ValueError: If they differ in another.
    """
    if len({tuple(sorted((k, v) for k, v in point.items() if k not in varying)) for point in points}) > 1:
        raise ValueError(f"Expected a grid whose points differ in {' and '.join(f'`{k}`' for k in varying)} alone.")


def check_features(features: np.ndarray, width: int | None = None) -> None:
    """Fail unless features are (n, D) and finite, D being `width` if that is given.

    Raises:
        ValueError: Stating what was expected and what was found; names the first row that is not finite.
    """
    if features.ndim != 2 or 0 in features.shape or width not in (None, features.shape[-1]):
        raise ValueError(f"Expected features of shape (n, {width or 'D'}) with n > 0, but got {features.shape}.")
    rows = max(1, _CHUNK_ELEMENTS // features.shape[1])
    chunks = (features[start : start + rows] for start in range(0, len(features), rows))
    bad = np.flatnonzero(~np.concatenate([np.isfinite(chunk).all(axis=1) for chunk in chunks]))
    if len(bad):
        raise ValueError(f"Expected finite features, but row {bad[0]} is not ({len(bad)} rows in all).")


def to_tensor(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """Copy features to the device; float64 and integers become float64, smaller floating types float32."""
    dtype = np.float32 if array.dtype in (np.float16, np.float32) else np.float64
    return torch.from_numpy(np.array(array, dtype=dtype)).to(device)
