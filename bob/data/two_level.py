"""Which images of each class ask and which are searched: the rule of Battle of the Backbones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def by_class(labels: np.ndarray, names: Sequence[str], cap: int | None = None) -> list[np.ndarray]:
    """Positions of each class's images in the order of their file names, the first `cap` of them.

    Images are sorted by the last part of their names, then by the whole, so that splits joined into one pool mix.

    Args:
        labels: (n,) int64.
        names: n names, with forward slashes.
        cap: How many of each class count; None for all.
    """
    keys = [(name.rpartition("/")[2], name) for name in names]
    members: dict[int, list[int]] = {}
    for position in sorted(range(len(names)), key=keys.__getitem__):
        members.setdefault(int(labels[position]), []).append(position)
    return [np.array(members[label][:cap], dtype=np.int64) for label in sorted(members)]


def two_level(members: Sequence[np.ndarray], fraction: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Cut queries off each class: the first `fraction` of its images, rounded down, at least one and never all.

    A class of one image has no query; its image is searched all the same.

    Args:
        members: As `by_class` gives them.
        fraction: Share of the queries.

    Returns:
        Positions of the queries and of the database, class by class.

    Source: `TwoLeveldataset` of hsouri/bob-retrieval, retrieval/utils.py, where a small class has no query.
    """
    counts = [min(max(int(fraction * len(own)), 1), len(own) - 1) for own in members]
    none = np.zeros(0, dtype=np.int64)
    queries = [own[:count] for own, count in zip(members, counts, strict=True)]
    database = [own[count:] for own, count in zip(members, counts, strict=True)]
    return np.concatenate([none, *queries]), np.concatenate([none, *database])
