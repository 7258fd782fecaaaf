"""Data sets that bob draws itself: rendered once into the cache, verified at every opening, memory-mapped."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from bob import places
from bob.data.base import ImageSet
from bob.data.made_folder import ensure_folder
from bob.data.silhouettes import PHOTOS
from bob.errors import UserError

_TABLE = "table.parquet"
_LIBRARIES = ("numpy", "pillow", "scikit-learn")


@dataclass(frozen=True)
class Recipe:
    """How to draw one data set.

    Attributes:
        source: Name of the data set.
        version: Raised whenever the recipe would give other pixels or another table.
        seed: Seed of everything random.
        arrays: Names of the arrays that `render` gives.
        render: Draws the data set: its arrays by name, and a table.
    """

    source: str
    version: int
    seed: int
    arrays: tuple[str, ...]
    render: Callable[[], tuple[dict[str, np.ndarray], pd.DataFrame]]

    @property
    def folder(self) -> Path:
        """Where the rendered data set lies."""
        return places.home() / "rendered" / f"{self.source}-v{self.version}-seed{self.seed}"

    def write(self, folder: Path) -> None:
        """Draw the data set into a folder."""
        arrays, table = self.render()
        for name in self.arrays:
            # Plain writing, not a writable memory map: on a full disk that would end in SIGBUS.
            np.save(folder / f"{name}.npy", arrays[name])
        table.to_parquet(folder / _TABLE, index=False)


class RenderedImages(ImageSet):
    """The images of one split of a rendered data set, memory-mapped; what is pickled is only where they lie.

    Attributes:
        source: Name of the data set.
        groups: (n,) int64, the photograph behind: a position in `PHOTOS`.
        table: A row for each image.

    Args:
        folder: Where the data set was rendered.
        split: `train`, `val` or `test`.
        counts: Number of images of each split, in the order in which they are stored.
    """

    source: ClassVar[str]

    def __init__(self, folder: Path, split: str, counts: Mapping[str, int]) -> None:
        self.folder = folder
        self.split = split
        self.table = open_table(folder, split)
        photo = {name: number for number, name in enumerate(PHOTOS)}
        self.groups = self.table["background_photo"].map(photo).to_numpy(np.int64)
        self.group_names = PHOTOS
        self.names: Sequence[str] = [f"{self.source}/{split}/{index:05d}" for index in self.table["index"]]
        self._rows = rows_of(counts, split)
        self._images = self._open("images")

    def read(self, index: int) -> torch.Tensor:
        """Return image `index` as uint8 (3, H, W), RGB; the tensor is the caller's own."""
        return torch.from_numpy(self._images[index].transpose(2, 0, 1).copy())

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the bytes of the split's images, in order."""
        return self._content_hash

    @cached_property
    def _content_hash(self) -> str:
        return content_hash(self._images)

    def _open(self, name: str) -> np.ndarray:
        return open_array(self.folder, name, self._rows)

    def __reduce__(self) -> tuple[Callable[[Path, str], RenderedImages], tuple[Path, str]]:
        # A pickled memory map would carry all pixels to every worker; a reopened one carries none.
        kind: Callable[..., RenderedImages] = type(self)
        return kind, (self.folder, self.split)


def check_seed(seed: int) -> int:
    """Return `seed`.

    Raises:
        UserError: If it is not a non-negative integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UserError(f"Expected `seed` to be a non-negative integer, but got {seed!r}.", "Try `seed=0`.")
    return int(seed)


def ensure_rendered(recipe: Recipe) -> Path:
    """Return the folder of a rendered data set, drawing it first where it is missing, damaged or of another version.

    Any number of processes may do this at once; all end with the same content.

    Raises:
        UserError: If the folder cannot be written.
    """
    identity = {"source": recipe.source, "version": recipe.version, "seed": recipe.seed}
    made_with = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return ensure_folder(recipe.folder, identity, recipe.write, {"made_with": made_with})


def open_array(folder: Path, name: str, rows: slice) -> np.ndarray:
    """Return some rows of a rendered array, memory-mapped and read-only."""
    array: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="r")[rows]
    return array


def open_table(folder: Path, split: str) -> pd.DataFrame:
    """Return the rows of a rendered table that belong to a split, numbered from 0, without the column `split`."""
    table = pd.read_parquet(folder / _TABLE)
    return table[table["split"] == split].drop(columns="split").reset_index(drop=True)


def rows_of(counts: Mapping[str, int], split: str) -> slice:
    """Return where a split lies in arrays that hold all splits one after the other."""
    names = list(counts)
    start = sum(counts[name] for name in names[: names.index(split)])
    return slice(start, start + counts[split])


def content_hash(array: np.ndarray) -> str:
    """Return the SHA-256 (hex) of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
