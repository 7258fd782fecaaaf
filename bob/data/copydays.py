"""INRIA Copydays: which photograph is this a copy of? Folders original/, strong/, crops/N/ and jpegqual/N/."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bob.data.asked import Asked, everything
from bob.data.files import SUFFIXES, FileImages
from bob.data.ragged import Ragged
from bob.data.relevance import Levels, Listed
from bob.errors import UserError

BLOCKS = ("strong", "crops", "jpegqual")  # ways of copying, the hardest and the one that papers report first
_PREFIX = 4  # characters of a file's name that say which photograph it shows


def load_copydays(folder: Path) -> Asked:
    """Read Copydays: each copy asks for its original among all originals.

    What lies in a folder `distractors/` is searched beside them. Scores that name no level are of the strong copies;
    `crops` and `jpegqual` are levels of their own where these folders are there.

    Args:
        folder: With `original/` and `strong/`.

    Raises:
        UserError: If `original/` or `strong/` has no images.

    Source: Douze et al. 2009, doi:10.1145/1646396.1646421; facebookresearch/dino, eval_copy_detection.py.
    """
    originals, distractors = _below(folder, "original"), _below(folder, "distractors")
    blocks = {block: _below(folder, block) for block in BLOCKS}
    for name, files in (("original", originals), ("strong", blocks["strong"])):
        if not files:
            raise UserError(f"{folder / name} has no images.", "Unpack the archives of Copydays there.")
    copies = [(path, kind) for kind, block in enumerate(BLOCKS) for path in blocks[block]]
    by_prefix: dict[str, list[int]] = {}
    for position, path in enumerate(originals):
        by_prefix.setdefault(_prefix(path), []).append(position)
    items = [by_prefix.get(_prefix(path), []) for path, _ in copies]
    kinds = [[kind] * len(own) for (_, kind), own in zip(copies, items, strict=True)]
    levels: Levels = {block: ((block,), ()) for block in BLOCKS if blocks[block]}
    relevance = Listed(Ragged.of(items), Ragged.of(kinds), BLOCKS, levels, "strong")
    asking, searched = (
        FileImages(folder, names, np.zeros(len(names)))
        for names in ([path for path, _ in copies], [*originals, *distractors])
    )
    return Asked(
        ("photograph",), everything(asking), everything(searched), relevance, {"distractors": len(distractors)}
    )


def _below(folder: Path, name: str) -> list[str]:
    """Images in a folder and below it, by paths from `folder`, sorted."""
    found = (path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _prefix(path: str) -> str:
    return path.rpartition("/")[2][:_PREFIX]
