"""What was found out about the files below a folder, remembered between runs for as long as they do not change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from bob import places

Row: TypeAlias = tuple[Any, ...]


class Remembered:
    """A table of one row for each file below a folder, under `places.home()`; threads may share it.

    A table that is missing, damaged or of an older bob only means that files are read again.

    Args:
        kind: Name of the folder in which such tables lie.
        root: The folder that the files are below.
        columns: Names of the values of a row.
        how: Whatever else the values depend on.
    """

    def __init__(self, kind: str, root: Path, columns: Sequence[str], how: Sequence[str] = ()) -> None:
        key = hashlib.sha256("\n".join([str(root.resolve()), *how]).encode()).hexdigest()[:20]
        self._root, self._columns = root, ["name", "stamp", *columns]
        self._path = places.home() / kind / f"{key}.parquet"
        self._known: dict[str, tuple[str, Row]] = {}
        with suppress(OSError, ValueError, KeyError):
            table = pd.read_parquet(self._path)
            rows = zip(*(table[column].tolist() for column in self._columns), strict=True)
            self._known = {name: (stamp, tuple(row)) for name, stamp, *row in rows}
        self._changed = False

    def row(self, name: str, find: Callable[[Path], Row]) -> Row:
        """The row of a file: as it was found, if size and times are what they were, or else what `find` gives.

        Args:
            name: Path below the folder.
            find: From the file's path to its row.

        Raises:
            OSError: If there is no such file. And what `find` raises; nothing is remembered then.
        """
        path = os.path.join(self._root, name)
        stat = os.stat(path)
        # The change time too, because unpacking an archive sets the modification time.
        now = f"{stat.st_size}/{stat.st_mtime_ns}/{stat.st_ctime_ns}"
        stamp, row = self._known.get(name, ("", ()))
        if stamp != now:
            row = find(Path(path))
            self._known[name], self._changed = (now, row), True
        return row

    def save(self) -> None:
        """Write the table, if it has changed.

        Raises:
            OSError: If the disk refuses.
        """
        if not self._changed:
            return
        rows = [(name, stamp, *row) for name, (stamp, row) in sorted(self._known.items())]
        with places.atomic_file(self._path) as temporary:
            pd.DataFrame(rows, columns=self._columns).to_parquet(temporary, index=False)
