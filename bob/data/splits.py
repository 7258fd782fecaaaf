"""Cutting a validation or test split, class by class, the same on every machine."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from bob.errors import UserError


def stratified_cut(
    labels: np.ndarray, fraction: float, seed: int, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut `fraction` of each class off, at least one image and never the whole class.

    Args:
        labels: (n,) int64.
        fraction: Share of each class to cut off, rounded to the nearest count.
        seed: A class's draw depends on `seed`, its name and its images alone, so other classes do not move it.
        classes: Class names.

    Returns:
        Positions that stay and positions cut off, each in ascending order.

    Raises:
        UserError: If a class has fewer than two images.
    """
    cut: list[np.ndarray] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(
                f"Class '{classes[label]}' has only {len(members)} image to cut a split from.",
                "Add images to it, remove the class, or provide the splits (train/, val/ and test/ folders).",
            )
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        rng = np.random.default_rng([seed, zlib.crc32(classes[label].encode())])
        cut.append(rng.permutation(members)[:count])
    chosen = np.sort(np.concatenate(cut))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen
