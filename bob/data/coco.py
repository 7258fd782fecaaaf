"""COCO's and LVIS's annotation files with their images, as detection and instance segmentation data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bob.data.annotations import Problem, refuse
from bob.data.base import ImageSet
from bob.data.coco_json import CocoFile, ImageRow, read_coco
from bob.data.detection import DetectionImages
from bob.data.manifest import SPLIT_NAMES
from bob.data.raw_objects import RawObjects, checked
from bob.data.split_paths import FIELD, origins
from bob.errors import UserError, did_you_mean
from bob.task_cards import DataSpec

_FORM = "Write coco:IMAGES:ANNOTATIONS.json, where {split} may stand for the name of each split."


def load_coco(name: str, root: Path, spec: DataSpec) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Read `IMAGES:ANNOTATIONS.json`, a folder of images and a COCO or LVIS annotation file.

    With `{split}` in the annotations' path (and in the images' or not) each split has a file of its own, and the splits
    are those of the card's `splits`, or those on disk, where `train2017` is `train`. Classes are the categories by
    ascending id, or `only` some of them in the card's order. Images that are listed without annotations belong to the
    set. Boxes are the file's `bbox`, areas its `area` (the box's where it is missing), `iscrowd` marks what to ignore.

    Of images the headers are read here, and remembered: a missing file, or a size other than the annotations', is a bad
    annotation like the others in `checked` and `read_coco`. The whole content is `bob data verify`'s to read.

    Args:
        name: Both paths, joined by a colon; relative ones are below the data root.
        root: The data root.
        spec: The task card's `[data]`.

    Returns:
        Class names, and the image set of each split; one set named `all` where there are no splits.

    Raises:
        UserError: If a path is not there, a file is no COCO annotation file or has no annotations (a withheld test
            set), splits have other categories, there is no category of `only`, or an annotation is bad and the card
            does not say `drop_invalid`.

    Source: https://cocodataset.org/#format-data; Gupta et al. 2019, arXiv 1908.03195, and
        https://www.lvisdataset.org/dataset for `neg_category_ids` and `not_exhaustive_category_ids`.
    """
    patterns = name.split(":")
    if len(patterns) != 2 or not all(patterns):
        raise UserError(f"'{spec.source}' does not name images and annotations.", _FORM)
    sources = _sources(patterns[0], patterns[1], root, spec)
    files = {split: read_coco(source.annotations) for split, source in sources.items()}
    categories = chosen(files, spec)
    masked = any(bool(file.segments.present().any()) for file in files.values())
    pools: dict[str, DetectionImages] = {}
    for split, source in sources.items():
        # A file's columns are let go once they are in the set.
        pools[split] = _pool(files.pop(split), source, categories, masked)
    refuse([problem for pool in pools.values() for problem in pool.problems], spec)
    for split, pool in pools.items():
        if not len(pool):
            raise UserError(f"{sources[split].annotations} leaves no image to use.", "Correct the file or the folder.")
    return tuple(categories.values()), dict(pools)


@dataclass(frozen=True)
class _Source:
    """Where one split lies: `base` is the part of the images' path that all splits share."""

    base: Path
    images: Path
    annotations: Path


def _sources(images: str, annotations: str, root: Path, spec: DataSpec) -> dict[str, _Source]:
    if FIELD in images and FIELD not in annotations:
        raise UserError(f"{spec.source} has {FIELD} in its images but not in its annotations.", _FORM)
    if FIELD not in annotations:
        return {"all": _source(images, annotations, "", root)}
    named = {split: split for split in origins(spec)} or _found(annotations, root, spec)
    return {name: _source(images, annotations, split, root) for name, split in named.items()}


def _source(images: str, annotations: str, split: str, root: Path) -> _Source:
    folder, file = (root / Path(part.replace(FIELD, split)).expanduser() for part in (images, annotations))
    if not file.is_file():
        raise UserError(f"There is no annotation file {file}.", "Put it there, or correct the source or its 'splits'.")
    if not folder.is_dir():
        raise UserError(f"There is no folder of images {folder}.", "Put it there, or correct the source.")
    return _Source(_fixed_part(root / Path(images).expanduser()), folder, file)


def _fixed_part(path: Path) -> Path:
    """The folders before the first with `{split}`."""
    return next((folder for folder in (path, *path.parents) if FIELD not in str(folder)), path)


def _found(pattern: str, root: Path, spec: DataSpec) -> dict[str, str]:
    """Our name of a split -> what `{split}` is for it, of all files on disk."""
    whole = root / Path(pattern).expanduser()
    first, *others = map(re.escape, str(whole).split(FIELD))
    shape = re.compile(first + "([^/]+)" + "\\1".join(others))
    anchor = _fixed_part(whole)
    below = str(whole.relative_to(anchor)).replace(FIELD, "*")
    matches = [shape.fullmatch(str(path)) for path in sorted(anchor.glob(below))]
    splits = [match[1] for match in matches if match]
    if not splits:
        raise UserError(f"There is no annotation file {whole}, whatever {FIELD} stands for.", "Correct the source.")
    ours = [split for split in splits if _our_name(split)]
    named: dict[str, str] = {}
    for split in ours or splits:
        known_as = _our_name(split) or split
        if known_as in named:
            raise UserError(
                f"{spec.source} has '{named[known_as]}' and '{split}' for the split '{known_as}'.",
                "Name one of them in [data] splits of a task card.",
            )
        named[known_as] = split
    usual = [name for name in ("train", "val", "test") if name in named]
    return {name: named[name] for name in dict.fromkeys([*usual, *named])}


def _our_name(split: str) -> str:
    """`train2017` -> `train`; empty for what is none of train, val and test."""
    return SPLIT_NAMES.get(re.sub(r"[-_]?\d*$", "", split.lower()), "")


def chosen(files: Mapping[str, CocoFile], spec: DataSpec) -> dict[int, str]:
    """Return number -> name of the categories that count, in the order of the classes.

    Raises:
        UserError: If splits differ in them, or there are none.
    """
    selected = {split: _selected(file, spec.only) for split, file in files.items()}
    (first, reference), *others = selected.items()
    for split, categories in others:
        if list(categories.items()) != list(reference.items()):
            unlike = _unlike(reference, categories)
            raise UserError(
                f"{files[first].path} and {files[split].path} differ in their categories: {unlike}.",
                "All splits need the same ones, with the same ids.",
            )
    if not reference:
        raise UserError(f"{files[first].path} has no categories.", "Add them.")
    return reference


def _selected(file: CocoFile, only: Sequence[str]) -> dict[int, str]:
    if not only:
        return dict(file.categories)
    numbers = {name: number for number, name in file.categories.items()}
    for name in only:
        if name not in numbers:
            raise UserError(f"{file.path} has no category '{name}'.", did_you_mean(name, numbers) or "Correct 'only'.")
    return {numbers[name]: name for name in only}


def _unlike(one: Mapping[int, str], other: Mapping[int, str]) -> str:
    number = next(n for n in [*one, *other] if one.get(n) != other.get(n))
    return f"{number} is {' and '.join(repr(c[number]) if number in c else 'missing' for c in (one, other))}"


def _pool(file: CocoFile, source: _Source, categories: Mapping[int, str], masked: bool) -> DetectionImages:
    problems = [problem for category, problem in file.faults if category is None or _counts(category, categories, file)]
    images = _unique_images(file, problems)
    keys, rows, position = _usable(file, images, categories, problems)
    corners, prefix = file.numbers[rows, :4].copy(), source.images.relative_to(source.base)
    corners[:, 2:] += corners[:, :2]
    label = {number: index for index, number in enumerate(categories)}
    federated = any(image.negatives is not None for image in images)
    place = str(file.path)
    raw = RawObjects(
        source.base,
        [(prefix / image.file_name).as_posix() for image in images],
        np.array([image.id for image in images], dtype=np.int64),
        np.array([(image.height or 0, image.width or 0) for image in images], dtype=np.int64).reshape(-1, 2),
        keys[:, 0],
        position,
        _looked_up(keys[:, 2], label),
        corners,
        file.numbers[rows, 4],
        file.crowd[rows],
        where_image=lambda index: (place, f"image {images[index].id}"),
        where=lambda row: (place, f"annotation {keys[row, 0]}"),
        segments=file.segments if masked else None,
        segment=rows,
        mask_sizes=file.mask_sizes[rows],
        negatives=[_labels(image.negatives or (), label) for image in images] if federated else None,
        partial=[_labels(image.partial, label) for image in images],
        problems=problems,
    )
    return checked(raw, tuple(categories.values()), tuple(categories))


def _counts(category: int, categories: Mapping[int, str], file: CocoFile) -> bool:
    """Whether an annotation of a category is looked at: those that the card leaves out are not."""
    return category in categories or category not in file.categories


def _unique_images(file: CocoFile, problems: list[Problem]) -> list[ImageRow]:
    by_id: dict[int, ImageRow] = {}
    for image in file.images:
        if image.id in by_id:
            problems.append(Problem(str(file.path), f"image {image.id}", "its id is of two images"))
        else:
            by_id[image.id] = image
    return list(by_id.values())


def _usable(
    file: CocoFile, images: Sequence[ImageRow], categories: Mapping[int, str], problems: list[Problem]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Annotations of the categories and images that there are: their keys, rows, and positions of their images."""
    keys = file.keys
    known = np.isin(keys[:, 2], np.array(list(file.categories), dtype=np.int64))
    counted = ~known | np.isin(keys[:, 2], np.array(list(categories), dtype=np.int64))
    ids = np.array([image.id for image in images], dtype=np.int64)
    there = np.isin(keys[:, 1], ids)
    again = np.ones(len(keys), dtype=bool)
    again[np.unique(keys[:, 0], return_index=True)[1]] = False
    faults = {
        "its category_id {2} is of no category": ~known,
        "its image_id {1} is of no image": ~there,
        "its id is of two annotations": again,
    }
    wrong = np.zeros(len(keys), dtype=bool)
    for what, bad in faults.items():
        for row in np.flatnonzero(bad & counted & ~wrong).tolist():
            problems.append(Problem(str(file.path), f"annotation {keys[row, 0]}", what.format(*keys[row])))
        wrong |= bad
    rows = np.flatnonzero(counted & ~wrong)
    order = np.argsort(ids)
    position = order[np.searchsorted(ids[order], keys[rows, 1])] if len(ids) else np.zeros(0, np.int64)
    return keys[rows], rows, position


def _looked_up(numbers: np.ndarray, label: Mapping[int, int]) -> np.ndarray:
    """Category numbers -> labels."""
    known = np.array(sorted(label), dtype=np.int64)
    labels = np.array([label[int(number)] for number in known], dtype=np.int64)
    found: np.ndarray = labels[np.searchsorted(known, numbers)]
    return found


def _labels(numbers: Sequence[int], label: Mapping[int, int]) -> list[int]:
    return [label[number] for number in numbers if number in label]
