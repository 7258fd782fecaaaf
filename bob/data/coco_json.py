"""One COCO annotation file as flat columns, so that reading it takes little more memory than its text."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bob.data.annotations import Problem
from bob.data.ragged import Segments, SegmentsBuilder
from bob.errors import UserError, first_line

_FORM = "A COCO annotation file is an object with the lists images, annotations and categories."
# What stands for an annotation in the parsed document once it is in the columns.
_TAKEN = object()
_LEAST_COORDINATES = 6


class ImageRow(NamedTuple):
    """One entry of `images`; None for what it does not say."""

    id: int
    file_name: str
    height: int | None
    width: int | None
    negatives: tuple[int, ...] | None
    partial: tuple[int, ...]


@dataclass(eq=False)
class CocoFile:
    """What one file says: N images, M annotations with a row in each column.

    Attributes:
        path: The file.
        categories: Number of each category -> its name, ascending.
        images: The images.
        keys: (M, 3) int64: number of the annotation, of its image and of its category.
        numbers: (M, 5) float64: left, top, width, height, area.
        crowd: (M,) bool.
        mask_sizes: (M, 2) int64, height and width that run lengths are made for; zero for other masks.
        segments: M masks, some or all of which may be missing.
        faults: Entries that are in no column: their category, if known, and what is wrong with them.
    """

    path: Path
    categories: Mapping[int, str]
    images: list[ImageRow]
    keys: np.ndarray
    numbers: np.ndarray
    crowd: np.ndarray
    mask_sizes: np.ndarray
    segments: Segments
    faults: list[tuple[int | None, Problem]] = field(default_factory=list)


def read_coco(path: Path) -> CocoFile:
    """Read a COCO or LVIS annotation file.

    Raises:
        UserError: If it cannot be read, is no such file, or has no annotations, as those of withheld test sets.
    """
    columns = _Columns(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=columns)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Correct the path of the annotations.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({first_line(error)}).", _FORM) from error
    _require_form(document, path)
    if "annotations" not in document:
        raise UserError(
            f"{path} lists images without annotations, as for a test set whose annotations are withheld.",
            "Score on a split that has them: name it in [data] splits of a task card.",
        )
    annotations = document["annotations"]
    if sum(entry is _TAKEN for entry in annotations) != columns.taken:
        raise UserError(f"{path} has annotations outside the list of that name.", _FORM)
    categories = _categories(document["categories"], path)
    for position, entry in enumerate(annotations):
        if entry is not _TAKEN:
            columns.fault("annotation", entry, position, "it has no image_id or no category_id")
    images = []
    for position, entry in enumerate(document["images"]):
        if isinstance(entry, ImageRow):
            images.append(entry)
        else:
            columns.fault(
                "image", entry, position, "its id, file_name (or coco_url) or lists of categories are of a wrong type"
            )
    return columns.build(categories, images)


def _require_form(document: Any, path: Path) -> None:
    if not isinstance(document, dict):
        raise UserError(f"{path} is no COCO annotation file: its top level is a {type(document).__name__}.", _FORM)
    for name in ("images", "categories", "annotations"):
        if not isinstance(document.get(name, []), list) or (name != "annotations" and name not in document):
            raise UserError(f"{path} is no COCO annotation file: it has no list '{name}'.", _FORM)


def _categories(entries: list[Any], path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    by_name: dict[str, int] = {}
    for position, entry in enumerate(entries):
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(number) is not int or not isinstance(name, str):
            raise UserError(f"{path}: category {position} of the list has no whole-number id or no name.", _FORM)
        if number in found:
            raise UserError(f"{path}: the id {number} is of two categories.", "Give one another id.")
        if name in by_name:
            raise UserError(f"{path}: categories {by_name[name]} and {number} are both '{name}'.", "Rename one.")
        found[number] = name
        by_name[name] = number
    return dict(sorted(found.items()))


class _Columns:
    """Takes each object of the document as soon as it is parsed; what goes into a column is not kept besides."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken = 0
        self._keys, self._numbers, self._crowd, self._mask_sizes = array("q"), array("d"), array("b"), array("q")
        self._segments = SegmentsBuilder()
        self._faults: list[tuple[int | None, Problem]] = []

    def __call__(self, entry: dict[str, Any]) -> Any:
        if "image_id" in entry and "category_id" in entry:
            self.taken += 1
            what = self._take(entry)
            if what:
                self.fault("annotation", entry, self.taken - 1, what)
            return _TAKEN
        if "id" in entry and ("file_name" in entry or "coco_url" in entry):
            return _image_row(entry) or entry
        return entry

    def fault(self, kind: str, entry: Any, position: int, what: str) -> None:
        """Note an entry that is in no column."""
        number, category = (entry.get("id"), entry.get("category_id")) if isinstance(entry, dict) else (None, None)
        which = f"{kind} {number}" if number is not None else f"{kind} at position {position} of the list"
        category = category if type(category) is int else None
        self._faults.append((category, Problem(str(self.path), which, what)))

    def _take(self, entry: dict[str, Any]) -> str:
        """Put an annotation into the columns, or say what is wrong with it."""
        keys = entry.get("id"), entry["image_id"], entry["category_id"]
        if not type(keys[0]) is type(keys[1]) is type(keys[2]) is int:
            return "id, image_id and category_id are not all whole numbers"
        try:
            box = array("d", entry.get("bbox"))  # type: ignore[arg-type]
            area = entry.get("area")
            box.append(box[2] * box[3] if area is None else area)
            row = array("q", keys)
        except (TypeError, OverflowError, IndexError):
            return "bbox is not four numbers, or area no number"
        if len(box) != 5:
            return "bbox is not four numbers"
        size, what = self._take_mask(entry.get("segmentation"))
        if what:
            return what
        self._keys += row
        self._numbers += box
        self._mask_sizes.extend(size)
        self._crowd.append(1 if entry.get("iscrowd") else 0)
        return ""

    def _take_mask(self, given: Any) -> tuple[tuple[int, int], str]:
        """Add a mask; return the size that it is made for (zero if it does not say), or what is wrong with it."""
        if not given:
            self._segments.add()
        elif isinstance(given, dict):
            return self._take_run_lengths(given)
        else:
            try:
                polygons = [array("d", polygon) for polygon in given]
            except (TypeError, OverflowError):
                return (0, 0), "segmentation is neither polygons nor run lengths"
            if any(len(polygon) < _LEAST_COORDINATES or len(polygon) % 2 for polygon in polygons):
                return (0, 0), "segmentation has a polygon of fewer than three points, or of half a point"
            self._segments.add(polygons)
        return (0, 0), ""

    def _take_run_lengths(self, given: dict[str, Any]) -> tuple[tuple[int, int], str]:
        from faster_coco_eval.core import mask as coco_mask

        counts, size = given.get("counts"), given.get("size")
        if not (isinstance(size, list) and len(size) == 2 and all(type(edge) is int and edge > 0 for edge in size)):
            return (0, 0), "segmentation has run lengths without a size"
        if isinstance(counts, list):
            if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != size[0] * size[1]:
                return (0, 0), f"run lengths do not add up to {size[0]}x{size[1]} pixels"
            packed = coco_mask.frPyObjects({"counts": counts, "size": size}, *size)["counts"]
        else:
            packed = counts.encode("ascii", "replace") if isinstance(counts, str) else b""
            if covered(packed) != size[0] * size[1]:
                return (0, 0), f"run lengths do not add up to {size[0]}x{size[1]} pixels"
        self._segments.add(counts=packed)
        return (size[0], size[1]), ""

    def build(self, categories: Mapping[int, str], images: list[ImageRow]) -> CocoFile:
        """What was taken."""
        return CocoFile(
            self.path,
            categories,
            images,
            np.frombuffer(self._keys, dtype=np.int64).reshape(-1, 3),
            np.frombuffer(self._numbers, dtype=np.float64).reshape(-1, 5),
            np.frombuffer(self._crowd, dtype=np.int8).astype(bool),
            np.frombuffer(self._mask_sizes, dtype=np.int64).reshape(-1, 2),
            self._segments.build(),
            self._faults,
        )


def _image_row(entry: dict[str, Any]) -> ImageRow | None:
    number, name = entry["id"], entry.get("file_name") or _end_of(entry.get("coco_url"))
    negatives, partial = entry.get("neg_category_ids"), entry.get("not_exhaustive_category_ids")
    if type(number) is not int or abs(number) >= 2**63 or not isinstance(name, str):
        return None
    if not all(isinstance(numbers, list | None) for numbers in (negatives, partial)):
        return None
    height, width = (edge if type(edge) is int and edge > 0 else None for edge in map(entry.get, ("height", "width")))
    known = None if negatives is None else tuple(negatives)
    return ImageRow(number, name.replace("\\", "/"), height, width, known, tuple(partial or ()))


def _end_of(url: Any) -> str | None:
    """LVIS says where an image lies by its address alone: `http://.../train2017/000000391895.jpg`."""
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else None


def covered(counts: bytes) -> int:
    """Return the number of pixels that compressed run lengths speak of, or -1 if they are malformed.

    Each run is written in groups of five bits, lowest first, as a character from `0` on: bit 5 says that more follow,
    bit 4 of the last is the sign. From the fourth run on it is the difference to the last but one.

    Source: Lin et al. 2014, arXiv 1405.0312, whose cocoapi defines the format (common/maskApi.c, rleToString).
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return -1
    last = np.flatnonzero(~codes & 32)
    first = np.concatenate([[0], last[:-1] + 1])
    digits = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    if digits.max() > 6:  # more than 32 bits, which no image needs
        return -1
    runs = np.add.reduceat((codes & 31) << (5 * digits), first)
    runs -= np.where(codes[last] & 16, 1 << (5 * (last - first + 1)), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return int(runs.sum()) if runs.min() >= 0 else -1
