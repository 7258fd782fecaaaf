"""What probes of segmentation share: grids of features read a few images at a time, and scores made maps of classes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch

from bob.probes.minibatch import Standardizer, exact

Target = Callable[[int], np.ndarray]  # position of an image -> (H, W) integers, the class of each pixel or below 0

_ELEMENTS = 1 << 23  # numbers of features held at once as float32
_SCORES = 1 << 24  # scores of pixels held at once


class GridFeatures:
    """Features of images on one grid, lying in one or several stores and read from there a few at a time.

    Args:
        parts: For each store its features (N, rows * columns * D), memory-mapped or not, and which of its rows to take,
            in order; images are counted through all parts.
        grid: Rows and columns.

    Raises:
        ValueError: If the parts differ in width, or it is no multiple of the positions.
    """

    def __init__(self, parts: Sequence[tuple[np.ndarray, np.ndarray]], grid: tuple[int, int]) -> None:
        widths = {stored.shape[1] for stored, _ in parts}
        self.rows, self.columns = grid
        self.positions = self.rows * self.columns
        if len(widths) != 1 or min(widths) % self.positions:
            raise ValueError(f"Expected stores as wide as a multiple of {self.positions} positions, but got {widths}.")
        self.channels = widths.pop() // self.positions
        self._stores = [stored for stored, _ in parts]
        self._store = np.concatenate([np.full(len(rows), number) for number, (_, rows) in enumerate(parts)])
        self._row = np.concatenate([np.asarray(rows, dtype=np.int64) for _, rows in parts])

    def __len__(self) -> int:
        return len(self._row)

    def read(self, images: np.ndarray, device: str = "cpu") -> torch.Tensor:
        """Copy the features of these images (b,) to the device: float32 (b, positions, D)."""
        read = np.empty((len(images), self.positions * self.channels), dtype=np.float32)
        for number, stored in enumerate(self._stores):
            here = self._store[images] == number
            if here.any():
                read[here] = stored[self._row[images[here]]]
        return torch.from_numpy(read).view(len(images), self.positions, self.channels).to(device)

    def runs(self) -> Iterator[np.ndarray]:
        """Cut the images into runs, in order, whose features fit into memory."""
        each = max(1, _ELEMENTS // (self.positions * self.channels))
        return (np.arange(start, min(start + each, len(self))) for start in range(0, len(self), each))

    def standardizer(self, device: str) -> Standardizer:
        """Mean and scale of each channel over all positions of all images, added up a few images at a time."""
        # Relative to the first position, because the variance of numbers far from zero is lost in their squares.
        origin = self.read(np.arange(1))[0, 0].double()
        total, square = torch.zeros_like(origin), torch.zeros_like(origin)
        for run in self.runs():
            x = self.read(run).view(-1, self.channels).double().sub_(origin)
            total += x.sum(dim=0)
            square += x.square_().sum(dim=0)
        offset = total / (len(self) * self.positions)
        spread = (square / (len(self) * self.positions) - offset.square()).clamp_min(0).sqrt()
        # As `Standardizer.of`: what is constant up to rounding stays as it is.
        rounding = 10 * torch.finfo(torch.float32).eps * (origin + offset).abs()
        scale = torch.where(spread <= rounding, torch.ones_like(spread), spread)
        return Standardizer((origin + offset).to(device, exact(device)), scale.to(device, exact(device)))


class DenseProbe(ABC):
    """Segmenters on grids of features, one for each point of a grid of hyperparameters, which share their work.

    Args:
        points: G of them.
        seed: Of everything random.
        device: Where to compute.
    """

    def __init__(self, points: Sequence[dict[str, Any]], seed: int = 0, device: str = "cpu") -> None:
        self.points = list(points)
        self.seed = seed
        self.device = device

    @abstractmethod
    def fit(self, features: GridFeatures, target: Target, n_classes: int) -> Self:
        """Learn every point; each target is read once.

        Raises:
            ValueError: If there is nothing to learn from, or a target or hyperparameter makes no sense.
        """

    @abstractmethod
    def scores(self, features: GridFeatures) -> Iterator[torch.Tensor]:
        """Yield for each image (G, rows, columns, n_classes): larger is more probable; linear between positions."""


def check_target(target: np.ndarray, image: int, n_classes: int) -> None:
    """Fail unless a target is (H, W) integers below `n_classes`.

    Raises:
        ValueError: Naming the image by its position.
    """
    if target.ndim != 2 or not np.issubdtype(target.dtype, np.integer) or target.max(initial=-1) >= n_classes:
        found = f"{target.dtype} {target.shape} up to {target.max(initial=-1)}"
        raise ValueError(f"Expected a map of integers below {n_classes} for image {image}, but got {found}.")


def class_map(scores: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return int16 (height, width), the class of the largest score at each pixel; the lowest of equal ones.

    Scores are interpolated bilinearly as `torch.nn.functional.interpolate(align_corners=False)` does, a band of the
    image at a time.

    Args:
        scores: (rows, columns, n_classes), at the middles of cells that cover the image.
        size: Height and width of the image, pixels.
    """
    (height, width), (rows, columns, classes) = size, scores.shape
    down, across = (_interpolation(*pair).to(scores) for pair in ((height, rows), (width, columns)))
    wide = (across @ scores).view(rows, width * classes)
    band = max(1, _SCORES // (width * classes))
    parts = [(down[top : top + band] @ wide).view(-1, width, classes).argmax(2) for top in range(0, height, band)]
    return torch.cat(parts).to(torch.int16).cpu().numpy()


def neighbours(place: np.ndarray, edge: int, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two cells between whose middles each pixel lies, and the second one's share of it; at the rim they are one.

    Args:
        place: Number of each pixel along an edge.
        edge: Pixels of the edge.
        cells: That cover it.
    """
    middle = np.clip((place + 0.5) * (cells / edge) - 0.5, 0, cells - 1)
    first = np.floor(middle).astype(np.int64)
    return first, np.minimum(first + 1, cells - 1), (middle - first).astype(np.float32)


def _interpolation(edge: int, cells: int) -> torch.Tensor:
    """(edge, cells): what each cell contributes to each pixel."""
    first, second, share = neighbours(np.arange(edge), edge, cells)
    matrix, pixels = np.zeros((edge, cells), dtype=np.float32), np.arange(edge)
    np.add.at(matrix, (pixels, first), 1 - share)
    np.add.at(matrix, (pixels, second), share)
    return torch.from_numpy(matrix)


def repetitions(images: int, seen: int, least: int, most: int) -> int:
    """How many epochs let that many images be seen in all, between `least` and `most`."""
    return min(max(math.ceil(seen / images), least), most)
