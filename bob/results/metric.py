"""What a metric is: a number about predictions, evaluated on many resamples at once by a few matrix products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from bob.errors import UserError
from bob.results.judged import Judged
from bob.results.ranking import Ranking
from bob.results.terms import Floats, Terms

# Weights of n samples in r resamples, (n, r), to the metric's value on each: (r,), NaN where it has none.
Weighted: TypeAlias = Callable[[Floats], Floats]

_KINDS = {
    "classification": "one label an image",
    "multilabel": "several labels an image",
    "detection": "the objects in an image",
    "segmentation": "a class for each pixel",
    "ood": "one label an image, in several test sets",
    "ood_detection": "images of known classes and outliers",
    "factors": "one label and some factors an image",
    "retrieval": "queries to a database",
}

_ALSO = {"factors": "classification"}  # predictions that have all that another kind has


@dataclass(frozen=True)
class Metric(ABC):
    """A number about predictions. A metric of each kind below says how it weighs samples.

    Attributes:
        name: The field's name for it, as in records.
        label: What a table's head calls it.
        higher_is_better: Which way is up.
        largest: The largest value it can have; the smallest is 0.
        kind: Of predictions that it is about, called as their adapter is.
        needs_groups: Whether the samples must be in groups.
        lacking: What a test split that leaves the metric undefined lacks, for metrics that can be left undefined.
        remedy: What such a test split must have.
    """

    name: str
    label: str
    higher_is_better: bool
    largest: float = 1.0
    kind: str = "classification"
    needs_groups: bool = False
    lacking: str = ""
    remedy: str = ""

    def compute(self, predictions: Judged) -> float:
        """Return the metric's value on these predictions.

        Raises:
            UserError: If they are of another kind, lack groups that it needs, or leave it undefined.
        """
        self._require_fit(predictions)
        value = self._value(predictions)
        if np.isnan(value):
            raise UserError(f"`{self.name}` is not defined on this test split: {self.lacking}.", self.remedy)
        return value

    def defined_on(self, predictions: Judged) -> bool:
        """Whether predictions of the metric's kind have what it needs, as far as a look can tell.

        Some of a fixed set of metrics have no value on some data: the average precision of small objects where all are
        large, of masks where there are none. Ask before `compute`, which refuses.
        """
        return True

    def weighted(self, predictions: Judged) -> Weighted:
        """Return the function that evaluates the metric on weighted samples, all that it can prepare being prepared.

        Raises:
            UserError: If the predictions are of another kind, or lack groups that the metric needs.
        """
        self._require_fit(predictions)
        return self._weighted(predictions)

    def require(self, kind: str, has_groups: bool) -> None:
        """Refuse predictions that the metric is not about.

        Args:
            kind: The adapter's name.
            has_groups: Whether their samples are in groups.

        Raises:
            UserError: If they are of another kind, or lack groups that the metric needs.
        """
        if self.kind not in (kind, _ALSO.get(kind)):
            from bob.results.metrics import METRICS  # here, for that room is built on this one

            fit = ", ".join(name for name, metric in METRICS.items() if metric.kind in (kind, _ALSO.get(kind)))
            problem = f"The metric `{self.name}` is for {_KINDS[self.kind]}, but the task has {_KINDS[kind]}."
            raise UserError(problem, f"Use some of {fit}.")
        if self.needs_groups and not has_groups:
            problem = f"The metric `{self.name}` needs the group of each image, but the data have no groups."
            raise UserError(
                problem, "Add a column `group` to the manifest, or leave the metric out of the task's card."
            )

    def _require_fit(self, predictions: Judged) -> None:
        self.require(predictions.kind, getattr(predictions, "groups", None) is not None)

    def _value(self, predictions: Any) -> float:
        return float(self._weighted(predictions)(np.ones((len(predictions), 1)))[0])

    @abstractmethod
    def _weighted(self, predictions: Any) -> Weighted: ...


@dataclass(frozen=True, kw_only=True)
class SumMetric(Metric):
    """A number that depends on the predictions only through sums over samples.

    Attributes:
        terms: Maps predictions of n samples to (n, m), dense or sparse: the m summands of each sample. Where `reduce`
            needs the number of samples, one of the m is the constant 1.
        reduce: Maps sums of terms (..., m) to values (...).
    """

    terms: Callable[[Any], Terms]
    reduce: Callable[[Floats], Floats]

    def _value(self, predictions: Any) -> float:
        return float(self.reduce(np.asarray(self.terms(predictions).sum(axis=0), dtype=np.float64)))

    def _weighted(self, predictions: Any) -> Weighted:
        # Sparse times dense adds up sample after sample, whatever the number of resamples beside it, and `reduce` gets
        # rows that are contiguous: so chunks do not change the last digit, as they do in a dense (BLAS) product.
        transposed = sparse.csr_array(self.terms(predictions)).T.tocsr()
        return lambda weights: self.reduce(np.ascontiguousarray((transposed @ weights).T))


@dataclass(frozen=True, kw_only=True)
class RankMetric(Metric):
    """The mean over labels of an area under a ranking curve; a label on which it is not defined is left out.

    In a resample that can be a label which the test split itself defines, where it has few positives.

    Attributes:
        area: Maps a ranking of n samples and their weights (n, r) to values (r,), NaN where not defined.
    """

    area: Callable[[Ranking, Floats], Floats]
    lacking: str = "no label has what it needs"

    def _weighted(self, predictions: Any) -> Weighted:
        rankings: list[Ranking] = predictions.rankings()
        return lambda weights: self._mean_area(rankings, weights)

    def _mean_area(self, rankings: list[Ranking], weights: Floats) -> Floats:
        total, defined = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for ranking in rankings:
            areas = self.area(ranking, weights)
            defined += ~np.isnan(areas)
            total += np.nan_to_num(areas)
        return np.divide(total, defined, out=np.full_like(total, np.nan), where=defined > 0)
