"""The images that a choice is learnt from, in nested sets: each a stratified third of the one around it."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from bob.data.base import Dataset, ImageSet
from bob.data.files import FileImages
from bob.pick.halving import ETA, level_sizes

_LEAST, _LEAST_PER_CLASS = 60, 3  # images of the smallest set, in all and on average of each class
_COMPANY = 2  # an image alone in its class can only be got wrong when it is left out
LEARNT_FROM = ("train", "val")  # the choice never sees the test images until the last rung's one test


@dataclass(frozen=True)
class Part:
    """The images that one level has and the smaller ones have not, of one of the data's image sets.

    Attributes:
        owner: The image set that they come from.
        level: The smallest set that has them.
        rows: (m,) where they stand in the pool.
        positions: (m,) where they stand in `owner`.
        images: They themselves, as a set of their own.
    """

    owner: ImageSet
    level: int
    rows: np.ndarray
    positions: np.ndarray
    images: ImageSet


class Pool:
    """Train and val together, each image with the smallest of the nested sets that has it.

    Which images a level has depends on the data, the seed and nothing else, least of all on time: so a command that is
    given again finds what it has computed before.

    Args:
        dataset: With a single class for each image.
        seed: Of the draw; a class's draw depends on it, the class's name and its images alone.

    Attributes:
        dataset: As given.
        labels: (n,) int64, the classes of the images learnt from.
        levels: (n,) int64, the smallest set that has each image; 0 for those that only the whole has.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        splits = [dataset.splits[name] for name in LEARNT_FROM]
        self._owners: list[ImageSet] = [split.images for split in splits for _ in range(len(split))]
        self._positions = np.concatenate([split.indices for split in splits])
        self.labels = np.concatenate([split.labels for split in splits])
        least = max(_LEAST, _LEAST_PER_CLASS * len(dataset.classes))
        self.levels = _levels(self.labels, dataset.classes, len(level_sizes(len(self.labels), least)), seed)

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, level: int) -> np.ndarray:
        """(m,) the images of a level, ascending."""
        return np.flatnonzero(self.levels >= level)

    @cached_property
    def sizes(self) -> list[int]:
        """Images whose features each level needs: at level 0 all, those to be tested on too."""
        smaller = [len(self.rows(level)) for level in range(1, int(self.levels.max()) + 1)]
        return [sum(len(images) for images in self.dataset.image_sets()), *smaller]

    @cached_property
    def parts(self) -> list[Part]:
        """The images of the levels above 0, smallest set first; made once, for each knows the hash of its content."""
        parts = []
        owners = np.array([id(owner) for owner in self._owners])
        for level in range(int(self.levels.max()), 0, -1):
            for owner in self.dataset.image_sets():
                rows = np.flatnonzero((self.levels == level) & (owners == id(owner)))
                if len(rows):
                    positions = self._positions[rows]
                    parts.append(Part(owner, level, rows, positions, some_of(owner, positions)))
        return parts


class _Some(ImageSet):
    """Some images of a set, in an order of their own."""

    def __init__(self, owner: ImageSet, positions: np.ndarray) -> None:
        self._owner, self._positions = owner, positions
        self.labels = owner.labels[positions]
        self.names = [owner.names[position] for position in positions]

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`."""
        return self._owner.read(int(self._positions[index]))

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`."""
        digest = hashlib.sha256(self._owner.fingerprint().encode())
        digest.update(np.ascontiguousarray(self._positions, dtype="<i8").tobytes())
        return digest.hexdigest()


def some_of(owner: ImageSet, positions: np.ndarray) -> ImageSet:
    """Some images of a set as a set of their own; of files, only these are read for its fingerprint.

    Args:
        owner: The set.
        positions: (m,) of the images in it.
    """
    if type(owner) is FileImages:
        return FileImages(owner.root, [owner.names[i] for i in positions], owner.labels[positions])
    return _Some(owner, positions)


def _levels(labels: np.ndarray, classes: tuple[str, ...], levels: int, seed: int) -> np.ndarray:
    """(n,) the smallest of so many nested sets that has each image: of each class the same share."""
    found = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rng = np.random.default_rng([seed, zlib.crc32(classes[label].encode())])
        drawn = rng.permutation(members)
        for level in range(1, levels):
            found[drawn[: max(-(-len(members) // ETA**level), min(_COMPANY, len(members)))]] = level
    return found
