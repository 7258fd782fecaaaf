"""Images that lie in files: decoding, and the hash of their content."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from bob import places
from bob.data.base import ImageSet
from bob.data.loader import granted_cores
from bob.errors import UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})


class FileImages(ImageSet):
    """Labelled image files below one folder.

    Args:
        root: The folder.
        paths: N paths relative to it, with forward slashes; they are the images' names.
        labels: (N,) int64.
    """

    def __init__(self, root: Path, paths: Sequence[str], labels: np.ndarray) -> None:
        self.root = root
        self.names = list(paths)
        self.labels = np.asarray(labels, dtype=np.int64)
        self._fingerprint: str | None = None

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`; colour as PIL's `convert("RGB")` gives it, EXIF rotation not applied."""
        path = self.root / self.names[index]
        try:
            return decode(path.read_bytes())
        except (OSError, RuntimeError, SyntaxError, ValueError) as error:
            reason = "it is missing" if isinstance(error, FileNotFoundError) else "it is truncated or not an image"
            raise UserError(f"Cannot read image {path} (index {index}): {reason}.", "Replace or remove it.") from error

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; a file whose size and time did not change is not read again."""
        if self._fingerprint is None:
            digest = hashlib.sha256("\n".join(_content_hashes(self.root, self.names)).encode())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def decode(content: bytes) -> torch.Tensor:
    """Decode an image file's bytes to uint8 (3, H, W), RGB.

    Raises:
        RuntimeError, OSError: If the content is truncated or not an image.
    """
    if content[:3] == b"\xff\xd8\xff":
        # Same pixels as PIL (both use libjpeg-turbo), but faster.
        return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _content_hashes(root: Path, names: Sequence[str]) -> list[str]:
    """SHA-256 of each file, remembered by path, size and modification time under `places.home()`."""
    known = _HashTable(root)
    with ThreadPoolExecutor(granted_cores()) as pool:
        hashes = list(pool.map(known.sha256, names))
    known.save()
    return hashes


class _HashTable:
    """What is known of the content of the files below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:20]
        self._path = places.home() / "fingerprints" / f"{key}.parquet"
        self._known: dict[str, tuple[int, int, str]] = {}
        if self._path.is_file():
            table = pd.read_parquet(self._path)
            rows = zip(table["name"], table["size"], table["mtime_ns"], table["sha256"], strict=True)
            self._known = {name: (int(size), int(mtime), sha) for name, size, mtime, sha in rows}
        self._changed = False

    def sha256(self, name: str) -> str:
        path = self._root / name
        try:
            stat = os.stat(path)
            size, mtime, sha = self._known.get(name, (-1, -1, ""))
            if (size, mtime) == (stat.st_size, stat.st_mtime_ns):
                return sha
            with path.open("rb") as file:
                sha = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"Cannot read image {path}: {error.strerror}.", "Restore or remove it.") from error
        self._known[name] = (stat.st_size, stat.st_mtime_ns, sha)
        self._changed = True
        return sha

    def save(self) -> None:
        if not self._changed:
            return
        rows = [(name, *values) for name, values in sorted(self._known.items())]
        with places.atomic_file(self._path) as temporary:
            pd.DataFrame(rows, columns=["name", "size", "mtime_ns", "sha256"]).to_parquet(temporary, index=False)
