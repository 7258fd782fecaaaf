"""Exact search by cosine similarity, in chunks: where the images that count stand in each query's ranking.

Nothing but their places is needed, so no ranking is ever sorted or kept: how many images score above one that counts,
and how many as high, adds up over chunks of the database.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from bob.data.relevance import Relevance

_QUERIES, _DATABASE = 1024, 8192  # in one product of matrices: 64 MiB of scores
Features = np.ndarray  # (n, D) floating, possibly memory-mapped
Transform = Callable[[torch.Tensor], torch.Tensor]  # (n, D) float64 -> (n, D') float64


@dataclass(frozen=True)
class Places:
    """Where what counts stands in the ranking of each query.

    Attributes:
        starts: (n + 1,) int64, where each query's entries begin.
        ranks: (m,) int64, 0 for the first of the ranking, ascending for each query; -1 for what a search did not come
            to, last.
        kind_of: (m,) int64, the kind of each.
    """

    starts: np.ndarray
    ranks: np.ndarray
    kind_of: np.ndarray


class Space:
    """Features as the search compares them: transformed, and of length 1.

    They are compared in double precision and the scores rounded to single: so images that are equal score equally
    wherever in a chunk they stand, and the ranking is the same whatever the chunks, the device or the thread count.

    Args:
        device: Where products are taken; the CPU instead of a device without double precision.
        transform: Applied after a first normalisation, such as a whitening; None for nothing.
    """

    def __init__(self, device: torch.device, transform: Transform | None = None) -> None:
        self.device = torch.device("cpu") if device.type == "mps" else device
        self._transform = transform

    def place(self, features: Features) -> torch.Tensor:
        """(n, D) -> (n, D') float64 on the device; a feature of zeros stays zeros and is as far from all."""
        rows = normalized(torch.from_numpy(np.asarray(features, dtype=np.float64)).to(self.device))
        return rows if self._transform is None else normalized(self._transform(rows))


def normalized(rows: torch.Tensor) -> torch.Tensor:
    """Rows of length 1; zeros stay zeros."""
    return torch.nn.functional.normalize(rows, dim=1, eps=1e-30)


def rank_exactly(
    queries: Features,
    database: Features,
    relevance: Relevance,
    space: Space,
    seed: int = 0,
    *,
    chunks: tuple[int, int] = (_QUERIES, _DATABASE),
) -> Places:
    """Rank the whole database for each query, and say where the images that count stand.

    Images of the same score stand in an order drawn at random for each query, so that a backbone that cannot tell
    images apart gets what chance gives, not what the order of the files gives.

    Args:
        queries: (n, D).
        database: (m, D).
        relevance: Of the n queries.
        space: How they are compared.
        seed: Of the order of ties.
        chunks: How many queries and how many database images are compared at once.
    """
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(queries), chunks[0]):
        numbers = range(start, min(start + chunks[0], len(queries)))
        counting = _Counting(
            space.place(queries[start : numbers.stop]), database, [relevance.of(i)[0] for i in numbers], space
        )
        for first in range(0, len(database), chunks[1]):
            counting.add(first, space.place(database[first : first + chunks[1]]))
        for row, query in enumerate(numbers):
            parts.append(_placed(*counting.of(row), relevance.of(query)[1], (seed, query)))
    return gather(parts)


def gather(parts: list[tuple[np.ndarray, np.ndarray]]) -> Places:
    """Join what each query has: ranks and kinds."""
    starts = np.concatenate([[0], np.cumsum([len(ranks) for ranks, _ in parts])]).astype(np.int64)
    empty = np.zeros(0, dtype=np.int64)
    ranks, kinds = (np.concatenate([empty, *each]) for each in zip(*parts, strict=True))
    return Places(starts, ranks, kinds)


class _Counting:
    """For the images that count of some queries: how many others score higher, and how many as high.

    Args:
        queries: (b, D') placed.
        database: All features.
        items: For each query, positions of the images that count.
        space: How they are compared.
    """

    def __init__(self, queries: torch.Tensor, database: Features, items: list[np.ndarray], space: Space) -> None:
        self._queries, self._lengths = queries, [len(own) for own in items]
        width, device = max(self._lengths, default=0), queries.device
        self._items = torch.full((len(items), width), -1, dtype=torch.int64, device=device)
        # Missing entries score infinitely much, which no image exceeds.
        own_scores = torch.full((len(items), width), torch.inf, dtype=torch.float32, device=device)
        for row, own in enumerate(items):
            self._items[row, : len(own)] = torch.from_numpy(np.asarray(own, dtype=np.int64))
            own_scores[row, : len(own)] = (space.place(database[own]) @ queries[row]).float()
        self._scores, self._order = own_scores.sort(dim=1)
        self._above = torch.zeros((len(items), width), dtype=torch.int64, device=device)
        self._as_high = self._above.clone()

    def add(self, first: int, rows: torch.Tensor) -> None:
        """Count the database images from position `first` on."""
        scores = (self._queries @ rows.T).float()
        row, column = torch.nonzero((self._items >= first) & (self._items < first + len(rows)), as_tuple=True)
        # Those that count are compared among themselves, by `_placed`.
        scores[row, self._items[row, column] - first] = -torch.inf
        ordered = _sorted(scores)
        below, up_to = (torch.searchsorted(ordered, self._scores, right=right) for right in (False, True))
        self._above += len(rows) - up_to
        self._as_high += up_to - below

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a query's images that count, in the order given: score, how many others above it, how many as high."""
        order = self._order[row, : self._lengths[row]].cpu().numpy()
        kept = (table[row, : len(order)].cpu().numpy() for table in (self._scores, self._above, self._as_high))
        scores, above, as_high = (values[np.argsort(order)] for values in kept)
        return scores, above, as_high


def _sorted(scores: torch.Tensor) -> torch.Tensor:
    """Each row in ascending order; NumPy takes a third of torch's time on a CPU."""
    if scores.device.type == "cpu":
        return torch.from_numpy(np.sort(scores.numpy(), axis=1))
    return scores.sort(dim=1).values


def _placed(
    scores: np.ndarray, above: np.ndarray, as_high: np.ndarray, kinds: np.ndarray, seed: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the images that count of one query, ascending, and their kinds; ties are drawn."""
    order = np.argsort(-scores, kind="stable")
    ranks = above[order] + np.arange(len(order))
    firsts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    sizes = np.diff(firsts, append=len(order))
    slots = sizes + as_high[order[firsts]]
    if (tied := np.flatnonzero(slots > 1)).size:
        rng = np.random.default_rng(seed)
        for first, size, places in zip(firsts[tied], sizes[tied], slots[tied], strict=True):
            ranks[first : first + size] = ranks[first] + rng.choice(places, size, replace=False)
    again = np.argsort(ranks, kind="stable")
    return ranks[again], kinds[order][again]
