"""What predictions are worth: every metric with its interval, and how the primary one moves with the test samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bob.results.draws import KEPT_RESAMPLES, pack
from bob.results.judged import Judged
from bob.results.metrics import get_metric
from bob.results.record import MetricResult
from bob.results.statistics import bootstrap


@dataclass(frozen=True)
class Judgement:
    """The metrics of one run.

    Attributes:
        metrics: By name, in the order asked for, with 95% intervals.
        resampled: The primary metric on the first `KEPT_RESAMPLES` resamples, as `pack` writes them.
        left_out: Names of those that are not defined on these predictions.
    """

    metrics: dict[str, MetricResult]
    resampled: str
    left_out: tuple[str, ...]


def judge(predictions: Judged, names: Sequence[str], primary: str, seed: int = 0) -> Judgement:
    """Compute metrics with their bootstrap intervals.

    With one seed for all runs, every backbone is judged on the same resamples of a test split, so that what differs
    between two of them on a resample is paired.

    Args:
        predictions: Of a test split.
        names: Of the metrics; but for the primary one, those that the predictions leave undefined are left out.
        primary: The one that must be there.
        seed: Of the resampling.

    Raises:
        UserError: If the primary metric is not defined on the predictions.
    """
    wanted = [get_metric(name) for name in names]
    metrics = [each for each in wanted if each.name == primary or each.defined_on(predictions)]
    estimates = bootstrap(metrics, predictions, seed=seed)
    results = {
        metric.name: MetricResult(**estimates[metric.name].as_dict(), higher_is_better=metric.higher_is_better)
        for metric in metrics
    }
    left_out = tuple(metric.name for metric in wanted if metric not in metrics)
    return Judgement(results, pack(estimates[primary].draws[:KEPT_RESAMPLES]), left_out)
