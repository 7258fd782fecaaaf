"""A CSV that says which images there are, what they show, which split each is in and which group."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from bob.data.base import ImageSet
from bob.data.files import FileImages
from bob.errors import UserError

SPLIT_NAMES = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}
SEPARATOR = "|"
_COLUMNS = ("path", "label", "split", "group")
_NEEDED = "It needs the columns path,label[,split][,group]."


def load_manifest(path: Path, multilabel: bool = False) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read a CSV of path,label[,split][,group]; paths are relative to it.

    A label such as `cat|dog` means both, and anywhere in the file it makes the whole file one of several labels: an
    empty label then means none of them.

    Args:
        path: The CSV.
        multilabel: Read it so even if no line has several labels.

    Returns:
        Class names, and the image set of each split; one set named `all` where there are no splits.

    Raises:
        UserError: Naming the line that is wrong.
    """
    table = _read(path)
    multilabel = multilabel or bool(table["label"].str.contains(SEPARATOR, regex=False).any())
    table = _checked(table, path, multilabel)
    classes, labels = _several(table["label"], path) if multilabel else _one(table["label"])
    groups = tuple(sorted(set(table["group"]) - {""}))
    group_index = table["group"].map({name: index for index, name in enumerate(groups)}).to_numpy()
    pools: dict[str, ImageSet] = {}
    for split in table["split"].unique():
        rows = np.flatnonzero(table["split"] == split)
        paths = list(table["path"].iloc[rows])
        pools[str(split)] = FileImages(path.parent, paths, labels[rows], group_index[rows] if groups else None, groups)
    return classes, pools


def _one(column: pd.Series) -> tuple[tuple[str, ...], np.ndarray]:
    classes = tuple(sorted(column.unique()))
    return classes, np.searchsorted(np.array(classes, dtype=object), column.to_numpy(dtype=object))


def _several(column: pd.Series, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    rows = [{name.strip() for name in label.split(SEPARATOR)} - {""} for label in column]
    classes = tuple(sorted(set().union(*rows)))
    if not classes:
        raise UserError(f"{path} has no label at all.", "Fill the column label.")
    return classes, np.array([[name in row for name in classes] for row in rows], dtype=np.int64)


def _read(path: Path) -> pd.DataFrame:
    """The columns path, label, split and group as text, without blank lines; "" where the CSV lacks one."""
    try:
        # Blank lines are kept at first, so that row 0 of the table is line 2 of the file.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, skip_blank_lines=False)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.", "Correct the path.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {str(error).strip().rstrip('.')}.", _NEEDED) from error
    if lacking := [column for column in ("path", "label") if column not in table.columns]:
        raise UserError(f"{path} has no column '{lacking[0]}'.", _NEEDED)
    if not isinstance(table.index, pd.RangeIndex):  # what pandas makes of lines longer than the header
        raise UserError(f"{path} has more values in a line than columns.", 'Put a path with commas in "quotes".')
    table = table.reindex(columns=list(_COLUMNS), fill_value="").apply(lambda column: column.str.strip())
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise UserError(f"{path} has no rows.", _NEEDED)
    return table


def _checked(table: pd.DataFrame, path: Path, multilabel: bool) -> pd.DataFrame:
    """Give the splits their names in bob; fail at the first line that is wrong."""
    has_splits, has_groups = (bool((table[column] != "").any()) for column in ("split", "group"))
    seen: dict[str, int] = {}
    rows = zip(*(table[column].tolist() for column in _COLUMNS), strict=True)
    for line, (image, label, split, group) in zip((table.index + 2).tolist(), rows, strict=True):
        where, name = f"{path}, line {line}:", os.path.normpath(image)
        if not (path.parent / image).is_file():
            there = f"there is no file {path.parent / image}."
            raise UserError(f"{where} {there}", "Correct the path (relative to the CSV) or remove the line.")
        if not label and not multilabel:
            raise UserError(f"{where} {image} has no label.", "Add it or remove the line.")
        if has_splits and split.lower() not in SPLIT_NAMES:
            raise UserError(f"{where} unknown split '{split}'.", "Use train, val or test.")
        if has_groups and not group:
            raise UserError(f"{where} {image} has no group.", "Add it, or remove the column.")
        if name in seen:
            raise UserError(f"{where} {image} is on line {seen[name]} already.", "Remove one of the lines.")
        seen[name] = line
    return table.assign(split=table["split"].str.lower().map(SPLIT_NAMES) if has_splits else "all")
