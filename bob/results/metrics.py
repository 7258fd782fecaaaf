"""Metrics of a classifier, each evaluated on many resamples at once: a bootstrap is a few matrix products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from bob.errors import UserError, did_you_mean
from bob.results.multilabel import AnyPredictions
from bob.results.predictions import Predictions
from bob.results.ranking import Ranking, average_precision, roc_auc
from bob.results.terms import (
    Floats,
    Terms,
    ece_terms,
    expected_calibration_error,
    mean,
    mean_of_recalls,
    mean_per_class_terms,
    nll_terms,
    top1_terms,
    top5_terms,
    worst_group,
    worst_group_terms,
)

# Weights of n samples in r resamples, (n, r), to the metric's value on each: (r,), NaN where it has none.
Weighted: TypeAlias = Callable[[Floats], Floats]

_KINDS = {"classification": "one label an image", "multilabel": "several labels an image"}


@dataclass(frozen=True)
class Metric(ABC):
    """A number about predictions. A metric of either kind below says how it weighs samples.

    Attributes:
        name: The field's name for it, as in records.
        label: What a table's head calls it.
        higher_is_better: Which way is up.
        largest: The largest value it can have; the smallest is 0.
        kind: Of predictions that it is about, called as their adapter is: `classification` or `multilabel`.
        needs_groups: Whether the samples must be in groups.
    """

    name: str
    label: str
    higher_is_better: bool
    largest: float = 1.0
    kind: str = "classification"
    needs_groups: bool = False

    def compute(self, predictions: AnyPredictions) -> float:
        """Return the metric's value on these predictions.

        Raises:
            UserError: If they are of the other kind, lack groups that it needs, or leave it undefined.
        """
        return float(self.weighted(predictions)(np.ones((len(predictions), 1)))[0])

    def weighted(self, predictions: AnyPredictions) -> Weighted:
        """Return the function that evaluates the metric on weighted samples, all that it can prepare being prepared.

        Raises:
            UserError: If the predictions are of the other kind, or lack groups that the metric needs.
        """
        self._require_fit(predictions)
        return self._weighted(predictions)

    def require(self, kind: str, has_groups: bool) -> None:
        """Refuse predictions that the metric is not about.

        Args:
            kind: `classification` or `multilabel`, the adapter's name.
            has_groups: Whether their samples are in groups.

        Raises:
            UserError: If they are of the other kind, or lack groups that the metric needs.
        """
        if kind != self.kind:
            fit = ", ".join(name for name, metric in METRICS.items() if metric.kind == kind)
            problem = f"The metric `{self.name}` is for {_KINDS[self.kind]}, but the task has {_KINDS[kind]}."
            raise UserError(problem, f"Use some of {fit}.")
        if self.needs_groups and not has_groups:
            problem = f"The metric `{self.name}` needs the group of each image, but the data have no groups."
            raise UserError(
                problem, "Add a column `group` to the manifest, or leave the metric out of the task's card."
            )

    def _require_fit(self, predictions: AnyPredictions) -> None:
        self.require(predictions.kind, getattr(predictions, "groups", None) is not None)

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

    terms: Callable[[Predictions], Terms]
    reduce: Callable[[Floats], Floats]

    def compute(self, predictions: Any) -> float:
        """See `Metric.compute`."""
        self._require_fit(predictions)
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
        remedy: What some label must have for the metric to be defined.
    """

    area: Callable[[Ranking, Floats], Floats]
    remedy: str

    def compute(self, predictions: AnyPredictions) -> float:
        """See `Metric.compute`."""
        value = super().compute(predictions)
        if np.isnan(value):
            raise UserError(
                f"`{self.name}` is not defined on this test split: no label has what it needs.", self.remedy
            )
        return value

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


def get_metric(name: str, kind: str | None = None, has_groups: bool | None = None) -> Metric:
    """Return the metric of that name.

    Args:
        name: As on a task's card.
        kind: The adapter's name, if the metric must fit it: `classification` or `multilabel`.
        has_groups: Whether the data have groups, where that is known.

    Raises:
        UserError: If there is none, naming the closest; if it is for the other kind of task; if it needs groups that
            the data do not have.
    """
    if name not in METRICS:
        remedy = did_you_mean(name, METRICS) or f"Known metrics: {', '.join(METRICS)}."
        raise UserError(f"Expected the name of a metric, but got `{name}`.", remedy)
    metric = METRICS[name]
    if kind is not None or has_groups is not None:
        metric.require(metric.kind if kind is None else kind, has_groups is not False)
    return metric


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        SumMetric("top1", "top-1", True, terms=top1_terms, reduce=mean),
        SumMetric("top5", "top-5", True, terms=top5_terms, reduce=mean),
        SumMetric("mean_per_class", "mean per class", True, terms=mean_per_class_terms, reduce=mean_of_recalls),
        SumMetric("nll", "NLL", False, largest=np.inf, terms=nll_terms, reduce=mean),
        SumMetric("ece", "ECE", False, terms=ece_terms, reduce=expected_calibration_error),
        SumMetric("worst_group", "worst group", True, needs_groups=True, terms=worst_group_terms, reduce=worst_group),
        RankMetric(
            "mean_auroc",
            "mean AUROC",
            True,
            kind="multilabel",
            area=roc_auc,
            remedy="Test on images that show some label and on images that do not.",
        ),
        RankMetric(
            "map",
            "mAP",
            True,
            kind="multilabel",
            area=average_precision,
            remedy="Test on images that show some label.",
        ),
    )
}
