"""Which image comes when in an epoch, and random numbers for each of them alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from bob.errors import UserError

# What a random choice is for, so that no two draw from one stream.
ORDER, IMAGE, MIX, ERASE = range(4)


def epoch_positions(
    images: int, batch_size: int, *, seed: int, epoch: int, start: int = 0, rank: int = 0, world: int = 1
) -> list[list[int]]:
    """Positions of the images in each of an epoch's batches, shuffled; of several processes, each gets its part.

    An incomplete last batch is left out unless it is the only one; that one is cut to a multiple of `world`.

    Args:
        images: How many there are.
        batch_size: Images in one batch of all processes together.
        seed: Of the training.
        epoch: Counted from 0.
        start: First batch, of those that the epoch has.
        rank: This process.
        world: Number of processes.

    Raises:
        UserError: If `batch_size` is no multiple of `world`, or there are fewer images than processes.
    """
    if batch_size % world:
        raise UserError(
            f"A batch of {batch_size} images has no equal parts for {world} processes.",
            f"Use a batch size that is a multiple of {world}.",
        )
    if images < world:
        raise UserError(f"{images} training images are too few for {world} processes.", "Use fewer processes.")
    order = np.random.default_rng([ORDER, seed, epoch]).permutation(images)
    part = shard_positions(min(batch_size, images // world * world), rank, world)
    firsts = range(start * batch_size, epoch_length(images, batch_size) * batch_size, batch_size)
    return [order[first + part].tolist() for first in firsts]


def epoch_length(images: int, batch_size: int) -> int:
    """Number of batches in an epoch: whole ones, but never none."""
    return max(1, images // batch_size)


def shard_positions(batch_size: int, rank: int, world: int) -> np.ndarray:
    """Which images of a batch one process gets.

    Mixup mixes the first image with the last, the second with the second last, and so on; parts of an even number of
    images are made of such pairs, so that all parts together are mixed as the whole batch would be.
    """
    own = batch_size // world
    if own % 2:
        return np.arange(rank * own, (rank + 1) * own)
    front = np.arange(rank * own // 2, (rank + 1) * own // 2)
    return np.concatenate([front, batch_size - 1 - front[::-1]])


@contextmanager
def random_for_image(seed: int, epoch: int, position: int) -> Iterator[None]:
    """Inside the block the CPU's global generators are the image's own; after it they are as they were before."""
    with generators_restored():
        seed_generators(IMAGE, seed, epoch, position)
        yield


@contextmanager
def generators_restored() -> Iterator[None]:
    """The CPU's global generators, which timm and torchvision draw from, are after the block as they were before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_generators(*key: int) -> None:
    """Seed the CPU's global generators."""
    numbers = np.random.SeedSequence(key).generate_state(3, np.uint32).tolist()
    random.seed(numbers[0])
    np.random.seed(numbers[1])
    torch.default_generator.manual_seed(numbers[2])  # `torch.manual_seed` would seed the GPUs too
