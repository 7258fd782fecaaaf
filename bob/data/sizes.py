"""Heights and widths of image files from their headers, remembered between runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from bob import places
from bob.data.files import UNREADABLE

# Waiting for a disk or a network, not computing: more than there are cores.
_THREADS = 16
_CHUNK = 256
_COLUMNS = ["name", "stamp", "height", "width"]
_Known = dict[str, tuple[str, int, int]]


def file_sizes(root: Path, names: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Read the size of each image below a folder, without decoding it.

    Sizes are those of the stored pixels, as `FileImages.read` gives them: EXIF rotation is not applied. A file whose
    own size and times did not change is not opened again.

    Args:
        root: The folder.
        names: n paths relative to it.

    Returns:
        (n, 2) int64, height and width, zero where they cannot be had; and for those positions why not.
    """
    table = _table_of(root)
    known = _read(table)
    starts = range(0, len(names), _CHUNK)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = pool.map(lambda start: [_look(root, name, known) for name in names[start : start + _CHUNK]], starts)
        found = [row for chunk in chunks for row in chunk]
    fresh = {name: row for name, row in zip(names, found, strict=True) if not isinstance(row, str)}
    if any(known.get(name) != row for name, row in fresh.items()):
        _write(table, known | fresh)
    sizes = np.array([(0, 0) if isinstance(row, str) else row[1:] for row in found], dtype=np.int64).reshape(-1, 2)
    return sizes, {position: row for position, row in enumerate(found) if isinstance(row, str)}


def _look(root: Path, name: str, known: _Known) -> tuple[str, int, int] | str:
    """Stamp, height and width of a file, or why there are none."""
    path = os.path.join(root, name)
    try:
        stat = os.stat(path)
        stamp = f"{stat.st_size}/{stat.st_mtime_ns}/{stat.st_ctime_ns}"
        row = known.get(name)
        if row is not None and row[0] == stamp:
            return row
        with Image.open(path) as image:
            return stamp, image.height, image.width
    except FileNotFoundError:
        return "there is no file"
    except UNREADABLE as error:
        return getattr(error, "strerror", None) or "the file is damaged or not an image"


def _table_of(root: Path) -> Path:
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:20]
    return places.home() / "sizes" / f"{key}.parquet"


def _read(path: Path) -> _Known:
    # A table that is missing, damaged or of an older bob only means that headers are read again.
    with suppress(OSError, ValueError, KeyError):
        table = pd.read_parquet(path)
        columns = (table[name].tolist() for name in _COLUMNS)
        return {name: (stamp, height, width) for name, stamp, height, width in zip(*columns, strict=True)}
    return {}


def _write(path: Path, known: _Known) -> None:
    rows = [(name, *row) for name, row in sorted(known.items())]
    with places.atomic_file(path) as temporary:
        pd.DataFrame(rows, columns=_COLUMNS).to_parquet(temporary, index=False)
