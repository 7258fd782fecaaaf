"""Which backbones nobody beats in both score and cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bob.results.statistics import Floats


def pareto_front(score: Floats, cost: Floats) -> NDArray[np.bool_]:
    """Mark what is not dominated: no other is at least as good in both, and better in one.

    Equal pairs stand on the front together. What lacks its score or its cost is not on it and beats nobody.

    Args:
        score: (n,) more is better; NaN is unknown.
        cost: (n,) less is better; NaN is unknown.

    Returns:
        (n,) True on the front.

    Source: Pareto dominance as in Deb, Multi-Objective Optimization using Evolutionary Algorithms, 2001, section 2.4.
    """
    front = np.zeros(len(score), dtype=bool)
    known = ~(np.isnan(score) | np.isnan(cost))
    if not known.any():
        return front
    prices, place = np.unique(cost[known], return_inverse=True)
    best = np.full(len(prices), -np.inf)
    np.maximum.at(best, place, score[known])
    cheaper = np.concatenate([[-np.inf], np.maximum.accumulate(best)[:-1]])  # the best of all that cost less
    front[known] = (score[known] == best[place]) & (score[known] > cheaper[place])
    return front
