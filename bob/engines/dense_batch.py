"""Images of different sizes and what is where in them, as one batch for a dense network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from bob.data.objects import IGNORE


@dataclass(frozen=True)
class Sample:
    """One image at the size at which the network sees it, and what is where in it.

    Attributes:
        image: uint8 (3, h, w).
        original: Height and width of the image as it lies on disk.
        boxes: (k, 4) float32, left, top, right and bottom in pixels of `image`; None where nothing is detected.
        labels: (k,) int64.
        masks: (k, h, w) uint8; None where the data have none.
        classes: (h, w) int64, the class of each pixel; None where nothing is segmented.
    """

    image: torch.Tensor
    original: tuple[int, int]
    boxes: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    masks: torch.Tensor | None = None
    classes: torch.Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of `image`."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True)
class DenseBatch:
    """Images padded at right and bottom to one size, uint8 on the CPU.

    Attributes:
        indices: Positions of the B images in their split.
        images: uint8 (B, 3, h, w), channels-last.
        sizes: Height and width of the valid part of each image.
        originals: Height and width of each image as it lies on disk.
        counts: Number of objects in each image; empty where nothing is detected.
        boxes: (sum of `counts`, 4) float32, as in `Sample`: those of all images, one after another, since a tensor for
            each image would take a file handle each on its way from the worker.
        labels: (sum of `counts`,) int64.
        masks: (sum of `counts`, h, w) uint8; None where the data have none.
        classes: (B, h, w) int64 with `IGNORE` in the padding; None where nothing is segmented.
    """

    indices: list[int]
    images: torch.Tensor
    sizes: list[tuple[int, int]]
    originals: list[tuple[int, int]]
    counts: tuple[int, ...] = ()
    boxes: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    masks: torch.Tensor | None = None
    classes: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def targets(self) -> Any:
        """A dict of `boxes`, `labels` and, if there are, `masks` for each image; or `classes`; or None."""
        if self.boxes is None:
            return self.classes
        named = {name: getattr(self, name) for name in ("boxes", "labels", "masks")}
        split = {name: tensor.split(self.counts) for name, tensor in named.items() if tensor is not None}
        return [dict(zip(split, parts, strict=True)) for parts in zip(*split.values(), strict=True)]

    def split(self, size: int) -> Iterator[DenseBatch]:
        """Cut into batches of up to `size` images, padded as before."""
        for first in range(0, len(self), size):
            images = slice(first, first + size)
            before = sum(self.counts[:first])
            counts = self.counts[images]
            objects = slice(before, before + sum(counts))
            cut = {
                name: None if tensor is None else tensor[images if name in ("images", "classes") else objects]
                for name, tensor in self._tensors().items()
            }
            yield DenseBatch(
                indices=self.indices[images],
                sizes=self.sizes[images],
                originals=self.originals[images],
                counts=counts,
                **cut,  # type: ignore[arg-type]
            )

    def to(self, device: torch.device) -> DenseBatch:
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> DenseBatch:
        """The same, page-locked for copying to a GPU."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> DenseBatch:
        tensors = {name: tensor for name, tensor in self._tensors().items() if tensor is not None}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})  # type: ignore[arg-type]

    def _tensors(self) -> dict[str, torch.Tensor | None]:
        return {name: getattr(self, name) for name in ("images", "boxes", "labels", "masks", "classes")}


def collate(
    samples: Sequence[Sample],
    indices: Sequence[int],
    fill: Sequence[int],
    multiple: int,
    least: tuple[int, int] = (0, 0),
) -> DenseBatch:
    """Pad samples to one size and put them into a batch.

    Args:
        samples: Of one kind: all with boxes, all with classes, or all with neither.
        indices: Their positions in the split.
        fill: Colour of the padding, RGB.
        multiple: Height and width of the batch are multiples of it.
        least: Smallest height and width.
    """
    sizes = [sample.size for sample in samples]
    height, width = (
        -(-max(smallest, *(size[axis] for size in sizes)) // multiple) * multiple for axis, smallest in enumerate(least)
    )
    images = torch.empty(len(samples), 3, height, width, dtype=torch.uint8, memory_format=torch.channels_last)
    images[:] = torch.tensor(fill, dtype=torch.uint8)[:, None, None]
    for image, sample in zip(images, samples, strict=True):
        image[:, : sample.size[0], : sample.size[1]] = sample.image
    packed: dict[str, Any] = {}
    if samples[0].boxes is not None:
        packed = {name: torch.cat([getattr(sample, name) for sample in samples]) for name in ("boxes", "labels")}
        packed["counts"] = tuple(len(sample.labels) for sample in samples)  # type: ignore[arg-type]
    if samples[0].masks is not None:
        packed["masks"] = torch.cat([_padded(sample.masks, height, width, 0) for sample in samples])
    if samples[0].classes is not None:
        packed["classes"] = torch.stack([_padded(sample.classes, height, width, IGNORE) for sample in samples])
    return DenseBatch(list(indices), images, sizes, [sample.original for sample in samples], **packed)


def _padded(values: torch.Tensor | None, height: int, width: int, fill: int) -> torch.Tensor:
    if values is None:
        raise ValueError("Expected all `samples` to be of one kind, but got some without an annotation.")
    return F.pad(values, (0, width - values.shape[-1], 0, height - values.shape[-2]), value=fill)
