"""Which file is which image, and what it shows, in the torchvision data sets that keep this in ways of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bob.errors import UserError

# Attributes under which data sets that lie in image files keep the paths. They open each with PIL as RGB.
_FILE_ATTRIBUTES = ("_image_files", "_images", "_samples", "samples", "imgs")


class Listing(NamedTuple):
    """The images of a data set that lies in files.

    Attributes:
        paths: N paths.
        labels: N classes; None for wherever the data set has them.
        classes: Class names; None likewise.
    """

    paths: list[Path]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None


def listing(dataset: Any) -> Listing | None:
    """Return what files a data set reads, in an order that is the same on every machine; None if they are unknown.

    Raises:
        UserError: If its options ask for labels that are no classes.
    """
    own = _OWN.get(type(dataset).__name__)
    if own is not None:
        return own(dataset)
    for attribute in _FILE_ATTRIBUTES:
        entries = getattr(dataset, attribute, None) or []
        paths = [entry[0] if isinstance(entry, (tuple, list)) else entry for entry in entries]
        if paths and len(paths) == len(dataset) and all(isinstance(path, (str, Path)) for path in paths):
            return Listing([Path(path) for path in paths])
    return None


def _inaturalist(dataset: Any) -> Listing:
    """Files as the folders hold them, sorted: torchvision takes them as the disk lists them."""
    if len(dataset.target_type) != 1:
        raise UserError("torchvision's INaturalist has one class an image for one target_type only.", "Give just one.")
    kind = dataset.target_type[0]
    entries = sorted(dataset.index, key=lambda entry: (dataset.all_categories[entry[0]], entry[1]))
    paths = [Path(dataset.root, dataset.all_categories[category], name) for category, name in entries]
    labels = np.array([category for category, _ in entries], dtype=np.int64)
    if kind == "full":
        return Listing(paths, labels, _species(dataset.all_categories))
    higher = np.array([categories[kind] for categories in dataset.categories_map], dtype=np.int64)
    names = sorted(dataset.categories_index[kind], key=dataset.categories_index[kind].__getitem__)
    return Listing(paths, higher[labels], tuple(names))


def _species(folders: list[str]) -> tuple[str, ...]:
    """Genus and epithet, from folders of 2021 such as `00000_Animalia_..._Lumbricus_terrestris`; else the folders."""
    short = tuple(" ".join(folder.split("_")[-2:]) for folder in folders if folder.count("_") == 7)
    return short if len(set(short)) == len(folders) else tuple(folders)


def _caltech101(dataset: Any) -> Listing:
    folder = Path(dataset.root, "101_ObjectCategories")
    names = [f"{dataset.categories[y]}/image_{n:04d}.jpg" for y, n in zip(dataset.y, dataset.index, strict=True)]
    return Listing([folder / name for name in names], np.array(dataset.y), tuple(dataset.categories))


def _caltech256(dataset: Any) -> Listing:
    folder = Path(dataset.root, "256_ObjectCategories")
    names = [f"{dataset.categories[y]}/{y + 1:03d}_{n:04d}.jpg" for y, n in zip(dataset.y, dataset.index, strict=True)]
    return Listing([folder / name for name in names], np.array(dataset.y), tuple(dataset.categories))


def _sun397(dataset: Any) -> Listing:
    """Files sorted: torchvision takes them as the disk lists them."""
    pairs = sorted(zip(dataset._image_files, dataset._labels, strict=True), key=lambda pair: Path(pair[0]).as_posix())
    return Listing([Path(path) for path, _ in pairs], np.array([label for _, label in pairs]), tuple(dataset.classes))


_OWN: dict[str, Callable[[Any], Listing]] = {
    "INaturalist": _inaturalist,
    "Caltech101": _caltech101,
    "Caltech256": _caltech256,
    "SUN397": _sun397,
}
