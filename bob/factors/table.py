"""The tables of ImageNet-X: one classifier's numbers for each factor, overall and within each metaclass."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bob.factors.annotations import FACTORS, METACLASSES, Annotations, ErrorType
from bob.factors.predicted import Predicted, positions
from bob.results.factor_table import Correctness, factor_table, worst_classes

ALL = "all"
WORST_CLASSES = 100


def correctness(predicted: Predicted, annotations: Annotations, error_type: ErrorType = "class") -> Correctness:
    """Whether a classifier is right about each annotated image; raises as `predicted.positions`."""
    rows = positions(predicted, annotations)
    confidence = None if predicted.confidence is None else predicted.confidence[rows]
    right = annotations.right(predicted.classes[rows], error_type)
    return Correctness(annotations.classes, right, annotations.flags, FACTORS, confidence)


def score(
    predicted: Predicted,
    annotations: Annotations,
    error_type: ErrorType = "class",
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every number about one classifier.

    Args:
        predicted: Its predictions.
        annotations: As `load_annotations` gives them.
        error_type: What counts as right; see `Annotations.right`.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        The columns `model` and `metaclass`, then those of `results.factor_table.factor_table`. First the rows of all
        images (metaclass `all`), among them `worst_100_classes`, without an interval; then those of each metaclass,
        where ratios and shifts are relative to that metaclass's own images.

    Raises:
        UserError: As `predicted.positions` and `Annotations.right`.
    """
    judged = correctness(predicted, annotations, error_type)
    parts = {ALL: pd.concat([factor_table(judged, resamples=resamples, seed=seed), _worst(judged)], ignore_index=True)}
    metaclasses = annotations.metaclasses
    for number in np.unique(metaclasses):
        within = judged.only(metaclasses == number)
        parts[METACLASSES[number]] = factor_table(within, resamples=resamples, seed=seed)
    for name, part in parts.items():
        part.insert(0, "metaclass", name)
        part.insert(0, "model", predicted.model)
    return pd.concat(parts.values(), ignore_index=True)


def _worst(judged: Correctness) -> pd.DataFrame:
    n, right = worst_classes(judged, WORST_CLASSES)
    return pd.DataFrame([{"factor": f"worst_{WORST_CLASSES}_classes", "n": n, "right": right, "accuracy": right / n}])
