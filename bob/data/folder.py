"""Any folder of images: class folders, ready-made splits of class folders, or a CSV manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from bob.data.base import ImageSet
from bob.data.files import SUFFIXES, FileImages
from bob.errors import UserError

SPLIT_NAMES = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}
MANIFEST = "manifest.csv"


def load_folder(path: Path) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read `PATH/CLASS/image`, `PATH/SPLIT/CLASS/image`, or a CSV of path,label[,split] (PATH or PATH/manifest.csv).

    Returns:
        Class names, and the image set of each split; one set named `all` where there are no splits.

    Raises:
        UserError: If the folder is missing or empty or mixes splits with other folders, a class is empty, or a line of
            the CSV is wrong.
    """
    path = path.expanduser().absolute()
    if path.suffix.lower() == ".csv":
        return _from_manifest(path)
    if not path.is_dir():
        raise UserError(f"There is no folder {path}.", "Give a folder of class folders, or a CSV of path,label.")
    if (path / MANIFEST).is_file():
        return _from_manifest(path / MANIFEST)
    folders = _subfolders(path)
    others = [folder.name for folder in folders if folder.name.lower() not in SPLIT_NAMES]
    if folders and not others:
        return _from_splits(path, folders)
    if len(folders) - len(others) > 1:  # just one may be a class, such as `train` beside `bus`
        raise UserError(f"{path} has split folders and the folder '{others[0]}'.", f"Move '{others[0]}' elsewhere.")
    classes = tuple(folder.name for folder in folders)
    return classes, {"all": _from_classes(path, path, classes)}


def _from_splits(path: Path, folders: list[Path]) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    classes = tuple(sorted({child.name for folder in folders for child in _subfolders(folder)}))
    pools: dict[str, ImageSet] = {}
    for folder in folders:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in pools:
            raise UserError(f"{path} has two folders for the split '{split}'.", "Keep one of them.")
        pools[split] = _from_classes(path, folder, classes)
    return classes, pools


def _from_classes(root: Path, folder: Path, classes: tuple[str, ...]) -> FileImages:
    """The images of one folder of class folders, with paths from `root`; a split may lack some of the classes."""
    present = {child.name for child in _subfolders(folder)}
    if not present:
        raise UserError(f"{folder} has no class folders.", "Put the images of each class in a folder of its own.")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = _images_below(folder / name) if name in present else []
        if name in present and not images:
            raise UserError(
                f"The class folder {folder / name} has no images.",
                f"Add some ({', '.join(sorted(SUFFIXES))}) or remove it.",
            )
        paths += [image.relative_to(root).as_posix() for image in images]
        labels += [label] * len(images)
    return FileImages(root, paths, np.array(labels))


def _from_manifest(path: Path) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    table = _read_manifest(path)
    classes = tuple(sorted(table["label"].unique()))
    table["index"] = table["label"].map({name: index for index, name in enumerate(classes)})
    pools: dict[str, ImageSet] = {}
    for split, rows in table.groupby("split", sort=False):
        pools[str(split)] = FileImages(path.parent, list(rows["path"]), rows["index"].to_numpy(dtype=np.int64))
    return classes, pools


def _read_manifest(path: Path) -> pd.DataFrame:
    """The columns path, label and split, free of errors; split is `all` where the CSV has none."""
    columns = "It needs the columns path,label[,split]."
    try:
        # Blank lines are kept at first, so that row 0 of the table is line 2 of the file.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, skip_blank_lines=False)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {str(error).strip().rstrip('.')}.", columns) from error
    if lacking := [column for column in ("path", "label") if column not in table.columns]:
        raise UserError(f"{path} has no column '{lacking[0]}'.", columns)
    if not isinstance(table.index, pd.RangeIndex):  # what pandas makes of lines longer than the header
        raise UserError(f"{path} has more values in a line than columns.", 'Put a path with commas in "quotes".')
    if "split" not in table.columns:
        table["split"] = ""
    table = table[["path", "label", "split"]].apply(lambda column: column.str.strip())
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise UserError(f"{path} has no rows.", columns)
    return _checked(table, path)


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Give the splits their names in bob; fail at the first line that is wrong."""
    has_splits = bool((table["split"] != "").any())
    seen: dict[str, int] = {}
    rows = zip(*(table[column].tolist() for column in ("path", "label", "split")), strict=True)
    for line, (image, label, split) in zip((table.index + 2).tolist(), rows, strict=True):
        where, name = f"{path}, line {line}:", os.path.normpath(image)
        if not (path.parent / image).is_file():
            there = f"there is no file {path.parent / image}."
            raise UserError(f"{where} {there}", "Correct the path (relative to the CSV) or remove the line.")
        if not label:
            raise UserError(f"{where} {image} has no label.", "Add it or remove the line.")
        if has_splits and split.lower() not in SPLIT_NAMES:
            raise UserError(f"{where} unknown split '{split}'.", "Use train, val or test.")
        if name in seen:
            raise UserError(f"{where} {image} is on line {seen[name]} already.", "Remove one of the lines.")
        seen[name] = line
    return table.assign(split=table["split"].str.lower().map(SPLIT_NAMES) if has_splits else "all")


def _subfolders(folder: Path) -> list[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        _refuse(error)
    return [child for child in children if child.is_dir() and not child.name.startswith(".")]


def _images_below(folder: Path) -> list[Path]:
    """The images in a folder and below it, through links too, sorted; nothing hidden."""
    found: list[Path] = []
    walked: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        # A link to a folder above would lead round for ever.
        is_new = (real := os.path.realpath(here)) not in walked
        walked.add(real)
        folders[:] = sorted(name for name in folders if is_new and not name.startswith("."))
        visible = (Path(here, name) for name in files if is_new and not name.startswith("."))
        found += [path for path in visible if path.suffix.lower() in SUFFIXES]
    for path in found:
        _require_utf8(path)
    return sorted(found)


def _require_utf8(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"The file name {os.fsencode(path)!r} is not UTF-8.", "Rename the file.") from error


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"Cannot list {error.filename}: {error.strerror}.", "Correct its permissions.") from error
