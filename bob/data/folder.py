"""Any folder of images: class folders, ready-made splits of class folders, or a CSV manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np

from bob.data.base import ImageSet
from bob.data.files import SUFFIXES, FileImages
from bob.data.manifest import SPLIT_NAMES, load_manifest
from bob.errors import UserError

MANIFEST = "manifest.csv"


def load_folder(path: Path, multilabel: bool = False) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read `PATH/CLASS/image`, `PATH/SPLIT/CLASS/image`, or a CSV of path,label[,split][,group].

    Args:
        path: The folder, a CSV, or a folder with a `manifest.csv`.
        multilabel: Read a CSV as one of several labels for each image, even if no line of it has several.

    Returns:
        Class names, and the image set of each split; one set named `all` where there are no splits.

    Raises:
        UserError: If the folder is missing or empty or mixes splits with other folders, a class is empty, or a line of
            the CSV is wrong.
    """
    path = path.expanduser().absolute()
    if path.suffix.lower() == ".csv":
        return load_manifest(path, multilabel)
    if not path.is_dir():
        raise UserError(f"There is no folder {path}.", "Give a folder of class folders, or a CSV of path,label.")
    if (path / MANIFEST).is_file():
        return load_manifest(path / MANIFEST, multilabel)
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
