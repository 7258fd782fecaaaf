"""From what an annotation file says to a checked set of images: every reader of objects ends here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bob.data.annotations import Problem
from bob.data.detection import DetectionImages, Federation, ObjectTable
from bob.data.ragged import Ragged, Segments
from bob.data.sizes import file_sizes

OUTSIDE = 1.0
"""Pixels by which a box may reach outside its image: rounding and counting from 1 explain so much, and no more."""

OBJECTS = 10_000
"""Where a format does not number objects, object k of image i (both from 1) is `OBJECTS` i + k."""

Place = Callable[[int], tuple[str, str]]


@dataclass(eq=False)
class RawObjects:
    """What was read of N images and M objects, not yet checked against each other or the images.

    Attributes:
        root: The folder.
        paths: N paths relative to it.
        image_ids: (N,) int64.
        stated: (N, 2) int64, height and width as the annotations have them; zero where they say nothing.
        ids: (M,) int64.
        image: (M,) int64, positions of the objects' images.
        labels: (M,) int64.
        boxes: (M, 4) float64, as in `Objects`.
        areas: (M,) float64.
        crowd: (M,) bool.
        where_image: Position of an image -> the file that says so, and which one in it.
        where: Position of an object -> the same.
        segments: The masks; None where the data have none.
        segment: (M,) int64, which of `segments` is each object's.
        mask_sizes: (M, 2) int64, the size that an object's run lengths are made for; zero for none.
        negatives: For LVIS, N rows of labels; see `Objects`.
        partial: The same.
        problems: What was wrong before.
    """

    root: Path
    paths: Sequence[str]
    image_ids: np.ndarray
    stated: np.ndarray
    ids: np.ndarray
    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    where_image: Place
    where: Place
    segments: Segments | None = None
    segment: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    mask_sizes: np.ndarray | None = None
    negatives: Sequence[Sequence[int]] | None = None
    partial: Sequence[Sequence[int]] = ()
    problems: list[Problem] = field(default_factory=list)


def checked(raw: RawObjects, classes: Sequence[str], category_ids: Sequence[int]) -> DetectionImages:
    """Return the images and objects that can be used; the others are its `problems`.

    An image is left out, with all its objects, if its file is missing or no image, or of another size than the
    annotations say. An object is left out if its box or area is not finite or is empty, if its box reaches more than
    `OUTSIDE` pixels outside the image, or if its mask is for an image of another size, has a coordinate that is no
    number, or is missing where other objects have one.
    """
    sizes, image_faults = _image_faults(raw)
    faults = _object_faults(raw, sizes, image_faults)
    problems = [*raw.problems]
    problems += [Problem(*raw.where_image(position), what) for position, what in sorted(image_faults.items())]
    problems += [Problem(*raw.where(row), what) for row, what in sorted(faults.items())]
    images = _without(len(raw.paths), image_faults)
    rows = _without(len(raw.ids), faults)
    rows = rows[np.isin(raw.image[rows], images)]
    return DetectionImages(
        raw.root,
        [raw.paths[position] for position in images],
        sizes[images],
        raw.image_ids[images],
        category_ids,
        classes,
        _table(raw, images, rows),
        _federation(raw, images),
        problems,
    )


def _image_faults(raw: RawObjects) -> tuple[np.ndarray, dict[int, str]]:
    """Sizes from the files, and what is wrong with images by their position."""
    sizes, unread = file_sizes(raw.root, raw.paths)
    faults = {position: f"{raw.root / raw.paths[position]}: {reason}" for position, reason in unread.items()}
    differs = (raw.stated > 0).all(axis=1) & (raw.stated != sizes).any(axis=1)
    for position in np.flatnonzero(differs).tolist():
        if position not in faults:
            stated, found = _by(raw.stated[position]), _by(sizes[position])
            hint = "; was it turned by its EXIF tag?" if (raw.stated[position][::-1] == sizes[position]).all() else ""
            faults[position] = f"{raw.root / raw.paths[position]} is {found} pixels, not {stated} as annotated{hint}"
    return sizes, faults


def _object_faults(raw: RawObjects, sizes: np.ndarray, image_faults: dict[int, str]) -> dict[int, str]:
    """What is wrong with objects by their position; those of bad images go without a word of their own."""
    own = sizes[raw.image] if len(raw.image) else np.zeros((0, 2), np.int64)
    faults: dict[int, str] = {}

    def note(bad: np.ndarray, tell: Callable[[int], str]) -> None:
        for row in np.flatnonzero(bad).tolist():
            if int(raw.image[row]) not in image_faults:
                faults.setdefault(row, tell(row))

    boxes, (heights, widths) = raw.boxes, own.T
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(raw.areas)
    note(~finite, lambda row: f"its box {_numbers(boxes[row])} or area {raw.areas[row]:g} is not finite")
    flat = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    note(flat, lambda row: f"its box {_numbers(boxes[row])} is empty")
    note(raw.areas <= 0, lambda row: f"its area is {raw.areas[row]:g}")
    outside = (boxes[:, :2] < -OUTSIDE).any(axis=1)
    outside |= (boxes[:, 2] > widths + OUTSIDE) | (boxes[:, 3] > heights + OUTSIDE)
    note(outside, lambda row: f"its box {_numbers(boxes[row])} reaches outside the image of {_by(own[row])} pixels")
    if raw.segments is not None:
        _note_masks(raw, raw.segments, own, note)
    return faults


def _note_masks(
    raw: RawObjects, segments: Segments, own: np.ndarray, note: Callable[[np.ndarray, Callable[[int], str]], None]
) -> None:
    note(~segments.present()[raw.segment], lambda row: "it has no segmentation, while others have one")
    note(np.isin(raw.segment, segments.not_finite()), lambda row: "its polygon has a coordinate that is not finite")
    if raw.mask_sizes is not None:
        made = raw.mask_sizes
        note(
            (made > 0).any(axis=1) & (made != own).any(axis=1),
            lambda row: f"its mask is of {_by(made[row])} pixels, its image of {_by(own[row])}",
        )


def _without(count: int, faults: dict[int, str]) -> np.ndarray:
    keep = np.ones(count, dtype=bool)
    keep[list(faults)] = False
    return np.flatnonzero(keep)


def _table(raw: RawObjects, images: np.ndarray, rows: np.ndarray) -> ObjectTable:
    """The objects at `rows`, those of one image together, in the order of `images`."""
    position = np.searchsorted(images, raw.image[rows])
    order = np.argsort(position, kind="stable")
    rows = rows[order]
    return ObjectTable(
        starts=np.searchsorted(position[order], np.arange(len(images) + 1)),
        boxes=raw.boxes[rows],
        labels=raw.labels[rows].astype(np.int32),
        ids=raw.ids[rows],
        areas=raw.areas[rows],
        crowd=raw.crowd[rows],
        segments=raw.segments,
        segment=np.zeros(0, np.int64) if raw.segments is None else raw.segment[rows],
    )


def _federation(raw: RawObjects, images: np.ndarray) -> Federation | None:
    if raw.negatives is None:
        return None
    negatives, partial = ([rows[position] for position in images] for rows in (raw.negatives, raw.partial))
    return Federation(Ragged.of(negatives), Ragged.of(partial))


def _numbers(box: np.ndarray) -> str:
    return f"({', '.join(f'{value:g}' for value in box)})"


def _by(size: np.ndarray) -> str:
    """Width x height, as people say it."""
    return f"{size[1]}x{size[0]}"
