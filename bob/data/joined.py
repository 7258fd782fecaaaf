"""Several image sets as one: where a card's split is made of several, and where a training sees several splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bob.data.base import ImageSet


class JoinedImages(ImageSet):
    """The images of several sets, one set after the other."""

    def __init__(self, parts: Sequence[ImageSet]) -> None:
        self._parts = list(parts)
        self.target_kind = parts[0].target_kind  # type: ignore[misc]
        self._ends = np.cumsum([len(part) for part in parts])
        self.names = [name for part in parts for name in part.names]
        self.labels = np.concatenate([part.labels for part in parts])
        self.groups = _joined([part.groups for part in parts])
        self.group_names = parts[0].group_names
        self.subjects = _joined([part.subjects for part in parts])

    @property
    def parts(self) -> Sequence[ImageSet]:
        """See `ImageSet.parts`; features are stored for each, so that other splits and tasks share them."""
        return tuple(own for part in self._parts for own in part.parts)

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`."""
        part, own = self._place(index)
        return part.read(own)

    def target(self, index: int) -> Any:
        """See `ImageSet.target`."""
        part, own = self._place(index)
        return part.target(own)

    def size(self, index: int) -> tuple[int, int]:
        """See `ImageSet.size`."""
        part, own = self._place(index)
        return part.size(own)

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; the hash of the parts' fingerprints and lengths."""
        lines = [f"{len(part)} {part.fingerprint()}\n" for part in self._parts]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def annotations_sha256(self) -> str | None:
        """See `ImageSet.annotations_sha256`; the hash of the parts' own."""
        parts = [part.annotations_sha256() for part in self._parts]
        return None if None in parts else hashlib.sha256("".join(map(str, parts)).encode()).hexdigest()

    def __getattr__(self, name: str) -> Any:
        # What detection data have besides: rows that are joined, and what all parts have in common.
        if name.startswith("_"):
            raise AttributeError(name)
        values = [getattr(part, name) for part in self._parts]
        if name == "image_ids":
            return np.concatenate(values)
        if name == "problems":
            return [problem for value in values for problem in value]
        if any(not np.array_equal(value, values[0]) for value in values[1:]):
            raise AttributeError(f"The parts differ in {name}.")
        return values[0]

    def _place(self, index: int) -> tuple[ImageSet, int]:
        """The part that holds an image, and the image's position there."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self._parts[number]
        return part, int(index) - int(self._ends[number]) + len(part)


def _joined(values: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [value for value in values if value is not None]
    return np.concatenate(present) if len(present) == len(values) else None
