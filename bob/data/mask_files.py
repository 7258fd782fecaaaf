"""Mask files: the number in each pixel, and what all masks of a folder hold, remembered between runs."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFile

from bob.cores import granted_cores
from bob.data.files import UNREADABLE
from bob.data.remembered import Remembered, Row

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".pgm"})
"""Files that keep every pixel's number; JPEG does not."""

VERSION = 1
"""Raised whenever the same files would be told of otherwise."""

# PIL widens grey of two and four bits to the range of eight; the number in the file is what counts.
_WIDENED = {"L;2": 85, "L;4": 17}
_COLUMNS = ["sha256", "height", "width", "values", "pixels"]

Decoder = Callable[[bytes], np.ndarray]
"""A mask file's bytes -> the number in each pixel, (H, W); raises one of `UNREADABLE`, or `NoMask`."""


class NoMask(ValueError):
    """An image that is readable, but holds no number for each pixel; says why."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskFacts:
    """What one mask holds.

    Attributes:
        sha256: Of the file.
        size: Height and width in pixels.
        values: (v,) int64, the different numbers in it, rising.
        pixels: (v,) int64, how many pixels have each.
    """

    sha256: str
    size: tuple[int, int]
    values: np.ndarray
    pixels: np.ndarray


def decode_grey(content: bytes) -> np.ndarray:
    """Decode grey of up to 16 bits, or a palette's positions (never its colours): (H, W) uint8 or uint16.

    Raises:
        UNREADABLE: If the content is truncated or no image.
        NoMask: If it has colours, or pixels of 32 bits.
    """
    with Image.open(io.BytesIO(content)) as image:
        mode, widened = image.mode, _WIDENED.get(_raw_mode(image), 1)
        if mode in ("1", "L", "P"):
            pixels = np.asarray(image).astype(np.uint8)
            return pixels // widened if widened > 1 else pixels
        if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
            return np.asarray(image).astype(np.uint16)
    raise NoMask(f"it has {mode} pixels, not one number (grey or palette) in each")


def decode_rgb_ids(content: bytes) -> np.ndarray:
    """Decode COCO's panoptic ids, R + 256 G + 65536 B, to (H, W) int32; raises as `decode_grey`, of other than RGB."""
    with Image.open(io.BytesIO(content)) as image:
        if image.mode != "RGB":
            raise NoMask(f"it has {image.mode} pixels, not RGB")
        colours = np.asarray(image).astype(np.int32)
    return colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]


def what_is_wrong(error: BaseException) -> str:
    """Say in words why a mask cannot be read."""
    if isinstance(error, NoMask):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is truncated or not an image"


def scan(root: Path, names: Sequence[str], decode: Decoder) -> list[MaskFacts | str]:
    """Tell what each mask below `root` holds, or why it cannot be read.

    A mask whose size and times did not change is not read again: what was found lies under `places.home()`.

    Args:
        root: The folder.
        names: Paths relative to it.
        decode: How they are read.
    """
    known = Remembered("masks", root, _COLUMNS, [decode.__name__, str(VERSION)])

    def facts(name: str) -> MaskFacts | str:
        try:
            return _from_row(known.row(name, lambda path: _as_row(_facts(path.read_bytes(), decode))))
        except UNREADABLE as error:
            return what_is_wrong(error)

    with ThreadPoolExecutor(granted_cores()) as pool:
        found = list(pool.map(facts, names))
    known.save()
    return found


def _facts(content: bytes, decode: Decoder) -> MaskFacts:
    mask = decode(content)
    if mask.dtype == np.uint8:
        pixels = np.bincount(mask.ravel(), minlength=1)
        values = np.flatnonzero(pixels)
        pixels = pixels[values]
    else:  # hashed, not sorted: panoptic ids are few in an image, but large
        codes, values = pd.factorize(mask.ravel(), sort=True)
        pixels = np.bincount(codes)
    size = (int(mask.shape[0]), int(mask.shape[1]))
    return MaskFacts(hashlib.sha256(content).hexdigest(), size, values.astype(np.int64), pixels.astype(np.int64))


def _as_row(facts: MaskFacts) -> Row:
    return facts.sha256, *facts.size, facts.values.tobytes(), facts.pixels.tobytes()


def _from_row(row: Row) -> MaskFacts:
    sha256, height, width, values, pixels = row
    return MaskFacts(sha256, (height, width), np.frombuffer(values, np.int64), np.frombuffer(pixels, np.int64))


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the file itself packs its pixels, in PIL's words."""
    if not image.tile:
        return ""
    arguments = image.tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)
