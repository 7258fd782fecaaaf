"""What a query should find in a database: by class, or image by image as a benchmark publishes it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bob.data.ragged import Ragged, sha256

POSITIVE, JUNK = "positive", "junk"
ALL = "all"  # the level of data that have one
# Of each level, the kinds that a query should find and those that are ignored.
Levels = Mapping[str, tuple[Sequence[str], Sequence[str]]]
_ONE_LEVEL: Levels = {ALL: ((POSITIVE,), (JUNK,))}


class Relevance(ABC):
    """For each query the database images that count, and how.

    Attributes:
        kinds: Names of the kinds of images that count: found to be positive or ignored, by level.
        levels: The kinds that are positive and those that are ignored, at each level.
        primary: The level that a score means if it names none.
    """

    kinds: tuple[str, ...] = (POSITIVE, JUNK)
    levels: Levels = _ONE_LEVEL
    primary: str = ALL

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def of(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the database of the images that count for a query, (k,) int64, and their kinds, (k,) int64."""

    @abstractmethod
    def only(self, queries: np.ndarray) -> Relevance:
        """That of some of the queries, in their order."""

    @abstractmethod
    def has_positive(self) -> np.ndarray:
        """(n,) bool: whether the query has something to find, at any level."""

    def identity(self) -> dict[str, object]:
        """What decides it, JSON-ready."""
        levels = {name: [list(part) for part in parts] for name, parts in self.levels.items()}
        said = json.dumps([self.kinds, levels, self.primary, self._checksum()])
        return {"relevance_sha256": hashlib.sha256(said.encode()).hexdigest()}

    @abstractmethod
    def _checksum(self) -> str: ...

    def _positive_kinds(self) -> list[int]:
        return [self.kinds.index(name) for positive, _ in self.levels.values() for name in positive]


@dataclass(frozen=True)
class ByClass(Relevance):
    """A query should find the images of its class.

    Attributes:
        queries: (n,) int64, the class of each query.
        database: (m,) int64, the class of each database image.
        own: (n,) int64, where the query itself stands in the database, which is ignored; None where it does not.
    """

    queries: np.ndarray
    database: np.ndarray
    own: np.ndarray | None = None
    _members: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.queries)

    def of(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Relevance.of`."""
        label = int(self.queries[query])
        if label not in self._members:
            self._members[label] = np.flatnonzero(self.database == label)
        found = self._members[label]
        itself = np.zeros(len(found), dtype=np.int64)
        return found, itself if self.own is None else (found == self.own[query]).astype(np.int64)

    def only(self, queries: np.ndarray) -> ByClass:
        """See `Relevance.only`."""
        return replace(self, queries=self.queries[queries], own=None if self.own is None else self.own[queries])

    def has_positive(self) -> np.ndarray:
        """See `Relevance.has_positive`."""
        sizes = np.bincount(self.database, minlength=int(self.queries.max(initial=-1)) + 1)
        enough: np.ndarray = sizes[self.queries] > (0 if self.own is None else 1)
        return enough

    def _checksum(self) -> str:
        return sha256(self.queries, self.database, self.own)


@dataclass(frozen=True)
class Listed(Relevance):
    """What is relevant to each query as a benchmark lists it.

    Attributes:
        items: For each query, positions in the database.
        kind_of: For each of them, which of `kinds` it is.
        kinds: See `Relevance`.
        levels: See `Relevance`.
        primary: See `Relevance`.
    """

    items: Ragged
    kind_of: Ragged
    kinds: tuple[str, ...] = (POSITIVE, JUNK)
    levels: Levels = field(default_factory=lambda: _ONE_LEVEL)
    primary: str = ALL

    def __len__(self) -> int:
        return len(self.items)

    def of(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Relevance.of`."""
        return self.items[query], self.kind_of[query]

    def only(self, queries: np.ndarray) -> Listed:
        """See `Relevance.only`."""
        items, kinds = ([part[int(query)].tolist() for query in queries] for part in (self.items, self.kind_of))
        return replace(self, items=Ragged.of(items), kind_of=Ragged.of(kinds))

    def has_positive(self) -> np.ndarray:
        """See `Relevance.has_positive`."""
        positive = self._positive_kinds()
        return np.array([np.isin(self.kind_of[query], positive).any() for query in range(len(self))], dtype=bool)

    def _checksum(self) -> str:
        return sha256(self.items, self.kind_of)
