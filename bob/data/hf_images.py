"""Images of a hub data set, decoded as files are, from bytes in its tables or from the files that it names."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from bob import places
from bob.data.base import ImageSet
from bob.data.files import UNREADABLE, FileImages, decode
from bob.errors import UserError

_REMEDY = "Download the data set again."


def image_set(table: Any, column: str, labels: np.ndarray, name: str) -> ImageSet:
    """Return the images of a split.

    Args:
        table: The split, a `datasets.Dataset` whose image column is not decoded.
        column: The image column.
        labels: As `ImageSet.labels`.
        name: Of the data set and the split, for names and errors.
    """
    if table._indices is not None:
        table = table.flatten_indices()
    stored = table.data.column(column)
    paths, content = pc.struct_field(stored, "path").to_pylist(), pc.struct_field(stored, "bytes")
    if content.null_count == len(table) and all(path and os.path.isabs(path) for path in paths):
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
        return FileImages(Path(root), [Path(path).relative_to(root).as_posix() for path in paths], labels)
    return HubImages(table.select_columns([column]), column, labels, name, paths)


class HubImages(ImageSet):
    """Images whose bytes lie in the library's memory-mapped tables."""

    def __init__(self, table: Any, column: str, labels: np.ndarray, name: str, paths: list[str | None]) -> None:
        self._table = table
        self._column = column
        self._name = name
        self.labels = labels
        # The file's own name where the table has it, since published lists of images go by it.
        ends = ("/" + PurePosixPath(path).name if path else "" for path in paths)
        self.names = [f"{name}/{index:07d}{end}" for index, end in enumerate(ends)]
        self._fingerprint: str | None = None

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`."""
        try:
            return decode(self._content(index))
        except UNREADABLE as error:
            raise UserError(f"Cannot read image {index} of {self._name}: {error}.", _REMEDY) from error

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; remembered as long as the tables' files stay as they are."""
        if self._fingerprint is None:
            remembered = self._memory()
            with suppress(OSError, ValueError, KeyError, TypeError):
                if remembered is not None:
                    self._fingerprint = str(json.loads(remembered.read_text(encoding="utf-8"))["sha256"])
        if self._fingerprint is None:
            hashes = (hashlib.sha256(self._content(index)).hexdigest() for index in range(len(self)))
            self._fingerprint = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
            if remembered is not None:
                with places.atomic_file(remembered) as temporary:
                    temporary.write_text(json.dumps({"sha256": self._fingerprint}), encoding="utf-8")
        return self._fingerprint

    def _content(self, index: int) -> bytes:
        cell = self._table[index][self._column] or {}
        content, path = cell.get("bytes"), cell.get("path")
        if content is None and path:
            content = Path(path).read_bytes()
        if content is None:
            raise UserError(f"Image {index} of {self._name} is missing.", _REMEDY)
        return bytes(content)

    def _memory(self) -> Path | None:
        """Where the fingerprint is remembered; None if images lie elsewhere than in files of the library's cache."""
        files = [Path(file["filename"]) for file in self._table.cache_files]
        if not files or pc.struct_field(self._table.data.column(self._column), "bytes").null_count:
            return None
        stats = [(str(path), path.stat()) for path in files]
        stamps = [f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}" for path, stat in stats]
        # The name says which slice of the files' images these are.
        what = [self._name, self._column, str(len(self)), *stamps]
        key = hashlib.sha256("\n".join(what).encode()).hexdigest()[:20]
        return places.home() / "fingerprints" / f"hub-{key}.json"
