"""Cityscapes' polygons as detection and instance segmentation data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from bob.data.annotations import Problem, refuse
from bob.data.base import ImageSet
from bob.data.detection import DetectionImages
from bob.data.ragged import SegmentsBuilder
from bob.data.raw_objects import OBJECTS, RawObjects, checked
from bob.data.split_paths import origins
from bob.errors import UserError, did_you_mean, first_line
from bob.task_cards import DataSpec

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
"""The classes that Cityscapes counts single objects of."""

_IMAGE, _POLYGONS, _GROUP = "_leftImg8bit.png", "_gtFine_polygons.json", "group"
_LAYOUT = f"It should hold leftImg8bit/SPLIT/CITY/*{_IMAGE} and gtFine/SPLIT/CITY/*{_POLYGONS}."


def load_cityscapes(name: str, root: Path, spec: DataSpec) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read the fine annotations of the splits `train` and `val` (those of `test` are withheld), or the card's.

    Box and area are those of the polygon's part in the image, outline included; the mask is COCO's filling of it. What
    nearer objects hide of an object belongs to it too, as it was drawn, where Cityscapes' scripts paint it over. A
    label that ends in `group` is a crowd. Images are numbered from 1 in the order of all splits and file names, object
    k of image i is 10,000 i + k.

    Args:
        name: The folder; if relative, below the data root.
        root: The data root.
        spec: The task card's `[data]`; `only` chooses of `CLASSES`.

    Returns:
        Class names, and the image set of each split.

    Raises:
        UserError: If the folder or a split is missing, a split has no object, `only` names no class, or an annotation
            is bad (JSON of another form, a polygon of fewer than three points, and what `checked` says) and the card
            does not say `drop_invalid`.

    Source: Cordts et al. 2016, arXiv 1604.01685; https://github.com/mcordts/cityscapesScripts,
        cityscapesscripts/helpers/labels.py and preparation/json2instanceImg.py.
    """
    folder = root / Path(name).expanduser()
    for wanted in spec.only:
        if wanted not in CLASSES:
            raise UserError(f"Cityscapes counts no objects of '{wanted}'.", did_you_mean(wanted, CLASSES) or _known())
    classes = spec.only or CLASSES
    files = {split: _files(folder, split) for split in _splits(folder, spec)}
    # Numbers do not depend on which splits are asked for.
    everything = sorted((folder / "gtFine").glob(f"*/*/*{_POLYGONS}"))
    ids = {path: number for number, path in enumerate(everything, start=1)}
    pools = {split: _pool(paths, folder, classes, ids) for split, paths in files.items()}
    refuse([problem for pool in pools.values() for problem in pool.problems], spec)
    for split, pool in pools.items():
        if not pool.labels.any():
            raise UserError(
                f"{folder / 'gtFine' / split} has no object of {', '.join(classes)}.", "Name another split."
            )
    return classes, dict(pools)


def _known() -> str:
    return f"It has {', '.join(CLASSES)}."


def _splits(folder: Path, spec: DataSpec) -> Sequence[str]:
    if not (folder / "gtFine").is_dir():
        raise UserError(f"There is no folder {folder / 'gtFine'}.", _LAYOUT)
    found = [split for split in ("train", "val") if (folder / "gtFine" / split).is_dir()]
    if not (origins(spec) or found):
        raise UserError(f"{folder / 'gtFine'} has neither train nor val.", _LAYOUT)
    return origins(spec) or found


def _files(folder: Path, split: str) -> list[Path]:
    paths = sorted((folder / "gtFine" / split).glob(f"*/*{_POLYGONS}"))
    if not paths:
        raise UserError(f"There are no {folder / 'gtFine' / split}/*/*{_POLYGONS}.", _LAYOUT)
    return paths


class _Object(NamedTuple):
    """Object `number` of an image, counted from 1 in its file."""

    position: int
    number: int
    label: int
    crowd: bool
    polygon: np.ndarray
    box: tuple[int, int, int, int]
    area: int


def _pool(paths: Sequence[Path], folder: Path, classes: tuple[str, ...], ids: Mapping[Path, int]) -> DetectionImages:
    problems: list[Problem] = []
    used: list[Path] = []
    stated: list[tuple[int, int]] = []
    found: list[_Object] = []
    for path in paths:
        document = _document(path, problems)
        if document is None:
            continue
        size = document["imgHeight"], document["imgWidth"]
        found += _objects(document["objects"], size, len(used), classes, path, problems)
        used.append(path)
        stated.append(size)
    return checked(_raw(found, used, stated, folder, classes, ids, problems), classes, range(1, len(classes) + 1))


def _document(path: Path, problems: list[Problem]) -> dict[str, Any] | None:
    """A file's content, if it has the form."""
    try:
        document = json.loads(path.read_bytes())
        good = all(type(document[key]) is int and document[key] > 0 for key in ("imgHeight", "imgWidth"))
        if good and isinstance(document["objects"], list):
            return dict(document)
        problems.append(Problem(str(path), "", "imgHeight, imgWidth or objects are not what Cityscapes has there"))
    except OSError as error:
        problems.append(Problem(str(path), "", f"it cannot be read ({error.strerror})"))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        problems.append(Problem(str(path), "", f"it is no polygon file of Cityscapes ({first_line(error)})"))
    return None


def _objects(
    entries: Sequence[Any],
    size: tuple[int, int],
    position: int,
    classes: tuple[str, ...],
    path: Path,
    problems: list[Problem],
) -> Iterator[_Object]:
    for number, entry in enumerate(entries, start=1):
        label = entry.get("label") if isinstance(entry, dict) else None
        if not isinstance(label, str):
            problems.append(Problem(str(path), f"object {number}", "it has no label"))
            continue
        name = label.removesuffix(_GROUP)
        if name not in classes or entry.get("deleted"):
            continue
        polygon = _polygon(entry.get("polygon"))
        if polygon is None:
            what = "its polygon is not three or more points of two finite numbers"
            problems.append(Problem(str(path), f"object {number} ({label})", what))
            continue
        box = _box(polygon, size)
        yield _Object(position, number, classes.index(name), name != label, polygon, box, _area(polygon, box))


def _polygon(points: Any) -> np.ndarray | None:
    """(n, 2) float64, x and y."""
    try:
        polygon = np.array(points, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    good = polygon.ndim == 2 and polygon.shape[0] >= 3 and polygon.shape[1] == 2 and np.isfinite(polygon).all()
    return polygon if good else None


def _box(polygon: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of the part inside the image; polygons may go on beyond it."""
    limits = (size[1], size[0])
    low, high = np.floor(polygon.min(axis=0)), np.floor(polygon.max(axis=0)) + 1
    (x0, y0), (x1, y1) = (np.clip(corner, 0, limits).astype(int).tolist() for corner in (low, high))
    return x0, y0, x1, y1


def _area(polygon: np.ndarray, box: tuple[int, int, int, int]) -> int:
    """Pixels of the polygon in its box, as PIL draws it; so do Cityscapes' scripts."""
    width, height = box[2] - box[0], box[3] - box[1]
    if width <= 0 or height <= 0:
        return 0
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in (polygon - box[:2]).tolist()], fill=1)
    return int(np.asarray(canvas).sum())


def _raw(
    found: Sequence[_Object],
    used: Sequence[Path],
    stated: Sequence[tuple[int, int]],
    folder: Path,
    classes: tuple[str, ...],
    ids: Mapping[Path, int],
    problems: list[Problem],
) -> RawObjects:
    segments = SegmentsBuilder()
    for one in found:
        # A point names a pixel: its middle is half a pixel further.
        segments.add([(one.polygon + 0.5).ravel().tolist()])
    images = [_image_of(path, folder) for path in used]
    return RawObjects(
        folder / "leftImg8bit",
        images,
        np.array([ids[path] for path in used], dtype=np.int64),
        np.array(stated, dtype=np.int64).reshape(-1, 2),
        np.array([ids[used[one.position]] * OBJECTS + one.number for one in found], dtype=np.int64),
        np.array([one.position for one in found], dtype=np.int64),
        np.array([one.label for one in found], dtype=np.int64),
        np.array([one.box for one in found], dtype=np.float64).reshape(-1, 4),
        np.array([one.area for one in found], dtype=np.float64),
        np.array([one.crowd for one in found], dtype=bool),
        where_image=lambda position: (str(used[position]), ""),
        where=lambda row: (str(used[found[row].position]), f"object {found[row].number} ({classes[found[row].label]})"),
        segments=segments.build(),
        segment=np.arange(len(found)),
        problems=problems,
    )


def _image_of(path: Path, folder: Path) -> str:
    relative = path.relative_to(folder / "gtFine")
    return relative.with_name(relative.name.removesuffix(_POLYGONS) + _IMAGE).as_posix()
