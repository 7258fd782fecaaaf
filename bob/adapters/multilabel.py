"""Multi-label classification: each label is present or not, whatever the others are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from bob.adapters.base import Adapter, named
from bob.adapters.classification import KNN, LINEAR, LINEAR_SGD
from bob.adapters.probing import Probing
from bob.adapters.recipes import TRAINING
from bob.data.base import Dataset
from bob.results.multilabel import MultiLabelPredictions


def _with(protocol: Probing, description: str, **constant: Any) -> Probing:
    """The protocol for several labels: the same grid, with what tells the probe."""
    return replace(protocol, description=description, grid=tuple({**point, **constant} for point in protocol.grid))


PROBES = (
    _with(LINEAR, "Logistic regression, one sigmoid a label (L-BFGS); L2 strength chosen on validation.", loss="bce"),
    _with(
        KNN,
        "Nearest neighbours by cosine similarity, a weighted vote on each label; k chosen on validation.",
        multi_label=True,
    ),
    _with(LINEAR_SGD, LINEAR_SGD.description.replace("Softmax heads", "One sigmoid a label,"), loss="bce"),
)


class MultiLabel(Adapter):
    """Several labels an image; those that are unknown count neither in training nor in testing."""

    protocols: ClassVar = named(
        [*PROBES, *(replace(training, recipe=replace(training.recipe, loss="bce")) for training in TRAINING)]
    )
    choose_by: ClassVar = ("mean_auroc", "map")

    def judge(self, dataset: Dataset, split: str, predicted: np.ndarray) -> MultiLabelPredictions:
        """See `Adapter.judge`; each column of `predicted` is a label's own probability."""
        judged = dataset.splits[split]
        return MultiLabelPredictions.from_probabilities(judged.names, judged.labels, predicted, dataset.classes)
