"""Lists of the images to learn from, such as the published 1% and 10% of ImageNet."""

from __future__ import annotations

import hashlib
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bob import places
from bob.data.base import Split
from bob.errors import UserError, first_line
from bob.task_cards import DataSpec

_TIMEOUT = 30.0  # seconds


def cut_down(train: Split, spec: DataSpec, root: Path) -> Split:
    """Return the images of train that `spec.subset` lists, in train's order.

    An image is listed by its name or by the end of it, from any `/` on: `n01440764_10026.JPEG` is enough.

    Args:
        train: Where they are looked for.
        spec: The task card's `[data]`.
        root: The data root, below which a relative path lies.

    Raises:
        UserError: If the list cannot be had, has another checksum, or a line that names no image of train, several, or
            one that is listed already.
    """
    content, where = _content(spec.subset, root)
    if spec.subset_sha256 and hashlib.sha256(content).hexdigest() != spec.subset_sha256:
        raise UserError(
            f"The list {where} is not the one that the card means: its SHA-256 differs from subset_sha256.",
            "Remove it to download it again, or correct the card.",
        )
    lines = [(n, line.strip()) for n, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1)]
    chosen = _positions([(n, line) for n, line in lines if line], train.names, where)
    return Split(train.images, train.indices[np.sort(chosen)])


def _positions(lines: Sequence[tuple[int, str]], names: Sequence[str], where: Path) -> np.ndarray:
    by_basename = defaultdict(list)
    for position, name in enumerate(names):
        by_basename[name.rpartition("/")[2]].append(position)
    found: dict[int, int] = {}
    for number, line in lines:
        wanted = line.replace("\\", "/")
        candidates = by_basename.get(wanted.rpartition("/")[2], [])
        matches = [p for p in candidates if f"/{names[p]}".endswith(f"/{wanted}")]
        if len(matches) != 1:
            how_many = f"{len(matches)} training images" if matches else "no training image"
            raise UserError(f"{where}, line {number}: '{line}' names {how_many}.", "Correct the list or the data.")
        if matches[0] in found:
            again = f"'{line}' is on line {found[matches[0]]} already"
            raise UserError(f"{where}, line {number}: {again}.", "Remove one of them.")
        found[matches[0]] = number
    if not found:
        raise UserError(f"The list {where} is empty.", "It needs the name of an image on each line.")
    return np.fromiter(found, dtype=np.int64)


def _content(subset: str, root: Path) -> tuple[bytes, Path]:
    path = _downloaded(subset) if "://" in subset else root / Path(subset).expanduser()
    try:
        return path.read_bytes(), path
    except OSError as error:
        raise UserError(f"Cannot read the list {path}: {error.strerror}.", "Put it there.") from error


def _downloaded(url: str) -> Path:
    if not url.startswith("https://"):
        raise UserError(f"The list {url} is not at an https address.", "Download it yourself and give its path.")
    path = places.home() / "lists" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{url.rpartition('/')[2]}"
    if path.is_file():
        return path
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            content = response.read()
    except OSError as error:
        raise UserError(
            f"The list {url} cannot be downloaded ({first_line(error)}).", f"Put it at {path} yourself."
        ) from error
    with places.atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return path
