"""COCO's panoptic annotations as semantic segmentation: every pixel has the category of its segment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bob.data.annotations import Problem, refuse
from bob.data.base import ImageSet
from bob.data.mask_files import decode_rgb_ids
from bob.data.objects import IGNORE
from bob.data.segmentation import UNKNOWN, Pairs, SegmentationImages, read_pairs, sound
from bob.data.split_paths import SplitPath, split_paths
from bob.errors import UserError
from bob.task_cards import DataSpec

_VOID = 0  # a pixel of no segment
_NEEDED = "It should be COCO's panoptic JSON: images, annotations with segments_info, and categories."


@dataclass(frozen=True)
class Segments:
    """The legend of panoptic PNGs, each of its own.

    Attributes:
        count: Number of classes.
        of: Name of a PNG -> (k,) int64 its segments' ids, rising and with `_VOID`, and (k,) int16 their classes.
    """

    count: int
    of: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def classes(self, mask: str, numbers: np.ndarray) -> np.ndarray:
        """See `Legend.classes`."""
        ids, labels = self.of[mask]
        places = np.minimum(np.searchsorted(ids, numbers), len(ids) - 1)
        return np.where(ids[places] == numbers, labels[places], np.int16(UNKNOWN))

    def complaint(self, number: int, pixels: int) -> tuple[str, str]:
        """See `Legend.complaint`."""
        return f"segment {number}", f"{pixels:,} pixels have this id, but segments_info has not"

    def digest(self, mask: str) -> bytes:
        """See `Legend.digest`."""
        ids, labels = self.of[mask]
        return bytes(ids.tobytes() + labels.tobytes())


@dataclass(frozen=True)
class _Annotations:
    """One JSON, and where its images and PNGs lie."""

    images: SplitPath
    masks: SplitPath
    file: Path
    content: dict[str, Any]


def load_panoptic(name: str, root: Path, spec: DataSpec) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read `panoptic:IMAGES:PNGS:ANNOTATIONS.json`; a segment's id is R + 256 G + 65536 B of its pixels in the PNG.

    Classes are the categories, things and stuff, in the order of their ids. Crowds count as their category; pixels of
    no segment (id 0) count for nothing.

    Args:
        name: `IMAGES:PNGS:ANNOTATIONS.json`, below the data root; `{split}` in all stands for the name of a split.
        root: The data root.
        spec: The task card's `[data]`.

    Returns:
        Class names, and the image set of each split; one set named `all` without `{split}`.

    Raises:
        UserError: If a file is missing or not COCO's, or splits have different categories; unless the card drops them,
            on bad annotations: an image or PNG that is missing, unreadable or of another size, a segment of an unknown
            category or with an id that is in only one of PNG and JSON.

    Source: Kirillov et al. 2019, arXiv 1801.00868; https://cocodataset.org/#format-data.
    """
    parts = name.split(":")
    if len(parts) != 3 or not all(parts):
        raise UserError(f"'{spec.source}' does not name three paths.", "Write panoptic:IMAGES:PNGS:ANNOTATIONS.json.")
    found = {
        split: _Annotations(images, masks, file.path, _read(file.path))
        for split, (images, masks, file) in split_paths(parts, root, spec).items()
    }
    categories = {split: _categories(part) for split, part in found.items()}
    first = next(iter(categories.values()))
    if other := next((split for split, own in categories.items() if own != first), None):
        raise UserError(f"{found[other].file} has other categories than {next(iter(found))}.", "Use files of one set.")
    pools = {split: _images(part, list(first)) for split, part in found.items()}
    refuse([problem for images in pools.values() for problem in images.problems], spec)
    return tuple(first.values()), dict(pools)


def _images(part: _Annotations, categories: Sequence[int]) -> SegmentationImages:
    """The images of one JSON whose annotations are sound."""
    pairs, legend = _pairs(part, {category: label for label, category in enumerate(categories)})
    return sound(*read_pairs(pairs, decode_rgb_ids), decode_rgb_ids, legend)


def _pairs(part: _Annotations, labels: Mapping[int, int]) -> tuple[Pairs, Segments]:
    """Images with one annotation each, in the order of the JSON."""
    file, images = str(part.file), {image["id"]: image["file_name"] for image in part.content["images"]}
    problems = [
        Problem(file, f"image {image}", f"it is listed {times} times")
        for image, times in Counter(image["id"] for image in part.content["images"]).items()
        if times > 1
    ]
    names: list[tuple[str, str]] = []
    of: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    annotated: set[int] = set()
    for annotation in part.content["annotations"]:
        image, mask = annotation["image_id"], annotation["file_name"]
        wrong = _wrong(annotation, images, annotated, labels)
        annotated.add(image)
        problems += [Problem(file, which, what) for which, what in wrong]
        if not wrong:
            names.append((_below(part.images, images[image]), _below(part.masks, mask)))
            of[names[-1][1]] = _legend(annotation["segments_info"], labels)
    problems += [Problem(file, f"image {image}", "it has no annotation") for image in images if image not in annotated]
    return Pairs(part.images.base, part.masks.base, names, problems), Segments(len(labels), of)


def _wrong(
    annotation: Mapping[str, Any], images: Mapping[int, str], annotated: set[int], labels: Mapping[int, int]
) -> list[tuple[str, str]]:
    """Which part of an annotation is wrong, and what about it."""
    image = annotation["image_id"]
    if image not in images:
        return [(f"annotation {annotation['file_name']}", f"there is no image {image}")]
    if image in annotated:
        return [(f"image {image}", "it has a second annotation")]
    times = Counter(segment["id"] for segment in annotation["segments_info"])
    wrong = [
        (f"segment {segment} of image {image}", f"it is listed {n} times") for segment, n in times.items() if n > 1
    ]
    return wrong + [
        (f"segment {segment['id']} of image {image}", f"there is no category {segment['category_id']}")
        for segment in annotation["segments_info"]
        if segment["category_id"] not in labels
    ]


def _legend(segments: Sequence[Mapping[str, Any]], labels: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    meant = {_VOID: IGNORE, **{segment["id"]: labels[segment["category_id"]] for segment in segments}}
    ids = np.array(sorted(meant), dtype=np.int64)
    return ids, np.array([meant[segment] for segment in sorted(meant)], dtype=np.int16)


def _below(folder: SplitPath, name: str) -> str:
    """A file's name as it is told, from what all splits share."""
    return (folder.path / name).relative_to(folder.base).as_posix()


def _categories(part: _Annotations) -> dict[int, str]:
    """Id -> name, in the order of the ids."""
    return {entry["id"]: entry["name"] for entry in sorted(part.content["categories"], key=lambda entry: entry["id"])}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", _NEEDED) from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}.", _NEEDED) from error
    keys = {
        "images": ("id", "file_name"),
        "annotations": ("image_id", "file_name", "segments_info"),
        "categories": ("id", "name"),
    }
    for table, wanted in keys.items():
        rows = content.get(table) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise UserError(f"{path} has no list '{table}'.", _NEEDED)
        for number, row in enumerate(rows):
            if lacking := [key for key in wanted if not isinstance(row, dict) or key not in row]:
                raise UserError(f"{path}: entry {number} of '{table}' has no '{lacking[0]}'.", _NEEDED)
    return dict(content)
