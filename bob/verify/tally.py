"""What the annotations of many images hold, added up class by class."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from bob.data.base import ImageSet
from bob.data.objects import IGNORE, Objects

AREAS = (32**2, 96**2)
"""Square pixels from which on an object is medium, and from which on it is large (COCO's)."""


@dataclass
class Tally:
    """Sums over some images of a set with L classes.

    Attributes:
        objects: (L,) int64, objects of each class; crowds apart.
        crowds: (L,) int64, regions that count for nothing in detection.
        areas: (3,) int64, how many of the objects are small, medium and large.
        pixels: (L,) int64, pixels of each class in segmentation.
        ignored: (1,) int64, pixels that count for nothing.
        empty: (1,) int64, images without any object or class.
    """

    objects: np.ndarray
    crowds: np.ndarray
    areas: np.ndarray
    pixels: np.ndarray
    ignored: np.ndarray
    empty: np.ndarray

    @classmethod
    def of(cls, classes: int) -> Tally:
        """Nothing yet, of so many classes."""
        sizes = {"areas": len(AREAS) + 1, "ignored": 1, "empty": 1}
        return cls(**{one.name: np.zeros(sizes.get(one.name, classes), np.int64) for one in fields(cls)})

    def add(self, other: Tally) -> None:
        """Add what other images hold."""
        for one in fields(self):
            getattr(self, one.name)[:] += getattr(other, one.name)

    def count(self, images: ImageSet, index: int) -> str:
        """Open and add one image's annotation; say what is wrong with it as a whole, or nothing.

        Raises:
            UserError: If it cannot be read.
        """
        target = images.target(index)
        if images.target_kind == "detection":
            return self._count_objects(target)
        return self._count_pixels(target)

    def _count_objects(self, target: Objects) -> str:
        counted = ~target.crowd
        self.objects += np.bincount(target.labels[counted], minlength=len(self.objects))
        self.crowds += np.bincount(target.labels[~counted], minlength=len(self.crowds))
        self.areas += np.bincount(np.digitize(target.areas[counted], AREAS), minlength=len(self.areas))
        self.empty += not counted.any()
        if target.rles is None:
            return ""
        wrong = [rle["size"] for rle in target.rles if tuple(rle["size"]) != target.size]
        return f"a mask has {_by(wrong[0])} pixels, the image {_by(target.size)}" if wrong else ""

    def _count_pixels(self, target: Any) -> str:
        pixels = np.bincount((target.ravel() - IGNORE).astype(np.int64), minlength=len(self.pixels) + 1)
        self.ignored += pixels[0]
        self.pixels += pixels[1:]
        self.empty += not pixels[1:].any()
        return ""


def _by(size: Any) -> str:
    return f"{size[0]} x {size[1]}"
