"""The chunked search ranks as a sorted matrix of scores does, and ties get what chance gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bob.data.ragged import Ragged
from bob.data.relevance import ByClass, Listed
from bob.retrieval.search import Places, Space, rank_exactly

CPU = Space(torch.device("cpu"))


def _case(seed: int = 0, n: int = 30, m: int = 70, width: int = 8) -> tuple[np.ndarray, np.ndarray, ByClass]:
    rng = np.random.default_rng(seed)
    queries, database = (rng.normal(size=(rows, width)).astype(np.float32) for rows in (n, m))
    return queries, database, ByClass(rng.integers(5, size=n), rng.integers(5, size=m))


def _sorted_matrix(queries: np.ndarray, database: np.ndarray, relevance: ByClass) -> list[list[int]]:
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, database)]
    ranking = np.argsort(-(unit[0] @ unit[1].T), axis=1)
    return [np.flatnonzero(np.isin(ranking[i], relevance.of(i)[0])).tolist() for i in range(len(queries))]


def _rows(places: Places) -> list[list[int]]:
    return [part.tolist() for part in np.split(places.ranks, places.starts[1:-1])]


@pytest.mark.parametrize("chunks", [(1024, 8192), (7, 11), (1, 1), (30, 70)])
def test_equals_a_sorted_matrix_whatever_the_chunks(chunks: tuple[int, int]) -> None:
    queries, database, relevance = _case()
    places = rank_exactly(queries, database, relevance, CPU, chunks=chunks)
    assert _rows(places) == _sorted_matrix(queries, database, relevance)
    assert (places.kind_of == 0).all()


def test_the_query_itself_is_junk_and_first() -> None:
    _, database, _ = _case()
    labels = np.arange(70) % 4
    relevance = ByClass(labels, labels, own=np.arange(70))
    places = rank_exactly(database, database, relevance, CPU)
    first = places.starts[:-1]
    assert (places.ranks[first] == 0).all() and (places.kind_of[first] == 1).all()
    assert (places.kind_of == 1).sum() == 70


def test_kinds_stay_with_their_images() -> None:
    database = np.eye(4, dtype=np.float32)
    query = np.array([[0.1, 0.4, 0.2, 0.3]], dtype=np.float32)  # ranking: 1, 3, 2, 0
    relevance = Listed(Ragged.of([[0, 3, 1]]), Ragged.of([[0, 1, 2]]), ("a", "b", "c"), {"x": (("a",), ())}, "x")
    places = rank_exactly(query, database, relevance, CPU)
    assert places.ranks.tolist() == [0, 1, 3] and places.kind_of.tolist() == [2, 1, 0]


def test_a_constant_scorer_gets_what_chance_gives() -> None:
    n, m = 4000, 50
    queries, database = np.ones((n, 16), np.float32), np.ones((m, 16), np.float32)
    relevance = ByClass(np.zeros(n, np.int64), (np.arange(m) >= 5).astype(np.int64))
    places = rank_exactly(queries, database, relevance, CPU, chunks=(1000, 7))
    ranks = places.ranks.reshape(n, 5)
    assert (np.diff(ranks, axis=1) > 0).all() and ranks.min() == 0 and ranks.max() == m - 1
    frequency = np.bincount(ranks.ravel(), minlength=m) / n
    assert np.abs(frequency - 0.1).max() < 4 * np.sqrt(0.09 / n)
    # Expected 1 / (1 + smallest of 5 of 50 places), and its spread, by the distribution of the smallest.
    from scipy.special import comb

    chance = np.array([comb(m - 1 - r, 4) for r in range(m - 4)]) / comb(m, 5)
    inverse = 1 / np.arange(1, m - 3)
    expected = (chance * inverse).sum()
    spread = np.sqrt((chance * inverse**2).sum() - expected**2)
    assert (1 / (1 + ranks[:, 0])).mean() == pytest.approx(expected, abs=4 * spread / np.sqrt(n))


def test_duplicates_tie_wherever_they_stand() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=64).astype(np.float32)
    database = np.concatenate([rng.normal(size=(97, 64)).astype(np.float32), np.tile(one, (8, 1))])
    relevance = Listed(Ragged.of([[104]] * 500), Ragged.of([[0]] * 500))
    places = rank_exactly(np.tile(one, (500, 1)), database, relevance, CPU, chunks=(100, 13))
    assert set(places.ranks.tolist()) == set(range(8))


def test_seed_decides_ties_alone() -> None:
    queries, database, relevance = _case()
    same = [_rows(rank_exactly(queries, database, relevance, CPU, seed)) for seed in (0, 1)]
    assert same[0] == same[1]
    flat = np.ones_like(database)
    drawn = [_rows(rank_exactly(queries, flat, relevance, CPU, seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_features_of_zeros_are_as_far_from_all() -> None:
    queries, database, relevance = _case()
    places = rank_exactly(np.zeros_like(queries), database, relevance, CPU)
    assert len(places.ranks) == sum(len(relevance.of(i)[0]) for i in range(30))
    assert 20 < places.ranks.mean() < 50


def test_query_without_anything_that_counts() -> None:
    places = rank_exactly(np.eye(2, 3), np.eye(3), Listed(Ragged.of([[], [2]]), Ragged.of([[], [0]])), CPU)
    assert places.starts.tolist() == [0, 0, 1]
