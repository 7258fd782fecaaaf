"""A task's own test images, and behind them the shifted sets that the same classifier is tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bob.data.base import Dataset, ImageSet, Split
from bob.data.class_map import Members, OwnClasses, match_classes
from bob.data.corrupted import CorruptedImages, library_version, require_corruption
from bob.data.other_sets import PartedDataset, Relabelled, with_parts
from bob.data.shapes_shifted import SOURCES, load_shifted_shapes
from bob.data.subset import cut_down
from bob.errors import UserError, did_you_mean
from bob.task_cards import DataSpec, TaskCard
from bob.task_tables import OtherSet

_FOLDER = "folder:"
_BORDER = 2  # pixels of red frame around ObjectNet's images, against training on them
_OBJECTNET = "objectnet_to_imagenet_1k.json"

Piece = tuple[str, Split, dict[str, Any]]
"""Name, images and what else is to be known of one set, as `bob.data.other_sets.with_parts` takes them."""


@dataclass(frozen=True)
class ShiftedSet:
    """What `Part.said` says of a set that is no outlier set: how it is judged.

    Attributes:
        entry: Name of the `[[sets]]` entry that it comes from.
        corruption: What was done to the task's own test images, if it was this; the same images in the same order.
        severity: 1 to 5, or 0.
        members: The task's classes that each class of the set stands for; empty where it has all of the task's.
    """

    entry: str
    corruption: str = ""
    severity: int = 0
    members: tuple[Members, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        said: dict[str, Any] = {"entry": self.entry}
        if self.corruption:
            said |= {"corruption": self.corruption, "severity": self.severity}
        return said | ({"members": [list(each) for each in self.members]} if self.members else {})

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> ShiftedSet:
        """What `as_dict` gave."""
        return cls(**{**said, "members": tuple(tuple(each) for each in said.get("members", ()))})


def with_shifts(card: TaskCard, dataset: Dataset, root: Path) -> PartedDataset:
    """Return the data set with the sets of its card behind its test images.

    The labels of a shifted image are the task's; where a class of its set stands for several of these, the first.

    Args:
        card: With `[[sets]]`.
        dataset: The task's own images, with class names as the source has them.
        root: The data root.

    Raises:
        UserError: If a set cannot be opened, has no such split, its classes do not match the task's, or what is on disk
            of a corrupted one is not a copy of the task's own test images.
    """
    own = OwnClasses(dataset.classes, dataset.splits["train"])
    pieces: list[Piece] = []
    facts: dict[str, str | int | float] = {}
    for entry in card.sets:
        if entry.corruptions:
            found, facts[f"set {entry.name}"] = _corrupted(entry, dataset.splits["test"], root)
            pieces += found
        else:
            pieces.append(_shifted(entry, own, dataset.splits["test"], root, card.data))
    return replace(with_parts(dataset, pieces), facts={**dataset.facts, **facts})


def _shifted(entry: OtherSet, own: OwnClasses, clean: Split, root: Path, spec: DataSpec) -> Piece:
    """A set of other images; `spec` is of the task's own, for what it says of what must lie where."""
    from bob.data.sources import expected_there  # which reads data sets for this module's caller

    try:
        classes, images = _open_set(entry, root)
    except UserError as error:
        there = expected_there(spec) if spec.layout else ""
        raise UserError(f"The set '{entry.name}': {error.problem}", f"{error.remedy} {there}") from error
    members = match_classes(entry.class_map, classes, own, root, entry.name)
    if entry.class_map and (root / entry.class_map / _OBJECTNET).is_file():
        images = _Framed(images, _BORDER)
    labels = np.array([next(iter(members[label]), 0) for label in images.labels.tolist()], dtype=np.int64)
    kept = np.flatnonzero([bool(members[label]) for label in images.labels.tolist()])
    split = Split(Relabelled(images, labels), kept)
    if entry.subset:
        split = cut_down(split, DataSpec(source=entry.source, subset=entry.subset), root)
    told_apart = tuple(sorted({members[label] for label in images.labels[split.indices].tolist()}))
    _require_clean(entry, told_apart, clean)
    whole = told_apart == tuple((label,) for label in range(len(own)))
    return entry.name, split, ShiftedSet(entry.name, members=() if whole else told_apart).as_dict()


def _open_set(entry: OtherSet, root: Path) -> tuple[tuple[str, ...], ImageSet]:
    from bob.data.sources import open_pools  # which reads data sets for this module's caller

    if entry.source in SOURCES:
        classes, pools = load_shifted_shapes(entry.source)
    else:
        splits = {"splits": {"train": entry.split}} if entry.split else {}
        classes, pools = open_pools(DataSpec.model_validate({"source": entry.source, **splits}), root, "ood")
    name = entry.split or next((each for each in ("test", "val") if each in pools), "")
    if not name and len(pools) == 1:
        name = next(iter(pools))
    if name not in pools:
        raise UserError(
            f"{entry.source} has the splits {', '.join(pools)}" + (f", but no '{name}'." if name else "."),
            did_you_mean(name, pools) or "Say which with 'split' in [[sets]] on the task card.",
        )
    if pools[name].labels.ndim != 1 or pools[name].target_kind:
        raise UserError(f"{entry.source} has no single class for each image.", "Take the set off the task card.")
    return classes, pools[name]


def _require_clean(entry: OtherSet, members: Sequence[Members], clean: Split) -> None:
    """Fail if the task's own test images show none of the classes, so that nothing stands beside the score."""
    if not np.isin(clean.labels, [position for each in members for position in each]).any():
        raise UserError(f"No test image of the task shows a class of the set '{entry.name}'.", "Correct its class_map.")


def _corrupted(entry: OtherSet, clean: Split, root: Path) -> tuple[list[Piece], str]:
    """The task's own test images with each corruption of each severity, and in words where they came from."""
    for corruption in entry.corruptions:
        require_corruption(corruption)
    wanted = [(corruption, severity) for corruption in entry.corruptions for severity in entry.severities]
    folders = [_folder(entry.source, *each, root) for each in wanted] if entry.source else []
    if any(folders):
        return _on_disk(entry, wanted, folders, clean), f"read from {entry.source.removeprefix(_FOLDER)}"
    # A set that stands in for a published one is made from images of the size that this was made from.
    pieces = [
        _piece(entry, each, Split(CorruptedImages(clean, *each, published=bool(entry.source)), np.arange(len(clean))))
        for each in wanted
    ]
    return pieces, f"computed by {library_version()}"


def _piece(entry: OtherSet, each: tuple[str, int], split: Split) -> Piece:
    corruption, severity = each
    return f"{entry.name}/{corruption}/{severity}", split, ShiftedSet(entry.name, corruption, severity).as_dict()


def _folder(source: str, corruption: str, severity: int, root: Path) -> Path | None:
    """Where a corrupted set lies on disk: as the card says, or in the folder of its kind of corruption, as unpacked."""
    if not source.startswith(_FOLDER) or "{corruption}" not in source or "{severity}" not in source:
        raise UserError(
            f"The source '{source}' of corrupted images does not say where each lies.",
            "Write it as folder:PATH/{corruption}/{severity}, or leave it out to compute them.",
        )
    before, _, after = source.removeprefix(_FOLDER).partition("{corruption}")
    parent, tail = root / Path(before).expanduser(), after.format(severity=severity)
    own = Path(f"{parent / corruption}{tail}")
    if own.is_dir():
        return own
    kinds = sorted(parent.glob(f"*/{corruption}{tail}"))
    return kinds[0] if kinds else None


def _on_disk(
    entry: OtherSet, wanted: Sequence[tuple[str, int]], folders: Sequence[Path | None], clean: Split
) -> list[Piece]:
    from bob.data.folder import load_folder

    if lacking := [each for each, folder in zip(wanted, folders, strict=True) if folder is None]:
        corruption, severity = lacking[0]
        raise UserError(
            f"The set '{entry.name}' is on disk without {corruption} of severity {severity} "
            f"({len(lacking)} of {len(wanted)} are missing).",
            "Unpack the rest, or move what is there away to have all computed.",
        )
    pieces = []
    for each, folder in zip(wanted, filter(None, folders), strict=True):
        images = load_folder(folder)[1].get("all")
        if images is None:
            raise UserError(f"{folder} has folders of splits.", "It should hold a folder for each class.")
        order = _copies(images.names, clean, folder)
        labels = np.zeros(len(images), dtype=np.int64)
        labels[order] = clean.labels
        pieces.append(_piece(entry, each, Split(Relabelled(images, labels), order)))
    return pieces


def _copies(names: Sequence[str], clean: Split, folder: Path) -> np.ndarray:
    """Positions of the copies of the clean images, in their order; known by the folder of the class and the file."""
    places = {_ending(name): place for place, name in enumerate(names)}
    endings = [_ending(name) for name in clean.names]
    if lacking := [name for name, ending in zip(clean.names, endings, strict=True) if ending not in places]:
        raise UserError(
            f"{folder} has no copy of the test image {lacking[0]} ({len(lacking)} of {len(clean)} are missing).",
            "Unpack it again, or move it away to have it computed.",
        )
    return np.array([places[ending] for ending in endings], dtype=np.int64)


def _ending(name: str) -> str:
    """Class folder and file name without suffix, since copies are often of another format."""
    return "/".join(name.rpartition(".")[0].split("/")[-2:])


class _Framed(ImageSet):
    """Images without their frame."""

    def __init__(self, images: ImageSet, border: int) -> None:
        self._images, self._border = images, border
        self.labels, self.names = images.labels, images.names

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`."""
        pixels = self._images.read(index)
        if min(pixels.shape[-2:]) <= 2 * self._border:
            raise UserError(f"The image {self.names[index]} is nothing but frame.", "Remove it.")
        return pixels[:, self._border : -self._border, self._border : -self._border].contiguous()

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`."""
        return hashlib.sha256(f"{self._images.fingerprint()} without {self._border} px".encode()).hexdigest()
