"""The metrics of predictions on images with factors: how bad the factor is where a classifier is worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from bob.results.factor_table import Sums
from bob.results.factors import FactorPredictions
from bob.results.metric import Metric, SumMetric
from bob.results.terms import Floats


def factor_terms(predictions: FactorPredictions) -> sparse.csr_array:
    """For each factor: does the sample have it, and is that right? Then: is it right, and 1. Shape (n, 2 F + 2)."""
    right = (predictions.predicted == predictions.labels)[:, None]
    flags = predictions.flags
    return sparse.csr_array(np.hstack([flags & right, flags, right, np.ones_like(right)]).astype(np.float64))


def worst_factor(sums: Floats) -> Floats:
    """Accuracy on the images of the factor where it is lowest; a factor without images in a resample is left out.

    Source: Idrissi et al. 2023, arXiv 2211.01866; `worst_factor` in the tables of its toolkit.
    """
    return _sums(sums).worst


def max_error_ratio(sums: Floats) -> Floats:
    """Largest of the factors' errors over the error on all images; 1 if no factor is harder than the mean image.

    Source: as `worst_factor`; the ratio is the paper's.
    """
    return _sums(sums).largest_ratio


def _sums(sums: Floats) -> Sums:
    """Take the columns of `factor_terms` apart."""
    count = (sums.shape[-1] - 2) // 2
    hits, members = sums[..., :count], sums[..., count : 2 * count]
    return Sums(hits, members, sums[..., -2], sums[..., -1])


@dataclass(frozen=True, kw_only=True)
class FactorMetric(SumMetric):
    """A number about the accuracies on the images of each factor.

    Attributes:
        needs_errors: Whether it has no value where nothing is wrong.
    """

    kind: str = "factors"
    needs_errors: bool = False
    remedy: str = "Leave the metric out of the task's card."

    def defined_on(self, predictions: Any) -> bool:
        """Whether some image has a factor and, where errors are compared, one is wrong."""
        return bool(predictions.flags.any() and (not self.needs_errors or (predictions.label_rank > 0).any()))


FACTOR_METRICS: tuple[Metric, ...] = (
    FactorMetric(
        "worst_factor",
        "worst factor",
        True,
        terms=factor_terms,
        reduce=worst_factor,
        lacking="no image has a factor",
    ),
    FactorMetric(
        "max_error_ratio",
        "largest error ratio",
        False,
        largest=np.inf,
        terms=factor_terms,
        reduce=max_error_ratio,
        needs_errors=True,
        lacking="no image has a factor, or no prediction is wrong",
    ),
)
