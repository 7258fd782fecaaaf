"""What every data source gives: ordered images with labels, and named splits of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch


class ImageSet(ABC):
    """A fixed, ordered list of labelled images, each read on demand.

    Attributes:
        labels: (N,) int64, the class of each image; or (N, L) int64 where an image may have several of L labels:
            1 present, 0 absent, -1 unknown (left out of loss and metrics).
        names: N strings that tell a person which image it is: a path relative to the root, or `pool/index`.
        groups: (N,) int64, the group of each image, for the accuracy of the worst group; None where there are none.
        group_names: Names of all groups; group i is `group_names[i]`.
        subjects: (N,) int64, whom or what each image shows, such as a patient: a cut leaves all images of a subject
            on one side; None where every image stands for itself.
        target_kind: What `target` gives beyond labels: `detection` for `bob.data.objects.Objects`, `segmentation` for
            a map of classes; None for nothing. Labels then say which classes occur in each image.
    """

    target_kind: ClassVar[Literal["detection", "segmentation"] | None] = None

    labels: np.ndarray
    names: Sequence[str]
    groups: np.ndarray | None = None
    group_names: tuple[str, ...] = ()
    subjects: np.ndarray | None = None

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

    def target(self, index: int) -> Any:
        """Return what is where in image `index`: `Objects`, or the class of each pixel, (H, W) int16 with `IGNORE`.

        Raises:
            UserError: If the annotation cannot be read; names the file.
        """
        raise TypeError(f"{type(self).__name__} has labels alone.")

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of image `index`, pixels."""
        height, width = self.read(index).shape[-2:]
        return int(height), int(width)

    def annotations_sha256(self) -> str | None:
        """Return the SHA-256 (hex) of all that `target` gives; None where there is nothing."""
        return None

    @property
    def parts(self) -> Sequence[ImageSet]:
        """The sets that this one is made of, one after the other: itself, if it was not joined of several."""
        return (self,)


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
        """(n,) or (n, L) int64, the labels of the split's images as `ImageSet.labels` has them."""
        return self.images.labels[self.indices]

    @property
    def groups(self) -> np.ndarray | None:
        """(n,) int64, the group of each image of the split, or None."""
        return None if self.images.groups is None else self.images.groups[self.indices]

    @property
    def names(self) -> list[str]:
        """The n names of the split's images."""
        return [self.images.names[i] for i in self.indices]

    def target(self, position: int) -> Any:
        """What is where in the split's image `position`; see `ImageSet.target`."""
        return self.images.target(int(self.indices[position]))

    def checksum(self) -> str:
        """SHA-256 (hex) of positions, labels and what is where, so that a record tells exactly which images were used.

        Groups do not count, since most protocols do not see them: `groups_checksum` is theirs.
        """
        digest = hashlib.sha256(np.ascontiguousarray(self.indices, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        digest.update((self.images.annotations_sha256() or "").encode())
        return digest.hexdigest()

    def groups_checksum(self) -> str | None:
        """SHA-256 (hex) of the groups, or None where there are none."""
        if self.groups is None:
            return None
        return hashlib.sha256(np.ascontiguousarray(self.groups, dtype="<i8").tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Dataset:
    """A data set ready for an adapter.

    Attributes:
        source: What was asked for, e.g. `shapes` or `folder:/photos`.
        classes: Class names; label i (or column i of the labels) is `classes[i]`.
        splits: `train`, `val` and `test`.
        facts: What a record should say about where the splits came from.
        groups: Names of the groups; all splits have groups or none has.
    """

    source: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    facts: dict[str, str | int | float] = field(default_factory=dict)
    groups: tuple[str, ...] = ()

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.splits["train"].images.labels.ndim == 2

    def image_sets(self) -> list[ImageSet]:
        """The distinct image sets behind the splits, in a fixed order; of joined ones the parts."""
        return list({id(part): part for split in self.splits.values() for part in split.images.parts}.values())

    def identity(self) -> dict[str, Any]:
        """What a run's id must cover beside images, labels and what is where in the splits; JSON-ready."""
        return {}

    def class_counts(self) -> dict[str, np.ndarray]:
        """For each split (C,) int64: images of each class, or with each label present."""
        return {name: counts(split.labels, len(self.classes)) for name, split in self.splits.items()}

    def sealed(self, split: str = "test") -> Dataset:
        """Return the same data set without the labels and groups of one split.

        Its indices, names, images and length stay. Other splits keep their labels; where they share the split's image
        set they get a view of it in which the positions of the sealed images hold `SEALED`, which is no label.

        Raises:
            RuntimeError: On reading `labels` or `groups` of the sealed split or of its images.
        """
        from bob.data.sealed import seal

        return replace(self, splits=seal(self.splits, split))


def counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return (classes,) int64: images of each class for labels (n,), or with each label present for (n, L)."""
    return np.bincount(labels, minlength=classes) if labels.ndim == 1 else (labels == 1).sum(axis=0)
