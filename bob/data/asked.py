"""What every rule of retrieval gives: who asks, what is searched, and what should be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bob.data.base import ImageSet, Split
from bob.data.relevance import Relevance
from bob.errors import UserError


@dataclass(frozen=True)
class Asked:
    """Queries, a database, and what is relevant to each query.

    Attributes:
        classes: Class names; one where the data have no classes.
        query: The images that ask.
        database: The images that are searched.
        relevance: Of each query.
        facts: What a record should say beside.
    """

    classes: tuple[str, ...]
    query: Split
    database: Split
    relevance: Relevance
    facts: dict[str, str | int | float] = field(default_factory=dict)


def everything(images: ImageSet) -> Split:
    """All images of a set, in their order."""
    return Split(images, np.arange(len(images)))


def require_files(root: Path, names: Sequence[str]) -> None:
    """Fail unless all files are there.

    Raises:
        UserError: Naming the first that is missing, and how many are.
    """
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise UserError(
            f"{root} lacks {len(missing):,} of {len(names):,} images, the first being {missing[0]}.", "Put them there."
        )
