"""Labels of a hub data set: one class or several an image, named by the column's type or by its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bob.errors import UserError

_REMEDY = "Name another label_column, or in 'splits' only splits with labels (a hidden test has none)."


def read_labels(tables: Mapping[str, Any], column: str, name: str) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return class names, and for each split (N,) int64, or (N, L) of 0 and 1 where the column holds lists.

    Classes are those of `ClassLabel`; of other types the values that occur, in order.

    Args:
        tables: Splits, as `datasets.Dataset`.
        column: Name of the column.
        name: The data set's, for errors.

    Raises:
        UserError: If an image has no label, splits have different classes, or values are no labels.
    """
    values = {split: table.select_columns([column]).to_pandas()[column] for split, table in tables.items()}
    several = any(isinstance(value, (list, np.ndarray)) for found in values.values() for value in found[:1])
    lists = {split: _as_lists(found, several, f"'{name}' ({split})", column) for split, found in values.items()}
    named = [_names(table.features[column]) for table in tables.values()]
    if any(names != named[0] for names in named):
        raise UserError(f"The splits of '{name}' have different classes in '{column}'.", "Use splits of one kind.")
    classes, order = _classes(named[0], lists)
    for split, rows in lists.items():
        _require_known(rows, order, f"'{name}' ({split})", column)
    if not several:
        return classes, {split: np.array([order[row[0]] for row in rows]) for split, rows in lists.items()}
    return classes, {
        split: _indicators([[order[v] for v in row] for row in rows], len(classes)) for split, rows in lists.items()
    }


def _as_lists(values: pd.Series, several: bool, where: str, column: str) -> list[list[Any]]:
    """Every image's labels as a list of Python values."""
    missing = np.flatnonzero(values.isna().to_numpy())
    if len(missing):
        raise UserError(f"Image {missing[0]} of {where} has no value in '{column}'.", _REMEDY)
    return [np.asarray(value).tolist() for value in values] if several else [[value] for value in values.tolist()]


def _names(feature: Any) -> tuple[str, ...] | None:
    """Names of the classes, if the type has them."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return tuple(names) if names else None


def _classes(
    names: tuple[str, ...] | None, lists: Mapping[str, list[list[Any]]]
) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Class names, and the index of each value."""
    if names is not None:
        return names, {index: index for index in range(len(names))}
    found = sorted({value for rows in lists.values() for row in rows for value in row})
    return tuple(str(value) for value in found), {value: index for index, value in enumerate(found)}


def _require_known(rows: list[list[Any]], order: Mapping[Any, int], where: str, column: str) -> None:
    for index, row in enumerate(rows):
        for value in row:
            if isinstance(value, (float, dict)):
                raise UserError(f"The column '{column}' of {where} holds no classes, but {value!r}.", _REMEDY)
            if value not in order:  # -1 is the hub's custom for a label that is kept secret
                raise UserError(f"Image {index} of {where} has the label {value!r}, which is no class.", _REMEDY)


def _indicators(rows: list[list[int]], count: int) -> np.ndarray:
    labels = np.zeros((len(rows), count), dtype=np.int64)
    for index, row in enumerate(rows):
        labels[index, row] = 1
    return labels
