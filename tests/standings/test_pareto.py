"""The front: worked by hand, and against the definition applied to every pair."""

from __future__ import annotations

import numpy as np
import pytest

from bob.standings.pareto import pareto_front

NAN = np.nan


@pytest.mark.parametrize(
    ("score", "cost", "front"),
    [
        ([3, 2, 1], [3, 2, 1], [True, True, True]),  # each better costs more
        ([1, 2, 3], [3, 2, 1], [False, False, True]),  # the best is the cheapest
        ([2, 2], [1, 5], [True, False]),  # as good, and dearer
        ([2, 1], [5, 5], [True, False]),  # as dear, and worse
        ([2, 2, 1], [5, 5, 4], [True, True, True]),  # equals stand together
        ([9, NAN, 1], [NAN, 1, 7], [False, False, True]),  # what is not known beats nobody
        ([NAN], [1], [False]),
        ([], [], []),
    ],
)
def test_by_hand(score: list[float], cost: list[float], front: list[bool]) -> None:
    assert pareto_front(np.array(score, dtype=float), np.array(cost, dtype=float)).tolist() == front


@pytest.mark.parametrize("seed", range(5))
def test_as_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, cost = rng.integers(8, size=(2, 60)).astype(float)  # many equal ones
    no_worse = (score[:, None] >= score) & (cost[:, None] <= cost)
    better = (score[:, None] > score) | (cost[:, None] < cost)
    np.testing.assert_array_equal(pareto_front(score, cost), ~(no_worse & better).any(axis=0))
