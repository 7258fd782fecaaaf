"""The revisited Oxford and Paris buildings, as their publishers lay them out: jpg/ and gnd_NAME.pkl."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bob.data.asked import Asked, everything, require_files
from bob.data.files import FileImages
from bob.data.plain_pickle import load_plain
from bob.data.ragged import Ragged
from bob.data.relevance import JUNK, Listed
from bob.errors import UserError

KINDS = ("easy", "hard", JUNK)
LEVELS = {
    "easy": (("easy",), (JUNK, "hard")),
    "medium": (("easy", "hard"), (JUNK,)),
    "hard": (("hard",), (JUNK, "easy")),
}
_AGAIN = "Download it again from the revisited benchmark's site."


class CroppedImages(FileImages):
    """Image files of which only a box counts.

    Args:
        root: Their folder.
        paths: N paths relative to it.
        boxes: (N, 4) x0, y0, x1, y1 in pixels, ends exclusive; rounded, and cut at the image's edges.
    """

    def __init__(self, root: Path, paths: Sequence[str], boxes: np.ndarray) -> None:
        super().__init__(root, paths, np.zeros(len(paths)))
        self.boxes = np.round(boxes).astype(np.int64)

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`.

        Raises:
            UserError: If the box lies outside the image; names the file.
        """
        image = super().read(index)
        x0, y0, x1, y1 = (max(0, int(edge)) for edge in self.boxes[index])
        cropped = image[:, y0:y1, x0:x1]
        if not cropped.numel():
            raise UserError(
                f"The box {self.boxes[index].tolist()} of the query {self.names[index]} lies outside its image.", _AGAIN
            )
        return cropped.contiguous()

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`; the boxes count."""
        boxes = np.ascontiguousarray(self.boxes, dtype="<i8").tobytes()
        return hashlib.sha256(super().fingerprint().encode() + boxes).hexdigest()


def load_revisited(folder: Path, crop_queries: bool) -> Asked:
    """Read one of the two.

    Medium, the level that scores mean if they name none, has the easy and the hard images as positives; at the level
    Easy hard images are ignored, at Hard easy ones, and junk at all of them.

    Args:
        folder: With `jpg/` and one `gnd_*.pkl`, a dictionary of `imlist`, `qimlist` and `gnd`.
        crop_queries: Whether queries are cut to their `bbx`.

    Raises:
        UserError: If a file is missing, or the ground truth is not what it should be.

    Source: Radenovic et al. 2018, arXiv 1803.11285; filipradenovic/revisitop, python/dataset.py.
    """
    found = sorted(folder.glob("gnd_*.pkl"))
    if len(found) != 1:
        what = "no gnd_*.pkl" if not found else f"{len(found)} files gnd_*.pkl"
        raise UserError(f"{folder} has {what}.", "Put the ground truth of one benchmark there.")
    content = load_plain(found[0])
    _require_form(content, found[0])
    database, queries = ([f"jpg/{name}.jpg" for name in content[key]] for key in ("imlist", "qimlist"))
    require_files(folder, [*queries, *database])
    truth = [_items(each, len(database), f"{found[0]}, query {n}") for n, each in enumerate(content["gnd"])]
    items, kinds = (Ragged.of([row[part] for row in truth]) for part in (0, 1))
    relevance = Listed(items, kinds, KINDS, LEVELS, "medium")
    boxes = _boxes(content["gnd"], found[0]) if crop_queries else None
    asking = (
        FileImages(folder, queries, np.zeros(len(queries))) if boxes is None else CroppedImages(folder, queries, boxes)
    )
    searched = FileImages(folder, database, np.zeros(len(database)))
    return Asked(("building",), everything(asking), everything(searched), relevance)


def _require_form(content: Any, path: Path) -> None:
    keys = ("imlist", "qimlist", "gnd")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), (list, tuple)) for key in keys):
        raise UserError(f"{path} is no dictionary of the lists imlist, qimlist and gnd.", _AGAIN)
    if not all(isinstance(name, str) for key in keys[:2] for name in content[key]):
        raise UserError(f"{path} has names of images that are no text.", _AGAIN)
    if len(content["gnd"]) != len(content["qimlist"]):
        numbers = f"{len(content['gnd'])} entries for {len(content['qimlist'])} queries"
        raise UserError(f"{path} has {numbers}.", _AGAIN)


def _items(truth: Any, size: int, where: str) -> tuple[list[int], list[int]]:
    """Positions of what counts for a query, and their kinds."""
    if not isinstance(truth, dict) or not all(kind in truth for kind in KINDS):
        raise UserError(f"{where} lacks one of {', '.join(KINDS)}.", _AGAIN)
    items: list[int] = []
    kinds: list[int] = []
    for number, kind in enumerate(KINDS):
        own = np.asarray(truth[kind]).ravel()
        if len(own) and not (np.issubdtype(own.dtype, np.integer) and own.min() >= 0 and own.max() < size):
            raise UserError(f"{where} has '{kind}' images that are none of the {size} of the database.", _AGAIN)
        items += [int(each) for each in own]
        kinds += [number] * len(own)
    if len(set(items)) < len(items):
        raise UserError(f"{where} has an image twice.", _AGAIN)
    return items, kinds


def _boxes(truth: Sequence[dict[str, Any]], path: Path) -> np.ndarray:
    boxes = np.zeros((len(truth), 4))
    for number, each in enumerate(truth):
        box = np.asarray(each.get("bbx", ()), dtype=object).ravel()
        if len(box) != 4 or not all(isinstance(edge, (int, float, np.number)) and np.isfinite(edge) for edge in box):
            raise UserError(f"{path}, query {number} has no box 'bbx' of four numbers.", _AGAIN)
        boxes[number] = box.astype(float)
    return boxes
