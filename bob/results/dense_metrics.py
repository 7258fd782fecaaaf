"""The metrics of detectors and segmenters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bob.results.coco_matching import THRESHOLDS
from bob.results.detection import DetectionPredictions
from bob.results.metric import Metric, SumMetric, Weighted
from bob.results.segmentation import mean_accuracy, mean_iou, pixel_accuracy, pixel_terms
from bob.results.terms import Floats, Terms


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


DETECTION_METRICS: tuple[Metric, ...] = (*_detection_metrics("box"), *_detection_metrics("mask"))
SEGMENTATION_METRICS: tuple[Metric, ...] = (
    PixelMetric("miou", "mIoU", True, reduce=mean_iou),
    PixelMetric("mean_accuracy", "mean accuracy", True, reduce=mean_accuracy),
    PixelMetric("pixel_accuracy", "pixel accuracy", True, reduce=pixel_accuracy),
)
