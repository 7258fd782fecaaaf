"""Cuts what a classifier said of a whole test split into its sets, each judged among the classes that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Members = tuple[int, ...]


@dataclass(frozen=True)
class JudgedSet:
    """One set of images under one choice of classes.

    Attributes:
        name: As in the record's table.
        entry: The set of the task's card that it belongs to; empty for clean images.
        corruption: What was done to the clean images, if it was this.
        severity: 1 to 5, or 0.
        members: The task's classes that each class told apart stands for; empty for all of the task's.
        clean: Number of the clean set with the same classes.
    """

    name: str
    entry: str = ""
    corruption: str = ""
    severity: int = 0
    members: tuple[Members, ...] = ()
    clean: int = 0


def cut(
    names: Sequence[str],
    labels: NDArray[np.int64],
    table: NDArray[np.floating],
    sets: Sequence[tuple[JudgedSet, slice]],
) -> tuple[tuple[JudgedSet, ...], list[str], dict[str, NDArray[Any]]]:
    """Return the sets with the clean ones that stand beside them, the units' names, and the rows.

    Args:
        names: N images.
        labels: (N,) the true class of each.
        table: (N, C) probabilities.
        sets: Each with its rows of the table; first the clean images. Rows of a corrupted set are the clean ones.

    Raises:
        ValueError: If there is a clean set only.
    """
    (clean, own), others = sets[0], sets[1:]
    if not others:
        raise ValueError("Expected `sets` to have a shifted set behind the clean one, but got one set only.")
    narrow = list(dict.fromkeys(each.members for each, _ in others if each.members))
    judged = [clean, *(JudgedSet(f"{clean.name}, {len(each)} classes", members=each) for each in narrow)]
    units = np.arange(own.stop - own.start)
    rows = [_rows(labels[own], table[own], units, each.members) for each in judged]
    photographs = list(names[own])
    for each, where in others:
        judged.append(replace(each, clean=1 + narrow.index(each.members) if each.members else 0))
        if not each.corruption:
            units = np.arange(len(photographs), len(photographs) + where.stop - where.start)
            photographs += [f"{each.name}: {name}" for name in names[where]]
        unit = np.arange(own.stop - own.start) if each.corruption else units
        rows.append(_rows(labels[where], table[where], unit, each.members))
    arrays = {key: np.concatenate([getattr(part, key) for part in rows]) for key in _Rows.__dataclass_fields__}
    arrays["part"] = np.repeat(np.arange(len(rows)), [len(part.unit) for part in rows])
    return tuple(judged), photographs, arrays


@dataclass(frozen=True)
class _Rows:
    """The rows of one set: units, and what was predicted of each."""

    unit: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    label_probability: NDArray[np.float64]


def _rows(
    labels: NDArray[np.int64], table: NDArray[np.floating], unit: NDArray[np.int64], members: Sequence[Members]
) -> _Rows:
    """The images of a set that show one of the classes told apart, judged among these."""
    if labels.shape != unit.shape:
        raise ValueError(
            f"Expected a corrupted set to have {len(unit)} images, as the clean one, but got {len(labels)}."
        )
    if not members:
        return _reduced(unit, labels, table, np.arange(table.shape[1]))
    among = np.full(table.shape[1], -1)
    for number, each in enumerate(members):
        among[list(each)] = number
    kept = np.flatnonzero(among[labels] >= 0)
    columns, starts = np.concatenate(members), np.cumsum([0, *(len(each) for each in members[:-1])])
    largest = np.maximum.reduceat(table[np.ix_(kept, columns)], starts, axis=1)
    first = columns[starts]
    return _reduced(unit[kept], among[labels[kept]], _renormalised(largest), first)


def _reduced(
    unit: NDArray[np.int64], labels: NDArray[np.int64], table: NDArray[np.floating], classes: NDArray[np.int64]
) -> _Rows:
    """Keep of a table (n, c) what the metrics need; its column j is the task's class `classes[j]`."""
    rows, best = np.arange(len(table)), table.argmax(axis=1)
    confidence, of_label = (table[rows, column].astype(np.float64) for column in (best, labels))
    return _Rows(unit, classes[labels].astype(np.int64), classes[best].astype(np.int64), confidence, of_label)


def _renormalised(table: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows that sum to one; equal entries where there is nothing to divide."""
    sums = table.sum(axis=1, dtype=np.float64, keepdims=True)
    equal = np.full(table.shape, 1 / table.shape[1])
    return np.divide(table, sums, out=equal, where=sums > 0)
