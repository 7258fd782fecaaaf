"""Test images with factors: what makes each of them unlike the usual image of its class."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bob.data.base import Dataset, ImageSet, Split
from bob.data.factor_file import read_factors
from bob.data.view import View
from bob.errors import UserError
from bob.task_cards import TaskCard


class FlaggedImages(View):
    """The images of a set, each with the factors that it has.

    Attributes:
        flags: (N, F) bool, which factors each image has.
        flag_names: Names of the F factors.

    Args:
        images: Where they are read from.
        flags: For each of them.
        flag_names: F names.
    """

    def __init__(self, images: ImageSet, flags: np.ndarray, flag_names: tuple[str, ...]) -> None:
        if flags.shape != (len(images), len(flag_names)):
            expected = (len(images), len(flag_names))
            raise ValueError(f"Expected `flags` to have shape {expected}, but got {flags.shape}.")
        super().__init__(images)
        self.flags = flags
        self.flag_names = flag_names
        self.labels = images.labels
        self.groups = images.groups
        self.group_names = images.group_names
        self.subjects = images.subjects


@dataclass(frozen=True)
class FactorDataset(Dataset):
    """A data set whose test images have factors.

    Attributes:
        factors: Their names.
        factors_sha256: SHA-256 (hex) of which test image has which.
    """

    factors: tuple[str, ...] = ()
    factors_sha256: str = ""

    def identity(self) -> dict[str, Any]:
        """See `Dataset.identity`."""
        return {"factors": {"names": list(self.factors), "sha256": self.factors_sha256}}


def with_factors(card: TaskCard, dataset: Dataset, root: Path) -> FactorDataset:
    """Return the data set with the factors of its test images.

    A `factors` that is a file is a CSV below `root`; see `read_factors`. With `factors = "imagenet-x"`, test images
    that ImageNet-X does not annotate, or that it calls prototypes of their class, are left out, and `top` annotations
    count; train and val stay as they are.

    Args:
        card: Says where the factors come from.
        dataset: The task's images.
        root: Folder of downloaded data sets.

    Raises:
        UserError: If the test images have no factors, or are not those of ImageNet-X; names what is missing.
    """
    test = dataset.splits["test"]
    if card.factors in _OTHER:
        flagged = _OTHER[card.factors](card, test)
    else:
        flagged = _of_file(root / Path(card.factors).expanduser(), test)
    images: Any = flagged.images
    flags = images.flags[flagged.indices]
    if not flags.any():
        raise UserError(f"No test image of '{card.name}' has a factor.", "Correct the factors of its images.")
    digest = hashlib.sha256(np.ascontiguousarray(flags, dtype=np.uint8).tobytes()).hexdigest()
    # Splits that share the test images' set go on sharing it, or sealing one would leave its labels in the others.
    splits = {
        name: replace(split, images=images) if split.images is test.images else split
        for name, split in dataset.splits.items()
    }
    changed = {"splits": {**splits, "test": flagged}, "facts": {**dataset.facts, "factors": card.factors}}
    return FactorDataset(**{**vars(dataset), **changed}, factors=images.flag_names, factors_sha256=digest)


def _own(card: TaskCard, test: Split) -> Split:
    """The factors that the source itself has."""
    from bob.data.shapes import ShapesImages

    if isinstance(test.images, ShapesImages):
        from bob.data.shape_factors import SHAPE_FACTORS, shape_flags

        flagged = FlaggedImages(test.images, shape_flags(test.images.factors), SHAPE_FACTORS)
        return replace(test, images=flagged)
    if getattr(test.images, "flags", None) is None:
        raise UserError(
            f"The images of {card.data.source} have no factors.",
            'Give factors = "FILE.csv" with a line for each image, or "imagenet-x" for images of ImageNet.',
        )
    return test


def _of_file(path: Path, test: Split) -> Split:
    """The factors that a CSV says."""
    rows, factors = read_factors(path, test.names)
    flags = np.zeros((len(test.images), len(factors)), dtype=bool)
    flags[test.indices] = rows
    return replace(test, images=FlaggedImages(test.images, flags, factors))


def _imagenet_x(card: TaskCard, test: Split) -> Split:
    """The factors of ImageNet-X, joined by the files' names; only the images that it annotates stay."""
    from bob.factors.annotations import FACTORS, load_annotations

    annotations = load_annotations()
    names = pd.Index([str(name).replace("\\", "/").rpartition("/")[2] for name in test.names])
    if (twice := names.isin(annotations.names) & names.duplicated()).any():
        raise UserError(f"The test images of '{card.name}' have {names[twice][0]} twice.", "Leave one of them out.")
    row = {name: number for number, name in enumerate(names)}
    position = np.array([row.get(name, -1) for name in annotations.names])
    if (missing := position < 0).any():
        raise UserError(
            f"The test images of '{card.name}' lack {missing.sum():,} of ImageNet-X's {len(annotations):,}, the "
            f"first of them {annotations.names[int(np.argmax(missing))]}.",
            "ImageNet's validation images, under their own names, must be the test split.",
        )
    if (test.labels[position] != annotations.classes).any():
        raise UserError(
            f"The classes of '{card.name}' are not in the order of ImageNet's.",
            "Sort the class folders by their WordNet ids.",
        )
    flags = np.zeros((len(test.images), len(FACTORS)), dtype=bool)
    flags[test.indices[position]] = annotations.flags
    return Split(FlaggedImages(test.images, flags, FACTORS), test.indices[np.sort(position)])


_OTHER: dict[str, Callable[[TaskCard, Split], Split]] = {"own": _own, "imagenet-x": _imagenet_x}
