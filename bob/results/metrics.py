"""The metrics of every kind of task, by name."""

from __future__ import annotations

import numpy as np

from bob.errors import UserError, did_you_mean
from bob.results.dense_metrics import DETECTION_METRICS, SEGMENTATION_METRICS
from bob.results.factor_metrics import FACTOR_METRICS
from bob.results.metric import Metric, RankMetric, SumMetric
from bob.results.ood_detection_metrics import OOD_DETECTION_METRICS
from bob.results.ood_metrics import OOD_METRICS
from bob.results.ranking import average_precision, roc_auc
from bob.results.retrieval_metrics import RETRIEVAL_METRICS
from bob.results.terms import (
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


def get_metric(name: str, kind: str | None = None, has_groups: bool | None = None) -> Metric:
    """Return the metric of that name.

    Args:
        name: As on a task's card.
        kind: The adapter's name, if the metric must fit it.
        has_groups: Whether the data have groups, where that is known.

    Raises:
        UserError: If there is none, naming the closest; if it is for another kind of task; if it needs groups that
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
        *DETECTION_METRICS,
        *SEGMENTATION_METRICS,
        *OOD_METRICS,
        *OOD_DETECTION_METRICS,
        *FACTOR_METRICS,
        *RETRIEVAL_METRICS,
    )
}
