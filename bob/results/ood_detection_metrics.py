"""Metrics of detecting outliers, each the mean over the sets of outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bob.results.metric import Metric, Weighted
from bob.results.ood_detection import Area, OODDetectionPredictions
from bob.results.terms import Floats


@dataclass(frozen=True, kw_only=True)
class OutlierMetric(Metric):
    """The mean over sets of outliers of a number that depends on how scores rank them against the known classes.

    The sets share the samples of the known classes, in a resample too. A set without a sample, as a small one may be in
    a resample, is left out of the mean. The metrics of one bootstrap share their work.

    Attributes:
        area: Which number; see `OODDetectionPredictions.areas`.
        which: Over which sets.
    """

    area: Area
    which: Literal["all", "near", "far"] = "all"
    kind: str = "ood_detection"
    lacking: str = "it has no image of the known classes, or no outlier"
    remedy: str = "Test on images of both."

    def defined_on(self, predictions: OODDetectionPredictions) -> bool:  # type: ignore[override]
        """Whether there is a set that counts."""
        return bool(self._chosen(predictions).any())

    def _weighted(self, predictions: OODDetectionPredictions) -> Weighted:
        chosen = self._chosen(predictions)
        return lambda weights: _mean_of_defined(predictions.areas(self.area, weights)[chosen])

    def _chosen(self, predictions: OODDetectionPredictions) -> np.ndarray:
        near = np.asarray(predictions.near, dtype=bool)
        return {"all": np.ones_like(near), "near": near, "far": ~near}[self.which]


def _mean_of_defined(values: Floats) -> Floats:
    """Mean over the first axis of what is not NaN, added up in order, whatever the number of resamples beside it."""
    total, defined = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for row in values:
        defined += ~np.isnan(row)
        total += np.nan_to_num(row)
    return np.divide(total, defined, out=np.full_like(total, np.nan), where=defined > 0)


_NO_NEAR = "none of its sets of outliers is near"
_NO_FAR = "all of its sets of outliers are near"
_SAY = "Say on the task's card which [[sets]] are near."
OOD_DETECTION_METRICS: tuple[OutlierMetric, ...] = (
    OutlierMetric("auroc", "AUROC", True, area="auroc"),
    OutlierMetric("near_auroc", "near AUROC", True, area="auroc", which="near", lacking=_NO_NEAR, remedy=_SAY),
    OutlierMetric("far_auroc", "far AUROC", True, area="auroc", which="far", lacking=_NO_FAR, remedy=_SAY),
    OutlierMetric("aupr_out", "AUPR-out", True, area="aupr_out"),
    OutlierMetric("aupr_in", "AUPR-in", True, area="aupr_in"),
    OutlierMetric("fpr95", "FPR95", False, area="fpr95"),
)
