"""Features on disk: written once in shards, checked on reading, memory-mapped, never read half-written."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bob import places

# A change of the layout on disk or of the meaning of an identity; part of every key.
FORMAT = 1
SHARD_ROWS = 256
# Rows in half precision are those of whole maps, a megabyte each: a shard of them is bounded in bytes too.
_SHARD_BYTES = 1 << 25
_ARRAY = "features.npy"
_IDENTITY = "identity.json"


@dataclass(frozen=True)
class ShardCost:
    """What computing one shard took.

    Attributes:
        images: Rows of the shard.
        seconds: Wall time from asking for its images to having its features.
        waiting: Seconds of these in which the device waited for decoded images.
    """

    images: int
    seconds: float
    waiting: float

    @property
    def images_per_second(self) -> float:
        """End-to-end rate, decoding included."""
        return self.images / self.seconds if self.seconds else 0.0


class FeatureStore:
    """The features of one image set by one backbone: (N, D) in one file, with a mark for each finished shard.

    The folder's name is the hash of the identity, so anything that could change a feature leads to another folder.
    A shard's mark carries the checksum of its rows and is written after them: rows without a mark do not count.
    Shards are fixed ranges of rows, so any process with any number of workers can go on where another was killed.

    Args:
        identity: JSON-ready description of everything that decides the features.
        rows: N.
        width: D.
        root: Where stores live; `places.home() / "features"` if None. Nothing is written before `create`.
        dtype: Of the stored numbers.
    """

    def __init__(
        self,
        identity: dict[str, Any],
        rows: int,
        width: int,
        root: Path | None = None,
        dtype: Literal["float32", "float16"] = "float32",
    ) -> None:
        content = {"format": FORMAT, "rows": rows, "width": width, **identity}
        if dtype != "float32":
            content["dtype"] = dtype
        self._identity = json.dumps(content, sort_keys=True, indent=1)
        key = hashlib.sha256(self._identity.encode()).hexdigest()[:24]
        self.shape = (rows, width)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.path = (root or default_root()) / key

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's features."""
        return self.shape[1] * self.dtype.itemsize

    def shards(self) -> Iterator[tuple[int, range]]:
        """Each shard's number and the rows that it covers."""
        half = self.dtype.itemsize == 2
        size = min(SHARD_ROWS, max(1, _SHARD_BYTES // self.row_bytes)) if half else SHARD_ROWS
        for number, start in enumerate(range(0, self.shape[0], size)):
            yield number, range(start, min(start + size, self.shape[0]))

    def missing(self) -> list[tuple[int, range]]:
        """The shards that are still to be computed; a shard whose rows do not match its checksum is one of them."""
        features = self._map()
        return [(n, rows) for n, rows in self.shards() if features is None or not self._is_sound(n, features, rows)]

    def create(self) -> None:
        """Take the disk space of all shards, unless that is done; what is damaged as a whole is replaced.

        Raises:
            OSError: If the disk has no room for the whole array; nothing is left of it.
        """
        if self._map() is not None:
            return
        with places.atomic_folder(self.path) as temporary:
            (temporary / _IDENTITY).write_text(self._identity)
            (temporary / "marks").mkdir()
            array = np.lib.format.open_memmap(temporary / _ARRAY, mode="w+", dtype=self.dtype, shape=self.shape)
            del array
            _reserve(temporary / _ARRAY)
            if self.path.is_dir() and self._map() is None:
                shutil.rmtree(self.path)

    def write(self, number: int, features: np.ndarray, cost: ShardCost) -> None:
        """Write the rows of shard `number`, then its mark; keep the shard if another process has finished it meanwhile.

        Raises:
            OSError: If the disk refuses.
        """
        rows = dict(self.shards())[number]
        content = np.ascontiguousarray(features, dtype=self.dtype)
        if content.shape != (len(rows), self.shape[1]):
            raise ValueError(f"Expected shard {number} of shape {(len(rows), self.shape[1])}, but got {content.shape}.")
        self.create()
        with (self.path / _ARRAY).open("r+b") as file:
            # Rows and mark of two processes must not mix. Some cluster file systems have no locks; there they might.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            array = self._map()
            if array is None or self._is_sound(number, array, rows):
                return
            file.seek(array.offset + rows.start * self.row_bytes)
            file.write(content.data)
            file.flush()
            os.fsync(file.fileno())
            mark = {"sha256": _sha256(content), **asdict(cost)}
            with places.atomic_file(self._mark(number)) as temporary:
                temporary.write_text(json.dumps(mark))

    def clear(self) -> None:
        """Forget every shard, so that all are computed again."""
        for number, _ in self.shards():
            self._mark(number).unlink(missing_ok=True)

    def read(self) -> np.ndarray:
        """Return the features, memory-mapped and read-only: (N, D).

        Raises:
            RuntimeError: If a shard is missing or damaged; call `missing` first.
        """
        features, missing = self._map(), self.missing()
        if features is None or missing:
            raise RuntimeError(f"{self.path} lacks {len(missing)} shards.")
        return features

    def finished(self) -> tuple[range, np.ndarray] | None:
        """The rows of the first finished shard and their features; None if there is none yet."""
        features, missing = self._map(), dict(self.missing())
        done = next((rows for number, rows in self.shards() if number not in missing), None)
        return None if features is None or done is None else (done, features[done.start : done.stop])

    def cost(self) -> ShardCost:
        """What computing the finished shards took, in all."""
        marks = [mark for number, _ in self.shards() if (mark := self._read_mark(number))]
        return ShardCost(
            images=sum(mark["images"] for mark in marks),
            seconds=sum(mark["seconds"] for mark in marks),
            waiting=sum(mark["waiting"] for mark in marks),
        )

    def _map(self) -> np.memmap | None:
        """The array, memory-mapped; None if there is none or it is not what it should be."""
        try:
            array = np.load(self.path / _ARRAY, mmap_mode="r")
        except FileNotFoundError:
            return None
        except OSError:
            raise
        except Exception:  # a damaged header makes NumPy raise nearly anything
            return None
        return array if (array.shape, array.dtype) == (self.shape, self.dtype) else None

    def _mark(self, number: int) -> Path:
        return self.path / "marks" / f"{number:06d}.json"

    def _read_mark(self, number: int) -> dict[str, Any] | None:
        try:
            return json.loads(self._mark(number).read_text())
        except (OSError, ValueError):
            return None

    def _is_sound(self, number: int, features: np.ndarray, rows: range) -> bool:
        mark = self._read_mark(number)
        # The file's own pages, not a copy of them.
        return mark is not None and _sha256(features[rows.start : rows.stop]) == mark.get("sha256")


@dataclass(frozen=True)
class StoredFeatures:
    """One store on disk, as `bob cache ls` shows it.

    Attributes:
        path: Its folder; the name is its key.
        model: Source and identifier of the backbone.
        rows: N.
        width: D.
        finished: Number of finished shards.
        size: Bytes on disk.
    """

    path: Path
    model: str
    rows: int
    width: int
    finished: int
    size: int


def default_root() -> Path:
    """Folder of all stores."""
    return places.home() / "features"


def list_stores(root: Path | None = None) -> list[StoredFeatures]:
    """Every store below `root`, largest first."""
    found = []
    for path in (root or default_root()).glob(f"[!.]*/{_IDENTITY}"):
        folder, identity = path.parent, json.loads(path.read_text())
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        finished = sum(1 for _ in (folder / "marks").glob("[!.]*.json"))
        model = identity["backbone"]["model"]
        found.append(StoredFeatures(folder, model, identity["rows"], identity["width"], finished, size))
    return sorted(found, key=lambda store: -store.size)


def _sha256(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.data).hexdigest()


def _reserve(path: Path) -> None:
    """Take the file's whole length from the disk now, so that a full disk shows before any work is done."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
