"""The file that holds predictions, of whichever kind a task has."""

from __future__ import annotations

from pathlib import Path

from bob.results import detection, factors, multilabel, ood, ood_detection, retrieval, segmentation
from bob.results.checks import read_parquet
from bob.results.judged import Judged
from bob.results.predictions import Predictions

# What the metadata of a file of each kind has; classification is what has none of these.
_KINDS: dict[bytes, type[Judged]] = {
    multilabel.LABELS_KEY: multilabel.MultiLabelPredictions,
    detection.CLASSES_KEY: detection.DetectionPredictions,
    segmentation.CLASSES_KEY: segmentation.SegmentationPredictions,
    ood.SETS_KEY: ood.OODPredictions,
    ood_detection.SETS_KEY: ood_detection.OODDetectionPredictions,
    retrieval.RETRIEVAL_KEY: retrieval.RetrievalPredictions,
    factors.FACTORS_KEY: factors.FactorPredictions,
}


def read_predictions(path: Path) -> Judged:
    """Read predictions of whichever kind the file holds.

    Raises:
        UserError: If the file is missing, is not Parquet, or holds none of the kinds.
    """
    table = read_parquet(path)
    for key, kind in _KINDS.items():
        if key in (table.schema.metadata or {}):
            return kind.from_table(table, path)
    return Predictions.from_table(table, path)
