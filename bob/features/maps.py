"""One grid of features for an image: the coarse maps of a backbone, brought together at one stride."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from bob.backbones.preprocess import Preprocess

STRIDE = 16
# Positions stored of an image at most, 32 x 32 (stride 16 at 512 px); finer grids are averaged down.
MOST_POSITIONS = 1024


@dataclass(frozen=True)
class Grid:
    """The form of an image's features, which are stored position after position.

    Attributes:
        rows: Positions from top to bottom; together with `columns` they cover the whole image.
        columns: Positions from left to right.
        channels: Numbers at each position.
        size: Height and width of the network's input, pixels.
        averaged_from: Rows and columns before they were averaged down; None if they were not.
    """

    rows: int
    columns: int
    channels: int
    size: tuple[int, int]
    averaged_from: tuple[int, int] | None = None

    @property
    def positions(self) -> int:
        """Number of positions."""
        return self.rows * self.columns

    @property
    def width(self) -> int:
        """Numbers of an image."""
        return self.positions * self.channels


def read_strides(strides: Sequence[int]) -> list[int]:
    """Which of a backbone's strides are read: 16 and coarser, or the coarsest where all are finer.

    A plain ViT has one stride, that of its patches, and is read on it whatever it is; a hierarchy gives several maps,
    so that neither kind is read at a finer resolution than the other.
    """
    return [stride for stride in strides if stride >= STRIDE] or [max(strides)]


def whole_image(preprocess: Preprocess, strides: Sequence[int], size: tuple[int, int] | None) -> Preprocess:
    """The checkpoint's preprocessing with the whole image squashed to `size`, or else to the checkpoint's own.

    Both edges are rounded up to whole cells of the coarsest map, so that every map covers the image exactly.
    """
    cell = max(read_strides(strides))
    height, width = (cell * math.ceil(edge / cell) for edge in size or preprocess.size)
    return replace(preprocess, size=(height, width), crop_fraction=1.0, crop_mode="squash")


def join_maps(maps: Sequence[torch.Tensor], strides: Sequence[int]) -> torch.Tensor:
    """Bring the maps that are read onto the finest one's grid, and put their channels one behind the other.

    Args:
        maps: (B, C_i, H_i, W_i) at each of the strides, finest first.
        strides: Of the maps.

    Returns:
        (B, rows, columns, C).
    """
    wanted = set(read_strides(strides))
    read = [map_ for map_, stride in zip(maps, strides, strict=True) if stride in wanted]
    grid = read[0].shape[-2:]
    same = [m if m.shape[-2:] == grid else interpolate(m, grid, mode="bilinear", align_corners=False) for m in read]
    joined = torch.cat(same, dim=1)
    bounded = bounded_grid(*grid)
    joined = joined if bounded == tuple(grid) else adaptive_avg_pool2d(joined, bounded)
    return joined.permute(0, 2, 3, 1)


def bounded_grid(rows: int, columns: int) -> tuple[int, int]:
    """The grid, or one of the same shape with as many positions as are stored at most."""
    shrink = math.sqrt(min(1.0, MOST_POSITIONS / (rows * columns)))
    if shrink == 1:
        return rows, columns
    # Of a very long grid the short side keeps one position.
    short = max(1, math.floor(min(rows, columns) * shrink))
    long = min(math.floor(max(rows, columns) * shrink), MOST_POSITIONS // short)
    return (short, long) if rows <= columns else (long, short)
