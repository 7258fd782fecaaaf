"""The sets of outliers that a task card names, beside the test images of the known classes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from bob.data.base import Dataset, ImageSet, Split
from bob.data.joined import JoinedImages
from bob.data.novel_shapes import SOURCES, load_outliers
from bob.data.other_sets import PartedDataset, Relabelled, with_parts
from bob.data.overlap import require_disjoint
from bob.errors import UserError, did_you_mean
from bob.task_cards import GENERATED, DataSpec, TaskCard
from bob.task_tables import OtherSet


def with_outliers(card: TaskCard, dataset: Dataset, root: Path) -> PartedDataset:
    """Return the data set with the card's sets of outliers behind its test images; their labels, all 0, mean nothing.

    Args:
        card: Of the task; its `sets` are opened.
        dataset: The known classes.
        root: The data root.

    Raises:
        UserError: If a set cannot be had, says what is not for outliers, or shares an image with the known classes.
    """
    others = []
    for each in card.sets:
        _require_plain(each)
        outliers = _opened(each, root, card.data.layout)
        require_disjoint(dataset.splits, each.name, outliers)
        others.append((each.name, _unlabelled(outliers), {"near": each.near}))
    return with_parts(dataset, others)


def _require_plain(each: OtherSet) -> None:
    for key, said in {"corruptions": each.corruptions, "class_map": each.class_map}.items():
        if said:
            raise UserError(
                f"The set '{each.name}' says '{key}', but outliers have none of the known classes.",
                f"Leave '{key}' out, or use adapter = \"ood\".",
            )


def _opened(each: OtherSet, root: Path, layout: str) -> Split:
    """The images of a set, or those of them that its list names."""
    try:
        images = _images(each, root)
    except UserError as error:
        hint = " `bob show TASK` says what is expected there and where it comes from." if layout else ""
        raise UserError(f"The set '{each.name}': {error.problem}", f"{error.remedy}{hint}") from error
    if not len(images):
        raise UserError(f"The set '{each.name}' is empty.", "Add images to it.")
    positions = np.arange(len(images)) if not each.subset else _listed(each, images, root)
    return Split(images, positions)


def _images(each: OtherSet, root: Path) -> ImageSet:
    from bob.data.sources import load_dataset, open_pools  # here, for that module opens these sets

    if each.source in SOURCES:
        if each.split:
            raise UserError(f"{each.source} has no splits.", "Leave 'split' out.")
        return load_outliers(each.source)
    if each.source in GENERATED:
        drawn = load_dataset(DataSpec(source=each.source), root).splits
        return _pool(each, {name: split.images for name, split in drawn.items()})
    splits = {"train": each.split} if each.split else {}
    spec = DataSpec.model_validate({"source": each.source, "splits": splits})
    try:
        _, pools = open_pools(spec, root, "classification")
    except UserError as error:
        if hint := did_you_mean(each.source, SOURCES):
            raise UserError(error.problem, hint) from error
        raise
    return _pool(each, pools)


def _pool(each: OtherSet, pools: dict[str, ImageSet]) -> ImageSet:
    """The split that the set names, several joined by `+`; else the one that is tested on by custom."""
    names = [name.strip() for name in each.split.split("+")] if each.split else []
    if not names:
        names = [name for name in ("test", "val", *pools) if name in pools][:1]
    for name in names:
        if name not in pools:
            raise UserError(
                f"{each.source} has no split '{name}', only {', '.join(pools)}.",
                did_you_mean(name, pools) or "Correct 'split' on the task card.",
            )
    return pools[names[0]] if len(names) == 1 else JoinedImages([pools[name] for name in names])


def _unlabelled(split: Split) -> Split:
    """The same images with the label 0, part by part, so that stored features of each part are found again."""
    parts = [Relabelled(part, np.zeros(len(part), dtype=np.int64)) for part in split.images.parts]
    return Split(parts[0] if len(parts) == 1 else JoinedImages(parts), split.indices)


def _listed(each: OtherSet, images: ImageSet, root: Path) -> np.ndarray:
    """Positions of the images that a list names, in the images' order.

    A line is a path, and may end with a label, as OpenOOD's lists do. It names the image whose own path ends with it,
    or with whose own path it ends.
    """
    path = root / Path(each.subset).expanduser()
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"Cannot read the list {path}: {error.strerror}.", "Put it there.") from error
    by_basename: dict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(images.names):
        by_basename[name.rpartition("/")[2]].append(position)
    found: dict[int, int] = {}
    for number, line in enumerate(lines, start=1):
        if wanted := _path_of(line):
            found[_position(wanted, images, by_basename, f"{path}, line {number}")] = number
    if not found:
        raise UserError(f"The list {path} is empty.", "It needs the name of an image on each line.")
    return np.array(sorted(found), dtype=np.int64)


def _path_of(line: str) -> str:
    head, _, label = line.strip().rpartition(" ")
    return (head.strip() if head and label.lstrip("-").isdigit() else line.strip()).replace("\\", "/")


def _position(wanted: str, images: ImageSet, by_basename: dict[str, list[int]], where: str) -> int:
    matches = [
        position
        for position in by_basename.get(wanted.rpartition("/")[2], [])
        if f"/{images.names[position]}".endswith(f"/{wanted}") or f"/{wanted}".endswith(f"/{images.names[position]}")
    ]
    if len(matches) != 1:
        how_many = f"{len(matches)} images" if matches else "no image"
        raise UserError(f"{where}: '{wanted}' names {how_many} of the set.", "Correct the list or the data.")
    return matches[0]
