"""Cutting a validation or test split, class by class or subject by subject, the same on every machine."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from bob.data.base import counts
from bob.errors import UserError

Cut = tuple[np.ndarray, np.ndarray]


def stratified_cut(labels: np.ndarray, fraction: float, seed: int, classes: Sequence[str]) -> Cut:
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
    return _cut_classes(labels, lambda size: min(max(round(fraction * size), 1), size - 1), 2, seed, classes)


def counted_cut(labels: np.ndarray, count: int, seed: int, classes: Sequence[str]) -> Cut:
    """Cut `count` images of each class off, fewer only where that would be the whole class; see `stratified_cut`."""
    return _cut_classes(labels, lambda size: min(count, size - 1), 2, seed, classes)


def keep_count(labels: np.ndarray, count: int, seed: int, classes: Sequence[str], leave: int = 0) -> Cut:
    """Keep exactly `count` images of each class, such as Caltech-101's 30; see `stratified_cut` for the rest.

    Args:
        labels: (n,) int64.
        count: Images of each class that stay.
        seed: As for `stratified_cut`.
        classes: Class names.
        leave: Images of each class that must be left to cut off.

    Raises:
        UserError: If a class has fewer than `count + leave` images.
    """
    return _cut_classes(labels, lambda size: size - count, count + leave, seed, classes)


def at_most(labels: np.ndarray, count: int, seed: int, classes: Sequence[str]) -> np.ndarray:
    """Return ascending positions of `count` images of each class, or all where it has fewer; drawn as the cuts are."""
    return _cut_classes(labels, lambda size: max(size - count, 0), 1, seed, classes)[0]


def subject_cut(
    labels: np.ndarray, fraction: float, seed: int, classes: Sequence[str], subjects: np.ndarray | None = None
) -> Cut:
    """Cut `fraction` of the images off at random, all images of a subject together, no label's last positive.

    Subjects (or images, where there are none) are drawn in a random order; one stays if without it a label (or class)
    would have no positive image left on the side that stays. So labels are as frequent on both sides as chance has it,
    and every label can be learnt.

    Args:
        labels: (n,) or (n, L) int64, as `ImageSet` has them.
        fraction: Share of the images to cut off; the last subject may bring a few more.
        seed: Of the order.
        classes: Class names.
        subjects: (n,) int64, the subject of each image.

    Returns:
        Positions that stay and positions cut off, each in ascending order.

    Raises:
        UserError: If no image can be cut off.
    """
    present = labels == 1 if labels.ndim == 2 else np.eye(len(classes), dtype=bool)[labels]
    units = np.arange(len(labels)) if subjects is None else np.unique(subjects, return_inverse=True)[1]
    positives = np.zeros((int(units.max(initial=-1)) + 1, len(classes)), dtype=np.int64)
    np.add.at(positives, units, present)
    chosen = np.isin(units, _drawn_units(positives, np.bincount(units), fraction * len(labels), seed))
    if not chosen.any():
        raise UserError(
            f"None of the {len(labels)} images can be cut off without losing a label.",
            "Add images, or provide the splits.",
        )
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _drawn_units(positives: np.ndarray, sizes: np.ndarray, wanted: float, seed: int) -> list[int]:
    """Units in random order until they hold the wanted number of images, sparing each label's last positives."""
    left, taken, drawn = positives.sum(axis=0), 0, []
    for unit in np.random.default_rng(seed).permutation(len(sizes)):
        if taken >= max(wanted, 1):
            break
        if np.any((positives[unit] > 0) & (left == positives[unit])):
            continue
        left, taken = left - positives[unit], taken + int(sizes[unit])
        drawn.append(int(unit))
    return drawn


def _cut_classes(
    labels: np.ndarray, how_many: Callable[[int], int], needed: int, seed: int, classes: Sequence[str]
) -> Cut:
    sizes = counts(labels, len(classes))
    # Sorted once: asking each of iNaturalist's 10,000 classes for its images would take a minute.
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    cut: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    for label in map(int, np.flatnonzero(sizes)):
        if sizes[label] < needed:
            few = f"{sizes[label]} image{'s' if sizes[label] > 1 else ''}"
            wanted = f", not {needed}" if needed > 2 else ""
            raise UserError(
                f"Class '{classes[label]}' has only {few} to cut a split from{wanted}.",
                "Add images to it, remove the class, or provide the splits (train/, val/ and test/ folders).",
            )
        rng = np.random.default_rng([seed, zlib.crc32(classes[label].encode())])
        cut.append(rng.permutation(members[label])[: how_many(int(sizes[label]))])
    chosen = np.sort(np.concatenate(cut))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen
