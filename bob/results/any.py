"""Predictions of whichever kind a task has, and the file that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from bob.results import detection, multilabel, segmentation
from bob.results.checks import read_parquet
from bob.results.detection import DetectionPredictions
from bob.results.multilabel import MultiLabelPredictions
from bob.results.predictions import Predictions
from bob.results.segmentation import SegmentationPredictions

AnyPredictions: TypeAlias = Predictions | MultiLabelPredictions | DetectionPredictions | SegmentationPredictions

# What the metadata of a file of each kind has; classification is what has none of these.
_KEYS: dict[bytes, type[MultiLabelPredictions] | type[DetectionPredictions] | type[SegmentationPredictions]] = {
    multilabel.LABELS_KEY: MultiLabelPredictions,
    detection.CLASSES_KEY: DetectionPredictions,
    segmentation.CLASSES_KEY: SegmentationPredictions,
}


def read_predictions(path: Path) -> AnyPredictions:
    """Read predictions of whichever kind the file holds.

    Raises:
        UserError: If the file is missing, is not Parquet, or holds none of the kinds.
    """
    table = read_parquet(path)
    for key, kind in _KEYS.items():
        if key in (table.schema.metadata or {}):
            return kind.from_table(table, path)
    return Predictions.from_table(table, path)
