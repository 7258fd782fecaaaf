"""What every data source gives: ordered images with labels, and named splits of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch


class ImageSet(ABC):
    """A fixed, ordered list of labelled images, each read on demand.

    Attributes:
        labels: (N,) int64, the class of each image.
        names: N strings that tell a person which image it is: a path relative to the root, or `pool/index`.
    """

    labels: np.ndarray
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> torch.Tensor:
        """Return image `index` as uint8 (3, H, W), RGB.

        Raises:
            UserError: If the image cannot be read; names the file.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the content of all images, in order. Labels do not count."""


@dataclass(frozen=True)
class Split:
    """Some images of a set, by position.

    Attributes:
        images: The set that the positions point into. Splits of one data set may share it.
        indices: (n,) int64 positions, in the order in which they are used.
    """

    images: ImageSet
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, the class of each image of the split."""
        return self.images.labels[self.indices]

    @property
    def names(self) -> list[str]:
        """The n names of the split's images."""
        return [self.images.names[i] for i in self.indices]

    def checksum(self) -> str:
        """SHA-256 (hex) of positions and labels, so that a record tells exactly which images were used."""
        digest = hashlib.sha256(np.ascontiguousarray(self.indices, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Dataset:
    """A data set ready for an adapter.

    Attributes:
        source: What was asked for, e.g. `shapes` or `folder:/photos`.
        classes: Class names; label i is `classes[i]`.
        splits: `train`, `val` and `test`.
        facts: What a record should say about where the splits came from.
    """

    source: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    facts: dict[str, str | int | float] = field(default_factory=dict)

    def image_sets(self) -> list[ImageSet]:
        """The distinct image sets behind the splits, in a fixed order."""
        return list({id(s.images): s.images for s in self.splits.values()}.values())
