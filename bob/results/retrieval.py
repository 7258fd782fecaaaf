"""Where in the ranking of a database each query found what it was looking for, from which every metric follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bob.errors import UserError
from bob.results.checks import check_integers, check_schema, check_shape, check_size, encodable
from bob.results.judged import Judged, Row

RETRIEVAL_KEY = b"bob.retrieval"
NOT_FOUND = -1
# Of each level, the kinds of database images that a query should find and those that are ignored.
Levels: TypeAlias = Mapping[str, tuple[Sequence[str], Sequence[str]]]

_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("ranks", pa.list_(pa.field("item", pa.int64())), nullable=False),
        pa.field("kinds", pa.list_(pa.field("item", pa.int8())), nullable=False),
    ]
)


@dataclass(frozen=True)
class Found:
    """At one level, the positives of all queries, query after query and in the order in which each found them.

    Attributes:
        query: (m,) which query it is a positive of.
        order: (m,) how many positives of the query come before it.
        rank: (m,) how many database images come before it, the ignored ones not counted; `NOT_FOUND` where the search
            ended before it.
        count: (n,) number of positives of each query; a query without any does not count.
    """

    query: NDArray[np.int64]
    order: NDArray[np.int64]
    rank: NDArray[np.int64]
    count: NDArray[np.int64]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(n,) whether the query has a positive."""
        return self.count > 0

    @property
    def was_found(self) -> NDArray[np.bool_]:
        """(m,) whether the search came to the positive."""
        return self.rank != NOT_FOUND

    def add_up(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum over each query's positives: (m,) -> (n,)."""
        sums = np.bincount(self.query, weights=values, minlength=len(self.count))
        return sums.astype(np.float64)  # without any positive they are integers


@dataclass(frozen=True, eq=False)
class RetrievalPredictions(Judged):
    """Where each query's relevant images stand in its ranking of the database.

    Attributes:
        names: n strings that tell a person which query it is.
        labels: (n,) int64, the class of each query, for the table of classes.
        classes: Their names.
        starts: (n + 1,) int64, where each query's entries begin in `ranks` and `kind_of`.
        ranks: (m,) int64, positions in the whole ranking, 0 for the first, of the images that are positive or ignored
            at some level: ascending for each query, then those that the search did not come to, `NOT_FOUND`.
        kind_of: (m,) int64, which of `kinds` each is.
        kinds: Names of the kinds, such as `easy`, `hard` and `junk`.
        levels: The kinds that are positive and those that are ignored, at each level.
        primary: The level of a metric that names none.
        database: Number of images that were searched.

    Raises:
        UserError: If there is no query, the arrays disagree, a value is out of range, or a level names no kind.
    """

    kind: ClassVar[str] = "retrieval"

    names: list[str]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    starts: NDArray[np.int64]
    ranks: NDArray[np.int64]
    kind_of: NDArray[np.int64]
    kinds: tuple[str, ...]
    levels: Levels
    primary: str
    database: int

    def __post_init__(self) -> None:
        check_size(len(self.names))
        check_shape("labels", self.labels, (len(self),))
        check_integers("labels", self.labels, 0, len(self.classes))
        check_shape("starts", self.starts, (len(self) + 1,))
        check_shape("kind_of", self.kind_of, (int(self.starts[-1]),))
        check_integers("kind_of", self.kind_of, 0, len(self.kinds))
        check_shape("ranks", self.ranks, self.kind_of.shape)
        check_integers("ranks", self.ranks, NOT_FOUND, self.database)
        named = {name for parts in self.levels.values() for part in parts for name in part}
        if self.primary not in self.levels or not named <= set(self.kinds):
            raise UserError(
                f"Expected `levels` to name {self.primary} and some of {self.kinds}, but got {self.levels}."
            )

    def __len__(self) -> int:
        return len(self.names)

    def found(self, level: str = "") -> Found:
        """The positives of a level, the primary one's if it is empty, ranked without what is ignored there."""
        return self._found[level or self.primary]

    @cached_property
    def _found(self) -> dict[str, Found]:
        return {name: self._at(*parts) for name, parts in self.levels.items()}

    def _at(self, positive: Sequence[str], ignored: Sequence[str]) -> Found:
        query = np.repeat(np.arange(len(self)), np.diff(self.starts))
        is_positive, is_ignored = (
            np.isin(self.kind_of, [self.kinds.index(k) for k in part]) for part in (positive, ignored)
        )
        before = _counted_before(is_ignored & (self.ranks != NOT_FOUND), self.starts, query)[is_positive]
        order = _counted_before(is_positive, self.starts, query)[is_positive]
        ranks = self.ranks[is_positive]
        counts = np.bincount(query[is_positive], minlength=len(self))
        return Found(query[is_positive], order, np.where(ranks == NOT_FOUND, ranks, ranks - before), counts)

    def per_class(self) -> list[Row]:
        """For each class of queries that count: `class`, `n` of them, and their `retrieval_map` and `mrr`."""
        if len(self.classes) < 2:
            return []
        return self._means(self.labels, "class", self.classes, self.found())

    def breakdown(self) -> dict[str, list[Row]]:
        """A row for each level, where there are several: `level`, `n` queries that count, `retrieval_map` and `mrr`."""
        if len(self.levels) < 2:
            return {}
        alike = np.zeros(len(self), dtype=np.int64)
        return {
            "per_level": [row for name in self.levels for row in self._means(alike, "level", (name,), self.found(name))]
        }

    def _means(self, members: NDArray[np.int64], key: str, names: Sequence[str], found: Found) -> list[Row]:
        valid = found.valid
        counts = np.bincount(members[valid], minlength=len(names))
        columns = {"retrieval_map": average_precision(found), "mrr": reciprocal_rank(found)}
        sums = {name: np.bincount(members, weights=values, minlength=len(names)) for name, values in columns.items()}
        return [
            {key: names[i], "n": int(counts[i]), **{name: float(own[i] / counts[i]) for name, own in sums.items()}}
            for i in np.flatnonzero(counts).tolist()
        ]

    def write(self, path: Path) -> None:
        """Write one Parquet file: a row per query, what all have in common as JSON in the schema's metadata.

        The same content gives the same bytes (with the same version of pyarrow). The write itself is not atomic:
        give a path inside an atomic folder.
        """
        common = {
            **{"classes": self.classes, "kinds": self.kinds, "primary": self.primary, "database": self.database},
            "levels": {name: [list(part) for part in parts] for name, parts in self.levels.items()},
        }
        starts = pa.array(self.starts, pa.int32())
        columns = [
            pa.array(encodable(self.names), pa.string()),
            pa.array(self.labels, pa.int64()),
            pa.ListArray.from_arrays(starts, pa.array(self.ranks, pa.int64())),
            pa.ListArray.from_arrays(starts, pa.array(self.kind_of, pa.int8())),
        ]
        schema = _SCHEMA.with_metadata({RETRIEVAL_KEY: json.dumps(common)})
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")

    @classmethod
    def from_table(cls, table: pa.Table, path: Path) -> RetrievalPredictions:
        """Take predictions out of the table that was read from `path`; see `Judged.read`."""
        check_schema(table, _SCHEMA, [RETRIEVAL_KEY], path, "RetrievalPredictions.write")
        common = json.loads(table.schema.metadata[RETRIEVAL_KEY])
        ranks = table.column("ranks").combine_chunks()
        return cls(
            names=table.column("name").to_pylist(),
            labels=table.column("label").to_numpy(),
            classes=tuple(common["classes"]),
            starts=np.concatenate([[0], np.cumsum(ranks.value_lengths().to_numpy())]).astype(np.int64),
            ranks=ranks.flatten().to_numpy(),
            kind_of=table.column("kinds").combine_chunks().flatten().to_numpy().astype(np.int64),
            kinds=tuple(common["kinds"]),
            levels={name: (tuple(good), tuple(ignored)) for name, (good, ignored) in common["levels"].items()},
            primary=common["primary"],
            database=common["database"],
        )


def average_precision(found: Found) -> NDArray[np.float64]:
    """Area under the precision-recall curve by trapezoids, of each query: (n,), 0 where it has no positive.

    The j-th positive (from 0) at rank r adds (j/r + (j+1)/(r+1)) / 2, with 1 for j/r at r = 0, divided by the number of
    positives. One that the search did not come to adds nothing.

    Source: filipradenovic/revisitop, python/evaluate.py (Radenovic et al. 2018, arXiv 1803.11285).
    """
    left = np.divide(found.order, found.rank, out=np.ones(len(found.rank)), where=found.rank > 0)
    steps = np.where(found.was_found, (left + (found.order + 1) / np.maximum(found.rank + 1, 1)) / 2, 0.0)
    return found.add_up(steps) / np.maximum(found.count, 1)


def average_precision_at(found: Found, k: int) -> NDArray[np.float64]:
    """Mean over the first k places of the precision at each positive there, divided by the positives that fit: (n,).

    Source: mAP@100 of Google Landmarks v2 (Weyand et al. 2020, arXiv 2004.01804, 5.1).
    """
    counts = found.was_found & (found.rank < k)
    precision = np.where(counts, (found.order + 1) / np.maximum(found.rank + 1, 1), 0.0)
    return found.add_up(precision) / np.clip(found.count, 1, k)


def reciprocal_rank(found: Found) -> NDArray[np.float64]:
    """1 / (1 + rank of the first positive) of each query: (n,), 0 where there is none or it was not found.

    The rank is that without the ignored images, unlike in the code of Battle of the Backbones.
    """
    first = found.was_found & (found.order == 0)
    return found.add_up(np.where(first, 1 / np.maximum(found.rank + 1, 1), 0.0))


def precision_at(found: Found, k: int) -> NDArray[np.float64]:
    """Share of positives among the first k of each query: (n,); equals torchmetrics' `RetrievalPrecision(top_k=k)`."""
    return found.add_up(found.was_found & (found.rank < k)) / k


def clipped_precision_at(found: Found, k: int) -> NDArray[np.float64]:
    """Share of positives among the first k, or up to the last positive where that comes sooner: (n,).

    Source: mP@k of filipradenovic/revisitop, python/evaluate.py.
    """
    last = np.zeros(len(found.count))
    np.maximum.at(last, found.query, np.where(found.was_found, found.rank + 1, k))
    return found.add_up(found.was_found & (found.rank < k)) / np.clip(last, 1, k)


def hit_at(found: Found, k: int) -> NDArray[np.float64]:
    """Whether a positive is among the first k of each query: (n,) of 0 and 1; the mean is Recall@k of metric learning.

    Equals torchmetrics' `RetrievalHitRate(top_k=k)`.

    Source: Oh Song et al. 2016, arXiv 1511.06452.
    """
    return np.minimum(found.add_up(found.was_found & (found.rank < k)), 1.0)


PerQuery: TypeAlias = Callable[[Found], NDArray[np.float64]]


def _counted_before(
    marked: NDArray[np.bool_], starts: NDArray[np.int64], query: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many marked entries of the same query come before each entry."""
    until = np.concatenate([[0], np.cumsum(marked)])
    return until[:-1] - until[starts[query]]
