"""Several image sets as one: where a card's split is made of several, and where a training sees several splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from bob.data.base import ImageSet


class JoinedImages(ImageSet):
    """The images of several sets, one set after the other."""

    def __init__(self, parts: Sequence[ImageSet]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self.names = [name for part in parts for name in part.names]
        self.labels = np.concatenate([part.labels for part in parts])
        self.groups = _joined([part.groups for part in parts])
        self.group_names = parts[0].group_names
        self.subjects = _joined([part.subjects for part in parts])

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self._parts[number]
        return part.read(int(index) - int(self._ends[number]) + len(part))

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; the hash of the parts' fingerprints and lengths."""
        lines = [f"{len(part)} {part.fingerprint()}\n" for part in self._parts]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _joined(values: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [value for value in values if value is not None]
    return np.concatenate(present) if len(present) == len(values) else None
