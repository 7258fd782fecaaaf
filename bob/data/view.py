"""The images of another set: read where they are, known by the same content, with something else said of them."""

from __future__ import annotations

import torch

from bob.data.base import ImageSet


class View(ImageSet):
    """The images of a set; features stored of one serve the other. What stands beside the images is up to a subclass.

    Args:
        images: Where they are read from.
    """

    def __init__(self, images: ImageSet) -> None:
        self._images = images
        self.names = images.names

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`."""
        return self._images.read(index)

    def size(self, index: int) -> tuple[int, int]:
        """See `ImageSet.size`."""
        return self._images.size(index)

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; that of the set behind."""
        return self._images.fingerprint()
