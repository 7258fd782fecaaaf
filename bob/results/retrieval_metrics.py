"""The metrics of image retrieval: means over the queries that have something to find, at each level of difficulty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bob.results import retrieval
from bob.results.metric import SumMetric
from bob.results.retrieval import PerQuery, RetrievalPredictions
from bob.results.terms import Floats

# Of the revisited Oxford and Paris, and of Copydays.
LEVELS = ("easy", "medium", "hard", "strong", "crops", "jpegqual")
_PLACES = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class QueryMetric(SumMetric):
    """The mean of a number over the queries that have a positive at one level.

    Attributes:
        level: Which; empty for the data's primary one.
    """

    level: str = ""
    kind: str = "retrieval"
    lacking: str = "no query has a positive"
    remedy: str = "Ask with images that have another of their kind in the database."

    def defined_on(self, predictions: Any) -> bool:
        """Whether the data have this level, and a query a positive there."""
        known = not self.level or self.level in predictions.levels
        return known and bool(predictions.found(self.level).valid.any())

    def _value(self, predictions: Any) -> float:
        return super()._value(predictions) if self.defined_on(predictions) else np.nan


def _terms(predictions: RetrievalPredictions, level: str, per_query: PerQuery) -> Floats:
    """(n, 2): each query's value where it counts, and whether it does."""
    found = predictions.found(level)
    return np.stack([per_query(found) * found.valid, found.valid.astype(np.float64)], axis=1)


def _mean(sums: Floats) -> Floats:
    total = sums[..., 1]
    return np.divide(sums[..., 0], total, out=np.full_like(total, np.nan), where=total > 0)


def _kinds() -> Iterator[tuple[str, str, PerQuery]]:
    """Name, label and meaning of each."""
    yield "retrieval_map", "mAP", retrieval.average_precision
    yield "map_100", "mAP@100", partial(retrieval.average_precision_at, k=100)
    yield "mrr", "MRR", retrieval.reciprocal_rank
    for k in _PLACES:
        yield f"precision_{k}", f"P@{k}", partial(retrieval.precision_at, k=k)
        yield f"mp_{k}", f"mP@{k}", partial(retrieval.clipped_precision_at, k=k)
        yield f"recall_{k}", f"R@{k}", partial(retrieval.hit_at, k=k)


RETRIEVAL_METRICS: tuple[QueryMetric, ...] = tuple(
    QueryMetric(
        f"{name}_{level}" if level else name,
        f"{label} {level}".strip(),
        True,
        level=level,
        terms=partial(_terms, level=level, per_query=per_query),
        reduce=_mean,
    )
    for level in ("", *LEVELS)
    for name, label, per_query in _kinds()
)
