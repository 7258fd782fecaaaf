"""Heights and widths of image files from their headers, remembered between runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from bob.data.files import UNREADABLE
from bob.data.remembered import Remembered, Row

# Waiting for a disk or a network, not computing: more than there are cores.
_THREADS = 16
_CHUNK = 256


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
    known = Remembered("sizes", root, ["height", "width"])
    starts = range(0, len(names), _CHUNK)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = pool.map(lambda start: [_look(known, name) for name in names[start : start + _CHUNK]], starts)
        found = [size for chunk in chunks for size in chunk]
    known.save()
    sizes = np.array([(0, 0) if isinstance(size, str) else size for size in found], dtype=np.int64).reshape(-1, 2)
    return sizes, {position: why for position, why in enumerate(found) if isinstance(why, str)}


def _look(known: Remembered, name: str) -> Row | str:
    """Height and width of a file, or why there are none."""
    try:
        return known.row(name, _size)
    except FileNotFoundError:
        return "there is no file"
    except UNREADABLE as error:
        return getattr(error, "strerror", None) or "the file is damaged or not an image"


def _size(path: Path) -> Row:
    with Image.open(path) as image:
        return image.height, image.width
