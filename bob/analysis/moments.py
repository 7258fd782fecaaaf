"""Sums over features that are read a few rows at a time, in float64: mean, second moments, and sums by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bob.analysis.rows import Features

Floats = NDArray[np.float64]

# Numbers held in float64 at once; bounds memory whatever the number of images.
_CHUNK_ELEMENTS = 1 << 22


def chunks(features: Features, rows: int | None = None) -> Iterator[Floats]:
    """Rows of features (n, D), which may be memory-mapped, in float64, `rows` (default: 32 MiB of them) at a time.

    Raises:
        ValueError: If they are not (n, D) with n and D positive, or one of them is not finite; names the row.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"Expected `features` to be (n, D) with n and D positive, but got shape {features.shape}.")
    if rows is not None and rows < 1:
        raise ValueError(f"Expected `rows` to be a positive integer, but got {rows}.")
    step = rows or max(1, _CHUNK_ELEMENTS // features.shape[1])
    for start in range(0, len(features), step):
        chunk = np.array(features[start : start + step], dtype=np.float64)
        finite = np.isfinite(chunk).all(axis=1)
        if not finite.all():
            raise ValueError(f"Expected finite `features`, but row {start + int(np.argmin(finite))} is not.")
        yield chunk


@dataclass(frozen=True)
class Moments:
    """First and second moments of features.

    Attributes:
        n: Number of rows.
        scatter: (D, D), the sum over rows of the outer product of their distance from `origin`.
        origin: (D,), the mean, or zero.
    """

    n: int
    scatter: Floats
    origin: Floats

    @classmethod
    def of(cls, features: Features, rows: int | None = None, center: bool = True) -> Self:
        """Take them from features (n, D), `rows` at a time, in D x D memory beside a chunk; two passes if centred.

        Raises:
            ValueError: As `chunks`.
        """
        origin = cls.mean_of(features, rows) if center else np.zeros(features.shape[-1])
        scatter = np.zeros((len(origin), len(origin)))
        for chunk in chunks(features, rows):
            if center:
                chunk -= origin
            scatter += chunk.T @ chunk  # the same array twice: BLAS computes one half only
        return cls(len(features), scatter, origin)

    @staticmethod
    def mean_of(features: Features, rows: int | None = None) -> Floats:
        """The mean (D,) of features (n, D); raises as `of`."""
        first = np.array(features[:1], dtype=np.float64)  # so that features that are all the same give exactly that
        total = np.zeros(features.shape[-1])
        for chunk in chunks(features, rows):
            total += (chunk - first).sum(axis=0)
        return first[0] + total / len(features)


def class_means(features: Features, labels: np.ndarray, classes: int, rows: int | None = None) -> tuple[Floats, Floats]:
    """The number of images of each class (C,) and their mean feature (C, D), zero where a class has none.

    Args:
        features: (n, D), may be memory-mapped.
        labels: (n,) integers in [0, classes).
        classes: C.
        rows: Read at a time.

    Raises:
        ValueError: If shapes or labels do not make sense.
    """
    check_labels(features, labels, classes)
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    sums = np.zeros((classes, features.shape[1]))
    start = 0
    for chunk in chunks(features, rows):
        own = labels[start : start + len(chunk)]
        order = np.argsort(own, kind="stable")
        present, firsts = np.unique(own[order], return_index=True)
        sums[present] += np.add.reduceat(chunk[order], firsts, axis=0)
        start += len(chunk)
    return counts, sums / np.maximum(counts, 1)[:, None]


def check_labels(features: Features, labels: np.ndarray, classes: int) -> None:
    """Fail unless there is one label in [0, classes) for each row, and at least two of them differ.

    Raises:
        ValueError: Stating what was expected and what was found.
    """
    if labels.shape != (len(features),):
        raise ValueError(f"Expected `labels` of shape {(len(features),)}, but got {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"Expected integer `labels` in [0, {classes}), but got {labels.min()} to {labels.max()}.")
    if labels.min() == labels.max():
        raise ValueError(f"Expected `labels` of at least two classes, but all are {labels.min()}.")
