"""What probes trained by mini-batches share: rows read a few at a time, standardised, in an order set by a seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Self

import numpy as np
import torch

from bob.probes.base import to_tensor

# Features held in float64 at once; bounds memory whatever the number of images.
_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Standardizer:
    """Brings each feature to mean 0 and variance 1 over the training images, or leaves it alone.

    Attributes:
        mean: (D,), subtracted from the features; float64 (float32 on a device without it).
        scale: (D,), by which they are divided; 1 for a feature that is constant up to rounding, as in StandardScaler.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, features: np.ndarray, device: str, tokens: int = 1) -> Self:
        """Take mean and scale from features (n, tokens * D), all tokens of all images alike, a few rows at a time."""
        width = features.shape[1] // tokens
        # Relative to the first vector, because the variance of numbers far from zero is lost in their squares.
        origin = torch.from_numpy(np.array(features[0, :width], dtype=np.float64))
        total, square = torch.zeros_like(origin), torch.zeros_like(origin)
        for run in runs(features):
            x = torch.from_numpy(np.array(features[run], dtype=np.float64)).reshape(-1, width).sub_(origin)
            total += x.sum(dim=0)
            square += x.square_().sum(dim=0)
        offset = total / (len(features) * tokens)
        spread = (square / (len(features) * tokens) - offset.square()).clamp_min(0).sqrt()
        mean = origin + offset
        # Features come in float32, whatever they are computed in here.
        rounding = 10 * torch.finfo(torch.float32).eps * mean.abs()
        scale = torch.where(spread <= rounding, torch.ones_like(spread), spread)
        return cls(mean.to(device, exact(device)), scale.to(device, exact(device)))

    @classmethod
    def none(cls, features: np.ndarray, device: str) -> Self:
        """Leave features (n, D) as they are."""
        zero = torch.zeros(features.shape[1], dtype=exact(device), device=device)
        return cls(zero, torch.ones_like(zero))

    def __call__(self, features: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Copy features (n, tokens * D) to the device, standardised: (n * tokens, D)."""
        x = to_tensor(features, self.mean.device).reshape(-1, len(self.mean))
        x = x.to(torch.promote_types(x.dtype, dtype))
        return x.sub_(self.mean.to(x.dtype)).div_(self.scale.to(x.dtype)).to(dtype)


def exact(device: torch.device | str) -> torch.dtype:
    """The most exact floating type of a device."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def runs(features: np.ndarray) -> Iterator[slice]:
    """Cut the rows of features (n, D) into runs that fit into memory."""
    rows = max(1, _CHUNK_ELEMENTS // features.shape[1])
    return (slice(start, start + rows) for start in range(0, len(features), rows))


def shuffled_batches(n: int, batch_size: int, epochs: int, seed: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yield each step's share of the training done before it, in [0, 1), and its rows.

    Every epoch goes through all rows in an order of its own; its last batch may be smaller. Within a batch rows
    ascend, so that memory-mapped features are read forwards.
    """
    order = np.random.default_rng(seed)
    steps = math.ceil(n / batch_size)
    for epoch in range(epochs):
        rows = order.permutation(n)
        for step in range(steps):
            yield (epoch + step / steps) / epochs, np.sort(rows[step * batch_size : (step + 1) * batch_size])


def cosine(share: float) -> float:
    """The factor of the learning rate after this share of the training: from 1 to 0 along half a cosine.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), without restarts.
    """
    return 0.5 * (1 + math.cos(math.pi * share))


def check_recipe(lr: float, weight_decay: float, epochs: int, batch_size: int, seed: int) -> None:
    """Fail unless the hyperparameters of a training by mini-batches make sense.

    Raises:
        ValueError: Naming the first that does not.
    """
    if not 0 < lr < math.inf:
        raise ValueError(f"Expected `lr` to be positive and finite, but got {lr}.")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"Expected `weight_decay` to be finite and not negative, but got {weight_decay}.")
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        check_count(name, value, least)


def check_count(name: str, value: int, least: int) -> None:
    """Fail unless a hyperparameter is an integer, and large enough.

    Raises:
        ValueError: Naming it.
    """
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"Expected `{name}` to be an integer of at least {least}, but got {value}.")
