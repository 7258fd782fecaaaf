"""Any folder of images: class folders, ready-made splits of class folders, or a CSV manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bob.data.base import ImageSet
from bob.data.files import SUFFIXES, FileImages
from bob.errors import UserError

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
MANIFEST = "manifest.csv"


def load_folder(path: Path) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read `PATH/CLASS/image`, `PATH/SPLIT/CLASS/image`, or a CSV of path,label[,split] (PATH or PATH/manifest.csv).

    Returns:
        Class names, and the image set of each split; one set named `all` where there are no splits.

    Raises:
        UserError: If the folder is missing or empty, a class is empty, or the CSV names a file that is not there.
    """
    path = path.expanduser().absolute()
    if path.suffix.lower() == ".csv":
        return _from_manifest(path)
    if not path.is_dir():
        raise UserError(f"The folder {path} does not exist.", "Give a folder of class folders, or a CSV of path,label.")
    if (path / MANIFEST).is_file():
        return _from_manifest(path / MANIFEST)
    folders = _subfolders(path)
    if folders and all(folder.name.lower() in SPLIT_NAMES for folder in folders):
        return _from_splits(path, folders)
    classes, images = _from_classes(path, path, tuple(folder.name for folder in folders))
    return classes, {"all": images}


def _from_splits(path: Path, folders: list[Path]) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    classes = tuple(sorted({child.name for folder in folders for child in _subfolders(folder)}))
    pools: dict[str, ImageSet] = {}
    for folder in folders:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in pools:
            raise UserError(f"{path} has two folders for the split '{split}'.", "Keep one of them.")
        pools[split] = _from_classes(path, folder, classes)[1]
    return classes, pools


def _from_classes(root: Path, folder: Path, classes: tuple[str, ...]) -> tuple[tuple[str, ...], FileImages]:
    if not classes:
        raise UserError(f"{folder} has no class folders.", "Put the images of each class in a folder of its own.")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = _images_below(folder / name)
        if not images:
            raise UserError(
                f"The class folder {folder / name} has no images.",
                f"Add some ({', '.join(sorted(SUFFIXES))}) or remove it.",
            )
        paths += [image.relative_to(root).as_posix() for image in images]
        labels += [label] * len(images)
    return classes, FileImages(root, paths, np.array(labels))


def _from_manifest(path: Path) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    table = _read_manifest(path)
    # Row 0 of the table is line 2 of the file.
    missing = next((row for row, name in enumerate(table["path"]) if not (path.parent / name).is_file()), None)
    if missing is not None:
        raise UserError(
            f"{path}, line {missing + 2}: there is no file {path.parent / table['path'][missing]}.",
            "Correct the path (relative to the CSV) or remove the line.",
        )
    classes = tuple(sorted(table["label"].unique()))
    table["index"] = table["label"].map({name: index for index, name in enumerate(classes)})
    pools: dict[str, ImageSet] = {}
    for split, rows in table.groupby("split", sort=False):
        pools[str(split)] = FileImages(path.parent, list(rows["path"]), rows["index"].to_numpy(dtype=np.int64))
    return classes, pools


def _read_manifest(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {error}.", "Give a CSV with the columns path,label[,split].") from error
    lacking = [column for column in ("path", "label") if column not in table.columns]
    if lacking or table.empty:
        problem = f"has no column '{lacking[0]}'" if lacking else "has no rows"
        raise UserError(f"{path} {problem}.", "It needs the columns path,label[,split].")
    if "split" not in table.columns:
        return table.assign(split="all")
    for row, value in enumerate(table["split"]):
        if value.strip().lower() not in SPLIT_NAMES:
            raise UserError(f"{path}, line {row + 2}: unknown split '{value}'.", "Use train, val or test.")
    return table.assign(split=table["split"].str.strip().str.lower().map(SPLIT_NAMES))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))
