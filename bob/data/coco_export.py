"""Any set of images with objects as one COCO annotation file, for libraries that read nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bob.data.base import ImageSet
from bob.data.objects import Objects
from bob.errors import UserError

_DESCRIPTION = "Converted by bob: boxes count from 0, masks are compressed run lengths."


def to_coco_json(
    images: ImageSet, indices: Sequence[int] | np.ndarray | None = None, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what a COCO annotation file says, ready for `json.dumps`.

    Numbers of images and categories are the set's own. Those of annotations are too, unless they repeat or are 0, which
    COCO's evaluation takes for "no match": then they count from 1. Masks become compressed run lengths, so that they
    stay the same to the pixel, and LVIS's lists of absent and partly annotated categories are kept.

    Args:
        images: A detection set, or several joined.
        indices: The images that count, in order; all if None.
        classes: Class names, as `Dataset.classes`; the set's own if None.

    Raises:
        ValueError: If the set has no objects.
        UserError: If two images have one number, as when splits that count from 1 are joined.
    """
    if images.target_kind != "detection":
        raise ValueError(f"Expected `images` to be a detection set, but got {type(images).__name__}.")
    rows = list(range(len(images))) if indices is None else [int(index) for index in indices]
    known: Any = images  # joined and sealed sets hand on what they do not have themselves
    numbers, categories = known.image_ids[rows].tolist(), known.category_ids.tolist()
    names = known.classes if classes is None else classes
    _require_unique(numbers, [images.names[row] for row in rows])
    targets = [images.target(row) for row in rows]
    annotations = [
        entry for number, target in zip(numbers, targets, strict=True) for entry in _entries(target, number, categories)
    ]
    ids = [entry["id"] for entry in annotations]
    if len(set(ids)) < len(ids) or 0 in ids:
        annotations = [{**entry, "id": number} for number, entry in enumerate(annotations, start=1)]
    return {
        "info": {"description": _DESCRIPTION},
        "images": [
            _image(images.names[row], number, target, categories)
            for row, number, target in zip(rows, numbers, targets, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for n, name in zip(categories, names, strict=True)],
    }


def _require_unique(numbers: Sequence[int], names: Sequence[str]) -> None:
    seen: dict[int, str] = {}
    for number, name in zip(numbers, names, strict=True):
        if number in seen:
            raise UserError(f"{seen[number]} and {name} both have the image id {number}.", "Give one another id.")
        seen[number] = name


def _image(name: str, number: int, target: Objects, categories: Sequence[int]) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": number, "file_name": name, "height": target.size[0], "width": target.size[1]}
    if target.negatives is not None:
        entry["neg_category_ids"] = [categories[label] for label in target.negatives]
        entry["not_exhaustive_category_ids"] = [categories[label] for label in target.partial]
    return entry


def _entries(target: Objects, image: int, categories: Sequence[int]) -> list[dict[str, Any]]:
    lengths = target.boxes[:, 2:] - target.boxes[:, :2]
    entries: list[dict[str, Any]] = [
        {
            "id": int(target.ids[row]),
            "image_id": image,
            "category_id": categories[target.labels[row]],
            "bbox": [*target.boxes[row, :2].tolist(), *lengths[row].tolist()],
            "area": float(target.areas[row]),
            "iscrowd": int(target.crowd[row]),
        }
        for row in range(len(target))
    ]
    for entry, rle in zip(entries, target.rles or (), strict=False):
        entry["segmentation"] = {"size": [int(edge) for edge in rle["size"]], "counts": rle["counts"].decode("ascii")}
    return entries
