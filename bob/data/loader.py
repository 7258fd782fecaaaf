"""Decoding and cropping in worker processes, sized by the cores that were really granted."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from bob.cores import granted_cores
from bob.errors import UserError

if TYPE_CHECKING:
    from bob.data.base import ImageSet

Item = TypeVar("Item")


@dataclass(frozen=True)
class Batch:
    """Some images, ready for the device: `indices` into their set, `images` uint8 (B, 3, h, w)."""

    indices: list[int]
    images: torch.Tensor


def load_batches(
    images: ImageSet,
    batches: Sequence[Sequence[int]],
    crop: Callable[[torch.Tensor], torch.Tensor],
    workers: int | None = None,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield the batches in the order given.

    Args:
        images: Where to read from.
        batches: Positions of each batch's images.
        crop: uint8 (3, H, W) -> uint8 (3, h, w), the same h and w for all; runs in the worker.
        workers: Worker processes; None for one a granted core, 0 to read in this process.
        pin_memory: Page-lock the batches for copying to a GPU.

    Raises:
        UserError: On the first image that cannot be read, naming it; if a worker process dies.
    """
    return make_batches(batches, _Cropped(images, crop), workers, pin_memory)


def make_batches(
    batches: Sequence[Sequence[int]],
    make: Callable[[int], torch.Tensor],
    workers: int | None = None,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield the batches in the order given, each of its images as `make` gives it.

    Args:
        batches: Positions of each batch's images.
        make: Position -> uint8 (3, h, w), the same h and w for all; runs in the worker.
        workers: See `load_batches`.
        pin_memory: See `load_batches`.

    Raises:
        UserError: The first that `make` raises, as it is; if a worker process dies.
    """
    made = make_items(len(batches), _Stacked(batches, make), workers, pin_memory)
    for batch, images in zip(batches, made, strict=True):
        yield Batch(list(batch), images)


def make_items(
    count: int, make: Callable[[int], Item], workers: int | None = None, pin_memory: bool = False
) -> Iterator[Item]:
    """Yield `make(0)`, `make(1)` and so on, made in worker processes ahead of time.

    Args:
        count: Number of items.
        make: Runs in the worker. What it returns crosses the process boundary by one file handle for each tensor in it.
        workers: See `load_batches`.
        pin_memory: Page-lock the items: tensors, or what has a method `pin_memory`.

    Raises:
        UserError: The first that `make` raises, as it is; if a worker process dies.
    """
    workers = granted_cores() if workers is None else workers
    loader = DataLoader(
        _Items(count, make),
        batch_size=None,
        num_workers=min(workers, count),
        pin_memory=pin_memory,
        generator=torch.Generator(),  # without one it takes a number from torch's global generator
    )
    try:
        for item in loader:
            # A worker hands its error over as a value: raised there it would come wrapped in a foreign traceback.
            if isinstance(item, UserError):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        # While its frames live torch counts the dead process as one of its own, and would say so again, wherever the
        # program is, when any other child ends.
        traceback.clear_frames(error.__traceback__)
        raise UserError(
            f"A process that reads images died: {error}",
            "Memory or shared memory (docker's --shm-size) may be short: use fewer --workers; 0 needs neither.",
        ) from error


@dataclass(frozen=True)
class _Cropped:
    """Reads an image and crops it."""

    images: ImageSet
    crop: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, index: int) -> torch.Tensor:
        return self.crop(self.images.read(index))


@dataclass(frozen=True)
class _Stacked:
    """Makes a whole batch, so that it crosses the process boundary as one block of memory."""

    batches: Sequence[Sequence[int]]
    make: Callable[[int], torch.Tensor]

    def __call__(self, number: int) -> torch.Tensor:
        crops = [self.make(index) for index in self.batches[number]]
        several = crops[0].shape[:-3]  # crops of one image, if it has more than one
        rows = len(crops) * math.prod(several)
        batch = torch.empty(rows, *crops[0].shape[-3:], dtype=torch.uint8, memory_format=torch.channels_last)
        torch.cat([crop.reshape(-1, *crop.shape[-3:]) for crop in crops], out=batch)
        return batch.unflatten(0, (len(crops), *several)) if several else batch


class _Items(TorchDataset, Generic[Item]):
    """Item i is what `make` gives for i, or the mistake of the user's that it found."""

    def __init__(self, count: int, make: Callable[[int], Item]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Item | UserError:
        try:
            return self._make(number)
        except UserError as error:
            return error
