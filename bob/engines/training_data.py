"""The images that a training sees, and how they are cut into updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bob.data.base import Dataset, Split
from bob.data.joined import JoinedImages
from bob.engines.recipe import Recipe
from bob.errors import UserError


def training_split(dataset: Dataset, names: Sequence[str]) -> Split:
    """All images of the named splits, as one.

    Raises:
        ValueError: If `test` is among them, or none is.
    """
    if not names or "test" in names:
        raise ValueError(f"Expected `splits` to name training or validation splits, but got {tuple(names)}.")
    splits = [dataset.splits[name] for name in names]
    if len({id(split.images) for split in splits}) == 1:
        return Split(splits[0].images, np.concatenate([split.indices for split in splits]))
    joined = JoinedImages([split.images for split in splits])
    starts = np.cumsum([0, *(len(split.images) for split in splits)])
    return Split(joined, np.concatenate([s.indices + at for s, at in zip(splits, starts[:-1], strict=True)]))


@dataclass(frozen=True)
class Plan:
    """How an epoch is cut into updates, and an update into parts that are loaded and mixed as one batch.

    Attributes:
        part: Images in one part of one process.
        parts: Parts in one update of one process.
        world: Number of processes.
        updates: Updates in an epoch; images beyond the last are left out, others in each epoch.
        epochs: Number of epochs.
    """

    part: int
    parts: int
    world: int
    updates: int
    epochs: int

    @property
    def batch(self) -> int:
        """Images in one update, over all processes."""
        return self.part * self.parts * self.world

    @property
    def steps(self) -> int:
        """Updates in the whole training."""
        return self.updates * self.epochs


def make_plan(images: int, recipe: Recipe, world: int, device: torch.device) -> Plan:
    """Cut the recipe's batch into equal parts for each process; a batch larger than the data becomes the data.

    Raises:
        UserError: If there are no equal parts, or fewer images than processes.
    """
    most = recipe.micro_batch or (32 if device.type == "cpu" else 128)
    if images < world:
        raise UserError(f"{images} training images are too few for {world} processes.", "Use fewer processes.")
    if recipe.batch_size > images:
        share = images // world
        parts = -(-share // most)  # as few as hold them, and equal, so that next to none is left out
        return Plan(share // parts, parts, world, updates=1, epochs=recipe.epochs)
    if recipe.batch_size % world:
        raise _without_parts(recipe, f"for {world} processes")
    share = recipe.batch_size // world
    part = max(size for size in range(1, min(most, share) + 1) if share % size == 0)
    if part == 1 < min(most, share):  # BatchNorm would see one image at a time
        raise _without_parts(recipe, f"of up to {most} images for {world} processes")
    return Plan(part, share // part, world, images // recipe.batch_size, recipe.epochs)


def _without_parts(recipe: Recipe, what: str) -> UserError:
    problem = f"The batch of {recipe.batch_size} images of recipe '{recipe.name}' has no equal parts {what}."
    return UserError(problem, "Use a batch_size with more divisors, e.g. a power of 2.")
