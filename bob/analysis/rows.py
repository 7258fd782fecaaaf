"""Some rows and columns of stored features, read from the file when they are asked for."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np


class Rows:
    """Rows `indices` and columns `columns` of an array, like an array (n, D) of which rows can be read.

    Where a split is cut from a pool its images lie scattered in the store: taking them out at once would copy all of
    them into memory.

    Args:
        stored: (N, W), memory-mapped.
        indices: (n,) positions in it.
        columns: D of its columns; None for all.
    """

    ndim = 2

    def __init__(self, stored: np.ndarray, indices: np.ndarray, columns: slice | None = None) -> None:
        # The columns first: taking rows of a view copies no other columns.
        self._stored = stored[:, columns or slice(None)]
        self._indices = indices
        self.shape = (len(indices), self._stored.shape[1])

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Copy some of the rows: (m, D)."""
        return self._stored[self._indices[rows]]


Features: TypeAlias = np.ndarray | Rows
