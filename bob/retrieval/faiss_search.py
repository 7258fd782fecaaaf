"""Search by faiss, exact or approximate, to a limited depth: for databases that are too large to rank as a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from bob.data.relevance import Relevance
from bob.errors import UserError, first_line
from bob.extras import import_extra
from bob.retrieval.search import Features, Places, Space, gather

_ROWS = 8192  # in one step


@dataclass(frozen=True)
class FaissIndex:
    """What index to build, and how deep to search it.

    Attributes:
        index: In the words of faiss's `index_factory`: `Flat` is exact; `IVF1024,Flat`, `HNSW32`, ...
        depth: How many places of each ranking are looked at; what stands further down counts as not found.
        nprobe: How many cells of an inverted file are looked into; None for the index's own number.
    """

    index: str = "Flat"
    depth: int = 1000
    nprobe: int | None = None


def rank_by_faiss(
    queries: Features, database: Features, relevance: Relevance, space: Space, how: FaissIndex, seed: int = 0
) -> Places:
    """Rank the first `depth` images of the database for each query, and say where those that count stand.

    The database is put into the index in an order drawn at random, so that among images of one score the order of the
    files decides nothing.

    Args:
        queries: (n, D).
        database: (m, D).
        relevance: Of the n queries.
        space: How they are compared.
        how: The index.
        seed: Of the order.

    Raises:
        UserError: If faiss is not installed, or cannot build such an index of these features.
    """
    order = np.random.default_rng(seed).permutation(len(database))
    index = _built(database, order, space, how)
    depth = min(how.depth, len(database))
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(queries), _ROWS):
        found = index.search(_placed(queries[start : start + _ROWS], space), depth)[1]
        for row in found:
            # -1 stands at the end, where an approximate index found no more.
            parts.append(_places(order[row[row >= 0]], *relevance.of(len(parts))))
    return gather(parts)


def _built(database: Features, order: np.ndarray, space: Space, how: FaissIndex) -> Any:
    faiss = import_extra("faiss", "faiss")
    try:
        index = faiss.index_factory(_placed(database[:1], space).shape[1], how.index, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(_placed(database[np.sort(order[: max(50_000, _ROWS)])], space))
        for start in range(0, len(order), _ROWS):
            index.add(_placed(database[order[start : start + _ROWS]], space))
        if how.nprobe is not None:
            faiss.extract_index_ivf(index).nprobe = how.nprobe
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"faiss cannot build '{how.index}' of {len(database)} images: {_reason(error)}.",
            "Correct --set index=..., nprobe=... (the guidelines of faiss say which index suits which size).",
        ) from error
    return index


def _reason(error: Exception) -> str:
    """What faiss says behind the function, file and line of its own."""
    return re.sub(r"^.*\.(cpp|h):\d+: ", "", first_line(error))


def _placed(features: Features, space: Space) -> np.ndarray:
    return np.ascontiguousarray(space.place(features).float().cpu().numpy())


def _places(ranking: np.ndarray, items: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the images that count in one ranking, those that are not in it last, and their kinds."""
    sorter = np.argsort(ranking, kind="stable")
    at = np.searchsorted(ranking, items, sorter=sorter).clip(max=max(len(ranking) - 1, 0))
    ranks = np.full(len(items), -1, dtype=np.int64)
    if len(ranking):
        ranks = np.where(ranking[sorter[at]] == items, sorter[at], -1)
    last = np.argsort(np.where(ranks < 0, np.iinfo(np.int64).max, ranks), kind="stable")
    return ranks[last], kinds[last]
