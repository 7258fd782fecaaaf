"""Multi-label classification: each label is present or not, whatever the others are."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from bob.adapters.base import Adapter, named
from bob.adapters.classification import LINEAR_SGD
from bob.adapters.probing import ProbingColumns
from bob.adapters.recipes import TRAINING
from bob.data.base import Dataset
from bob.results.multilabel import MultiLabelPredictions

MULTILABEL_SGD: ProbingColumns = replace(
    LINEAR_SGD,
    description=LINEAR_SGD.description.replace("Softmax heads", "One sigmoid a label,"),
    grid=tuple({**point, "loss": "bce"} for point in LINEAR_SGD.grid),
)


class MultiLabel(Adapter):
    """Several labels an image; those that are unknown count neither in training nor in testing."""

    protocols: ClassVar = named(
        [MULTILABEL_SGD, *(replace(training, recipe=replace(training.recipe, loss="bce")) for training in TRAINING)]
    )
    choose_by: ClassVar = ("mean_auroc", "map")

    def judge(self, dataset: Dataset, split: str, table: np.ndarray) -> MultiLabelPredictions:
        """See `Adapter.judge`; each column of the table is a label's own probability."""
        judged = dataset.splits[split]
        return MultiLabelPredictions.from_probabilities(judged.names, judged.labels, table, dataset.classes)
