"""Images with a class for every pixel, and what the numbers in their masks mean."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from bob.data.annotations import Problem
from bob.data.files import UNREADABLE, FileImages
from bob.data.mask_files import Decoder, MaskFacts, scan, what_is_wrong
from bob.data.objects import IGNORE
from bob.data.sizes import file_sizes
from bob.errors import UserError

UNKNOWN = IGNORE - 1
"""In a class map: the number in the mask means nothing."""

RANGE = 1 << 16
"""Of the numbers in a mask."""


class Legend(Protocol):
    """What the numbers in masks mean."""

    @property
    def count(self) -> int:
        """Number of classes."""
        ...

    def classes(self, mask: str, numbers: np.ndarray) -> np.ndarray:
        """Numbers of the mask of this name, of any shape -> int16 classes, `IGNORE` or `UNKNOWN`."""
        ...

    def complaint(self, number: int, pixels: int) -> tuple[str, str]:
        """Which number, and what is wrong with it being there, for a `Problem`."""
        ...

    def digest(self, mask: str) -> bytes:
        """What sets this legend of a mask apart from others."""
        ...


@dataclass(frozen=True)
class Values:
    """The same numbers in all masks.

    Attributes:
        values: The number of each class.
        ignore: Numbers that count for nothing.
    """

    values: tuple[int, ...]
    ignore: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.values)

    def classes(self, mask: str, numbers: np.ndarray) -> np.ndarray:
        """See `Legend.classes`."""
        classes: np.ndarray = self._table[numbers]
        return classes

    def complaint(self, number: int, pixels: int) -> tuple[str, str]:
        """See `Legend.complaint`."""
        return f"value {number}", f"{pixels:,} pixels have it, but it is neither a class nor ignored"

    def digest(self, mask: str) -> bytes:
        """See `Legend.digest`."""
        return f"{self.values}{sorted(self.ignore)}".encode()

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(RANGE, UNKNOWN, dtype=np.int16)
        table[list(self.ignore)] = IGNORE
        table[list(self.values)] = np.arange(len(self.values))
        return table


@dataclass(frozen=True)
class Pairs:
    """Images and their masks, before anything is known of what is in them.

    Attributes:
        images: Where the images' names begin.
        masks: Where the masks' names begin.
        names: Name of each image and of its mask.
        problems: What has no partner.
    """

    images: Path
    masks: Path
    names: list[tuple[str, str]]
    problems: list[Problem]


class SegmentationImages(FileImages):
    """Images with a class for every pixel.

    Attributes:
        problems: What was left out, and why; empty unless the card lets bad annotations be left out.

    Args:
        pairs: The images and their masks.
        facts: What each mask holds.
        decode: How masks are read.
        legend: What the numbers in them mean.
        problems: See above.
    """

    target_kind: ClassVar[Literal["detection", "segmentation"] | None] = "segmentation"

    def __init__(
        self,
        pairs: Pairs,
        facts: Sequence[MaskFacts],
        decode: Decoder,
        legend: Legend,
        problems: Sequence[Problem] = (),
    ) -> None:
        self._masks, self._mask_root = [mask for _, mask in pairs.names], pairs.masks
        self._facts, self._decode, self._legend = list(facts), decode, legend
        self.problems = list(problems)
        self._annotations_sha256: str | None = None
        labels = np.zeros((len(facts), legend.count), dtype=np.int64)
        for row, (mask, held) in enumerate(zip(self._masks, facts, strict=True)):
            classes = legend.classes(mask, held.values)
            labels[row, classes[classes >= 0]] = 1
        super().__init__(pairs.images, [image for image, _ in pairs.names], labels)

    def target(self, index: int) -> np.ndarray:
        """Return the class of each pixel of image `index`, (H, W) int16 with `IGNORE`.

        Raises:
            UserError: If the mask cannot be read, or is no longer the one that was opened.
        """
        path = self._mask_root / self._masks[index]
        try:
            numbers = self._decode(path.read_bytes())
        except UNREADABLE as error:
            raise UserError(f"Cannot use the mask {path}: {what_is_wrong(error)}.", "Restore it.") from error
        classes = self._legend.classes(self._masks[index], numbers)
        if numbers.shape != self.size(index) or (classes == UNKNOWN).any():
            raise UserError(f"The mask {path} has changed since the data were opened.", "Start again.")
        return classes

    def size(self, index: int) -> tuple[int, int]:
        """See `ImageSet.size`; the mask's, which is the image's."""
        return self._facts[index].size

    def pixels(self, index: int) -> np.ndarray:
        """Return (L + 1,) int64, the pixels of each class in image `index`, and last those that count for nothing."""
        held = self._facts[index]
        classes = self._legend.classes(self._masks[index], held.values)
        counted = np.where(classes == IGNORE, self._legend.count, classes)
        return np.bincount(counted, held.pixels, minlength=self._legend.count + 1).astype(np.int64)

    def annotations_sha256(self) -> str:
        """See `ImageSet.annotations_sha256`; of the masks' content and what their numbers mean."""
        if self._annotations_sha256 is None:
            digest = hashlib.sha256()
            for mask, held in zip(self._masks, self._facts, strict=True):
                digest.update(held.sha256.encode() + self._legend.digest(mask) + b"\n")
            self._annotations_sha256 = digest.hexdigest()
        return self._annotations_sha256


def read_pairs(pairs: Pairs, decode: Decoder) -> tuple[Pairs, list[MaskFacts]]:
    """Scan the masks and measure the images; a pair with something wrong becomes a problem."""
    sizes, unknown = file_sizes(pairs.images, [image for image, _ in pairs.names])
    scanned = scan(pairs.masks, [mask for _, mask in pairs.names], decode)
    names, facts, problems = [], [], list(pairs.problems)
    for row, ((image, mask), held) in enumerate(zip(pairs.names, scanned, strict=True)):
        if row in unknown:
            problems.append(Problem(str(pairs.images / image), "", unknown[row]))
        elif isinstance(held, str):
            problems.append(Problem(str(pairs.masks / mask), "", held))
        elif held.size != tuple(sizes[row]):
            what = f"it has {_by(held.size)} pixels, its image {image} {_by(sizes[row])}"
            problems.append(Problem(str(pairs.masks / mask), "", what))
        else:
            names.append((image, mask))
            facts.append(held)
    return Pairs(pairs.images, pairs.masks, names, problems), facts


def sound(pairs: Pairs, facts: Sequence[MaskFacts], decode: Decoder, legend: Legend) -> SegmentationImages:
    """Make an image set of the pairs whose masks have no number without a meaning; the others are its problems."""
    names, kept, problems = [], [], list(pairs.problems)
    for (image, mask), held in zip(pairs.names, facts, strict=True):
        strange = legend.classes(mask, held.values) == UNKNOWN
        for number, pixels in zip(held.values[strange], held.pixels[strange], strict=True):
            problems.append(Problem(str(pairs.masks / mask), *legend.complaint(int(number), int(pixels))))
        if not strange.any():
            names.append((image, mask))
            kept.append(held)
    return SegmentationImages(Pairs(pairs.images, pairs.masks, names, []), kept, decode, legend, problems)


def _by(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"
