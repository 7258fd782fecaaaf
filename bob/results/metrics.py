"""Metrics of every kind of task, each evaluated on many resamples at once: a bootstrap is a few matrix products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from bob.errors import UserError, did_you_mean
from bob.results.any import AnyPredictions
from bob.results.coco_matching import THRESHOLDS
from bob.results.detection import DetectionPredictions
from bob.results.ranking import Ranking, average_precision, roc_auc
from bob.results.segmentation import mean_accuracy, mean_iou, pixel_accuracy, pixel_terms
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

_KINDS = {
    "classification": "one label an image",
    "multilabel": "several labels an image",
    "detection": "the objects in an image",
    "segmentation": "a class for each pixel",
}


@dataclass(frozen=True)
class Metric(ABC):
    """A number about predictions. A metric of each kind below says how it weighs samples.

    Attributes:
        name: The field's name for it, as in records.
        label: What a table's head calls it.
        higher_is_better: Which way is up.
        largest: The largest value it can have; the smallest is 0.
        kind: Of predictions that it is about, called as their adapter is: `classification`, `multilabel`, `detection`
            or `segmentation`.
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

    def compute(self, predictions: AnyPredictions) -> float:
        """Return the metric's value on these predictions.

        Raises:
            UserError: If they are of another kind, lack groups that it needs, or leave it undefined.
        """
        self._require_fit(predictions)
        value = self._value(predictions)
        if np.isnan(value):
            raise UserError(f"`{self.name}` is not defined on this test split: {self.lacking}.", self.remedy)
        return value

    def defined_on(self, predictions: AnyPredictions) -> bool:
        """Whether predictions of the metric's kind have what it needs, as far as a look can tell.

        Some of a fixed set of metrics have no value on some data: the average precision of small objects where all are
        large, of masks where there are none. Ask before `compute`, which refuses.
        """
        return True

    def weighted(self, predictions: AnyPredictions) -> Weighted:
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


@dataclass(frozen=True, kw_only=True)
class PixelMetric(SumMetric):
    """A number that depends on a segmenter's predictions only through the pixels of each class, over all images."""

    kind: str = "segmentation"
    terms: Callable[[Any], Terms] = pixel_terms
    lacking: str = "all its pixels are to be ignored"
    remedy: str = "Test on images with annotated pixels."

    def defined_on(self, predictions: Any) -> bool:
        """Whether some pixel counts."""
        return bool(predictions.truth.any())


@dataclass(frozen=True, kw_only=True)
class DetectionMetric(Metric):
    """COCO's average precision: the mean over classes that have an object, thresholds and 101 recalls.

    Equals pycocotools' `COCOeval` with its own settings, 100 detections of each class in an image among them. In a
    resample, a class that has no object there is left out, as COCO leaves it out. The metrics of one bootstrap share
    the work of one range of size; of 5,000 images with 500,000 detections of 80 classes, 2,000 resamples of the six
    numbers of boxes take a core about 45 s.

    Attributes:
        shape: What detections are judged by, `box` or `mask`.
        area: Which objects count, one of `coco_matching.AREAS`.
        threshold: Intersection over union from which an object is found; None for the mean over 0.5, 0.55, ..., 0.95.

    Source: Lin et al. 2014, arXiv 1405.0312; LVIS: Gupta et al. 2019, arXiv 1908.03195.
    """

    shape: str
    area: str = "all"
    threshold: float | None = None
    kind: str = "detection"
    remedy: str = "Leave the metric out of the task's card."

    def defined_on(self, predictions: Any) -> bool:
        """Whether some object of the metric's size counts and, for masks, data and detector have masks."""
        return self.shape in predictions.shapes and bool(predictions.in_range(self.area).any())

    def _value(self, predictions: Any) -> float:
        return super()._value(predictions) if self.defined_on(predictions) else np.nan

    def _weighted(self, predictions: DetectionPredictions) -> Weighted:
        kept = slice(None)
        if self.threshold is not None:
            first = int(np.abs(THRESHOLDS - self.threshold).argmin())
            kept = slice(first, first + 1)
        return lambda weights: _mean_of_rows(predictions.average_precisions(self.shape, self.area, weights)[kept])


def _mean_of_rows(values: Floats) -> Floats:
    """Mean over the first axis, added up in order: `mean` takes another order where there is a single column."""
    return np.asarray(np.cumsum(values, axis=0)[-1] / len(values))


def _detection_metrics(shape: str) -> Iterator[DetectionMetric]:
    """The six of boxes or of masks: overall, at two thresholds, and by size."""
    others = ", or there are no masks" if shape == "mask" else ""
    for suffix, threshold in {"": None, "50": 0.5, "75": 0.75}.items():
        names, lacking = (f"{shape}_ap{suffix}", f"{shape} AP{suffix}"), f"no object counts{others}"
        yield DetectionMetric(*names, True, shape=shape, threshold=threshold, lacking=lacking)
    for area in ("small", "medium", "large"):
        names, lacking = (f"{shape}_ap_{area}", f"{shape} AP {area}"), f"no {area} object counts{others}"
        yield DetectionMetric(*names, True, shape=shape, area=area, lacking=lacking)


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
        *_detection_metrics("box"),
        *_detection_metrics("mask"),
        PixelMetric("miou", "mIoU", True, reduce=mean_iou),
        PixelMetric("mean_accuracy", "mean accuracy", True, reduce=mean_accuracy),
        PixelMetric("pixel_accuracy", "pixel accuracy", True, reduce=pixel_accuracy),
    )
}
