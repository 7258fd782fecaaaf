"""A test split made of several sets, for what is judged on more than the task's own test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bob.data.base import Dataset, ImageSet, Split
from bob.data.joined import JoinedImages
from bob.data.view import View

CLEAN = "clean"  # the part that is the task's own test images


@dataclass(frozen=True)
class Part:
    """One of the sets that a test split is made of.

    Attributes:
        name: As in the record's table; `clean` for the task's own test images.
        rows: Where it stands in the test split.
        said: What else an adapter must know of it, JSON-ready, such as which classes count; part of a run's id.
    """

    name: str
    rows: slice
    said: dict[str, Any]

    def __len__(self) -> int:
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True)
class PartedDataset(Dataset):
    """A data set whose `test` is several sets, one after the other: first the task's own test images.

    Attributes:
        parts: The sets, in the order in which they stand in the test split; none where they are sealed.
    """

    parts: tuple[Part, ...] = ()

    def open_parts(self) -> tuple[Part, ...]:
        """The sets.

        Raises:
            RuntimeError: If they are sealed.
        """
        if not self.parts:
            raise RuntimeError("The sets of 'test' are sealed until everything is chosen.")
        return self.parts

    def identity(self) -> dict[str, Any]:
        """See `Dataset.identity`."""
        return {"sets": [{"name": part.name, "n": len(part), **part.said} for part in self.parts]}

    def sealed(self, split: str = "test") -> Dataset:
        """See `Dataset.sealed`; the task's own test images are sealed in the sets of the other splits too.

        Which test image is of which set is as good as a label where outliers are to be found, and is sealed with them.
        """
        sealed = super().sealed(split)
        if split != "test":
            return sealed
        own = Dataset.sealed(replace(self, splits={**self.splits, "test": self._own_test()}))
        return replace(self, splits={**own.splits, "test": sealed.splits["test"]}, parts=())

    def _own_test(self) -> Split:
        """The part that is the task's own, as a split of the image set that it may share with others."""
        images = self.splits["test"].images.parts[0]
        return Split(images, self.splits["test"].indices[self.parts[0].rows])


def with_parts(dataset: Dataset, others: Sequence[tuple[str, Split, dict[str, Any]]]) -> PartedDataset:
    """Return the data set with other sets behind its test images.

    Args:
        dataset: The task's own images.
        others: Name, images and what else is to be known of each further set. Their labels are of the task's classes,
            or mean nothing.
    """
    test = dataset.splits["test"]
    every = [(CLEAN, test, {}), *others]
    pieces = [split.images for _, split, _ in every]
    starts = np.cumsum([0, *(len(images) for images in pieces)])
    indices = np.concatenate([split.indices + start for (_, split, _), start in zip(every, starts, strict=False)])
    ends = np.cumsum([0, *(len(split) for _, split, _ in every)])
    parts = tuple(
        Part(name, slice(int(start), int(end)), said)
        for (name, _, said), start, end in zip(every, ends[:-1], ends[1:], strict=True)
    )
    joined = Split(JoinedImages(pieces), indices)
    return PartedDataset(**{**vars(dataset), "splits": {**dataset.splits, "test": joined}}, parts=parts)


class Relabelled(View):
    """The images of a set under other labels.

    Args:
        images: Where they are read from.
        labels: (N,) int64, one for each image.
    """

    def __init__(self, images: ImageSet, labels: np.ndarray) -> None:
        super().__init__(images)
        self.labels = labels
