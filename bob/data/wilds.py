"""WILDS: images from cameras, hospitals and years that training does not see, from the folders its package unpacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bob.data.base import ImageSet
from bob.data.files import FileImages
from bob.errors import UserError, did_you_mean


class _Images(NamedTuple):
    """All images of a data set: a row of `table` each, with the columns path, label, group (its name) and split."""

    table: pd.DataFrame
    classes: tuple[str, ...]


def load_wilds(name: str, root: Path) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read `iwildcam` (v2.0), `camelyon17`, `waterbirds` (v1.0) or `fmow` (v1.1), as `wilds.get_dataset` unpacks them.

    The splits are the official ones, by WILDS' names: `train`, the out-of-distribution `val` and `test`, and the
    in-distribution `id_val` and (not for camelyon17) `id_test`. Groups are the domains that WILDS asks about: the
    camera's location, the hospital, and for fmow the region, whose worst accuracy on `test` is its headline number
    (there without the region "Other", here with it where it occurs), and for waterbirds the bird and the background.

    Returns:
        Class names, and the image set of each split.

    Raises:
        UserError: If there is no such data set, its folder is missing, or its table is not the one WILDS gives.

    Source: Koh et al. 2021, arXiv 2012.07421; https://github.com/p-lambda/wilds, wilds/datasets/.
    """
    if name not in _READERS:
        raise UserError(f"bob reads no WILDS data set '{name}'.", did_you_mean(name, _READERS) or _known())
    folder, reader = _READERS[name]
    images = reader(root / folder)
    groups = sorted(images.table["group"].unique(), key=_natural)
    index = images.table["group"].map({group: number for number, group in enumerate(groups)})
    pools: dict[str, ImageSet] = {}
    for split in ("train", "val", "test", "id_val", "id_test"):
        rows = images.table[images.table["split"] == split]
        if len(rows):
            labels, number = rows["label"].to_numpy(np.int64), index.loc[rows.index].to_numpy(np.int64)
            pools[split] = FileImages(root / folder, rows["path"].tolist(), labels, number, groups)
    return images.classes, pools


def _iwildcam(folder: Path) -> _Images:
    metadata = _table(folder, "metadata.csv", ("filename", "y", "location_remapped", "split"), "train/*.jpg")
    labels = _numbers(metadata["y"], folder / "metadata.csv")
    table = pd.DataFrame(
        {
            "path": "train/" + metadata["filename"],
            "label": labels,
            "group": "location " + metadata["location_remapped"],
            "split": metadata["split"],
        }
    )
    return _Images(table, _species(folder, int(labels.max()) + 1))


def _species(folder: Path, count: int) -> tuple[str, ...]:
    """Names of the classes from categories.csv, which has rows for other numbers too."""
    categories = _table(folder, "categories.csv", ("y", "name"), "train/*.jpg")
    named = dict(zip(categories["y"], categories["name"], strict=True))
    if lacking := [label for label in range(count) if str(label) not in named]:
        raise UserError(f"{folder / 'categories.csv'} has no name for class {lacking[0]}.", "Download it again.")
    return tuple(named[str(label)] for label in range(count))


def _camelyon17(folder: Path) -> _Images:
    columns = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
    metadata = _table(folder, "metadata.csv", columns, "patches/patient_*/*.png")
    slide = "patient_" + metadata["patient"] + "_node_" + metadata["node"]
    place = "_x_" + metadata["x_coord"] + "_y_" + metadata["y_coord"]
    # The table divides each hospital's slides by 0 and 1; hospitals 1 and 2 are wholly val and test.
    split, center, tumor = (_numbers(metadata[c], folder / "metadata.csv") for c in ("split", "center", "tumor"))
    names = split.map({0: "train", 1: "id_val"}).mask(center == 1, "val").mask(center == 2, "test")
    table = pd.DataFrame(
        {
            "path": "patches/" + slide + "/patch_" + slide + place + ".png",
            "label": tumor,
            "group": "hospital " + center.astype(str),
            "split": names,
        }
    )
    return _Images(table, ("normal", "tumor"))


def _fmow(folder: Path) -> _Images:
    metadata = _table(folder, "rgb_metadata.csv", ("split", "category", "country_code", "timestamp"), "images/*.png")
    countries = _table(folder, "country_code_mapping.csv", ("alpha-3", "region"), "images/*.png")
    region = metadata["country_code"].map(dict(zip(countries["alpha-3"], countries["region"], strict=True)))
    classes = tuple(sorted(metadata["category"].unique()))
    table = pd.DataFrame(
        {
            "path": [f"images/rgb_img_{row}.png" for row in range(len(metadata))],
            "label": metadata["category"].map({category: label for label, category in enumerate(classes)}),
            "group": region.fillna("").replace("", "Other"),
            "split": _by_year(metadata),
        }
    )
    # Sequestered images (`seq`) are in the table and belong to no split.
    return _Images(table, classes)


def _waterbirds(folder: Path) -> _Images:
    metadata = _table(folder, "metadata.csv", ("img_filename", "y", "split", "place"), "SPECIES/*.jpg")
    columns = {name: _numbers(metadata[name], folder / "metadata.csv") for name in ("y", "place", "split")}
    for name, largest in {"y": 1, "place": 1, "split": 2}.items():
        if not columns[name].between(0, largest).all():
            problem = f"{folder / 'metadata.csv'}: the column '{name}' has values other than 0 to {largest}."
            raise UserError(problem, "Download it again.")
    birds, grounds = np.array(["landbird", "waterbird"]), np.array(["land", "water"])
    table = pd.DataFrame(
        {
            "path": metadata["img_filename"],
            "label": columns["y"],
            "group": pd.Series(birds[columns["y"]]) + " on " + grounds[columns["place"]],
            "split": columns["split"].map({0: "train", 1: "val", 2: "test"}),
        }
    )
    return _Images(table, tuple(birds.tolist()))


def _by_year(metadata: pd.DataFrame) -> pd.Series:
    """Official split `time_after_2016`: ID before 2013, val from 2013, test from 2016 on; the rest is left out."""
    taken = pd.to_datetime(metadata["timestamp"], utc=True, format="ISO8601")
    since_2013, since_2016 = taken >= pd.Timestamp("2013", tz="UTC"), taken >= pd.Timestamp("2016", tz="UTC")
    split = metadata["split"].where(~since_2013, "").replace({"val": "id_val", "test": "id_test"})
    split = split.mask((metadata["split"] == "val") & since_2013 & ~since_2016, "val")
    return split.mask((metadata["split"] == "test") & since_2016, "test")


def _table(folder: Path, name: str, columns: tuple[str, ...], images: str) -> pd.DataFrame:
    """A CSV of the data set, all values as text."""
    layout = f"It should hold {name} and {images}"
    unpack = f"""as `wilds.get_dataset("{folder.name.partition("_")[0]}", root_dir="{folder.parent}", download=True)`"""
    remedy = f"{layout}, {unpack} of the wilds package unpacks them."
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.", remedy)
    try:
        table = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {folder / name}: {str(error).strip().rstrip('.')}.", remedy) from error
    if lacking := [column for column in columns if column not in table.columns]:
        raise UserError(f"{folder / name} has no column '{lacking[0]}'.", remedy)
    if table.empty:
        raise UserError(f"{folder / name} has no rows.", remedy)
    return table


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    try:
        return pd.to_numeric(column).astype(np.int64)
    except ValueError as error:
        raise UserError(f"{path}: the column '{column.name}' has {error}.", "Download it again.") from error


def _natural(name: str) -> tuple[str, int]:
    """Sorts `location 9` before `location 10`."""
    words, _, number = name.rpartition(" ")
    return (words, int(number)) if number.isdigit() else (name, 0)


def _known() -> str:
    return f"It reads {', '.join(_READERS)}."


_READERS: Mapping[str, tuple[str, Callable[[Path], _Images]]] = {
    "iwildcam": ("iwildcam_v2.0", _iwildcam),
    "camelyon17": ("camelyon17_v1.0", _camelyon17),
    "fmow": ("fmow_v1.1", _fmow),
    "waterbirds": ("waterbirds_v1.0", _waterbirds),
}
