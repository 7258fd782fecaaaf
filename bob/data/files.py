"""Images that lie in files: decoding, and the hash of their content."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bob.cores import granted_cores
from bob.data.base import ImageSet
from bob.data.remembered import Remembered
from bob.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
# What PIL raises on content that is no sound image.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class FileImages(ImageSet):
    """Labelled image files below one folder.

    Args:
        root: The folder.
        paths: N paths relative to it, with forward slashes; they are the images' names.
        labels: (N,) or (N, L) int64, as `ImageSet` has them.
        groups: (N,) int64, if there are groups.
        group_names: Their names.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: np.ndarray,
        groups: np.ndarray | None = None,
        group_names: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.names = list(paths)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.groups = None if groups is None else np.asarray(groups, dtype=np.int64)
        self.group_names = tuple(group_names)
        self._fingerprint: str | None = None

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`; colour as `to_rgb` gives it, EXIF rotation not applied."""
        path = self.root / self.names[index]
        try:
            return decode(path.read_bytes())
        except UNREADABLE as error:
            reason = getattr(error, "strerror", None) or _what_is_wrong(error)
            raise UserError(f"Cannot read image {path} (index {index}): {reason}.", "Replace or remove it.") from error

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; a file whose size and times did not change is not read again."""
        if self._fingerprint is None:
            digest = hashlib.sha256("\n".join(content_hashes(self.root, self.names)).encode())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def decode(content: bytes) -> torch.Tensor:
    """Decode an image file's bytes to uint8 (3, H, W), RGB.

    Raises:
        UNREADABLE: If the content is truncated, not an image, or has pixels without a range (32-bit).
    """
    if content.startswith(b"\xff\xd8\xff"):
        # Same pixels as PIL's, sooner. Whatever it refuses is PIL's to judge, as is all once torchvision drops it.
        with suppress(ImportError, RuntimeError):
            from torchvision.io import ImageReadMode, decode_jpeg

            return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as PIL's `convert("RGB")` does, but 16-bit grey as its high byte, where PIL saturates.

    Raises:
        ValueError: If pixels are 32-bit, so that nothing says which value is white.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ValueError("32-bit pixels")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _what_is_wrong(error: BaseException) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "it is larger than PIL allows, or damaged"
    return "it has 32-bit pixels" if "32-bit pixels" in str(error) else "it is truncated or not an image"


def content_hashes(root: Path, names: Sequence[str]) -> list[str]:
    """Return the SHA-256 (hex) of each file below `root`, remembered by path, size and times under `places.home()`.

    Raises:
        UserError: If a file cannot be read; names it.
    """
    known = Remembered("fingerprints", root, ["sha256"])

    def sha256(name: str) -> str:
        try:
            return str(known.row(name, _sha256)[0])
        except OSError as error:
            problem = f"Cannot read image {root / name}: {error.strerror}."
            raise UserError(problem, "Restore or remove it.") from error

    with ThreadPoolExecutor(granted_cores()) as pool:
        hashes = list(pool.map(sha256, names))
    known.save()
    return hashes


def _sha256(path: Path) -> tuple[str]:
    with path.open("rb") as file:
        return (hashlib.file_digest(file, "sha256").hexdigest(),)
