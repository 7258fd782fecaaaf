"""Classification of images into one class each: its protocols, and how its predictions are judged."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bob.adapters.base import Adapter, named
from bob.adapters.probing import Probing, ProbingColumns, ProbingTokens
from bob.adapters.recipes import TRAINING
from bob.adapters.zero_shot import ZeroShot
from bob.data.base import Dataset
from bob.features.reading import TOKENS
from bob.probes.attentive import AttentiveProbe
from bob.probes.class_mean import NearestClassMean
from bob.probes.knn import KNeighbors
from bob.probes.logistic import LogisticRegression
from bob.probes.ridge import RidgeClassifier
from bob.probes.sgd import LinearSGD
from bob.results.predictions import Predictions

LINEAR = Probing(
    name="linear",
    version=1,
    description="Multinomial logistic regression (L-BFGS) on standardised features; L2 strength chosen on validation.",
    probe=LogisticRegression,
    grid=tuple({"l2": 10.0 ** (exponent / 2)} for exponent in range(4, -11, -1)),
)
KNN = Probing(
    name="knn",
    version=1,
    description="Nearest neighbours by cosine similarity, votes weighted (temperature 0.07); k chosen on validation.",
    probe=KNeighbors,
    grid=tuple({"k": k} for k in (1, 2, 5, 10, 20, 50, 100, 200)),
)
RIDGE = Probing(
    name="ridge",
    version=1,
    description="Ridge regression on standardised features, in closed form; L2 strength chosen on validation.",
    probe=RidgeClassifier,
    grid=tuple({"l2": 10.0 ** (exponent / 2)} for exponent in range(6, -14, -1)),
)
CLASS_MEAN = Probing(
    name="class_mean",
    version=1,
    description="Nearest class mean by cosine similarity of centred features (SimpleShot); nothing to choose.",
    probe=NearestClassMean,
    grid=({"normalize": "cl2n"},),
)
ATTENTIVE = ProbingTokens(
    name="attentive",
    version=1,
    description="One cross-attention block over the last map's positions (AdamW); learning rate chosen on validation.",
    probe=AttentiveProbe,
    grid=tuple({"lr": lr, "batch_size": 64} for lr in (1e-4, 3e-4, 1e-3, 3e-3)),
    reading=TOKENS,
)
# Of facebookresearch/dinov2's eval/linear.py: 13 learning rates, 1 or 4 blocks, with and without the patches' mean.
_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
LINEAR_SGD = ProbingColumns(
    name="linear_sgd",
    version=1,
    description="Softmax heads by SGD, as DINOv2: 13 learning rates x last 1 or 4 blocks x with or without patch mean.",
    probe=LinearSGD,
    grid=tuple(
        {"lr": lr, "weight_decay": 0.0, "batch_size": 128, "features": features}
        for features in ("last1", "last1+mean", "last4", "last4+mean")
        for lr in _RATES
    ),
)
ZERO_SHOT = ZeroShot(
    name="zero_shot",
    version=1,
    description="Image embeddings against the text embeddings of the class names in the task's prompts.",
)


class Classification(Adapter):
    """Single-label classification."""

    protocols: ClassVar = named([LINEAR, KNN, RIDGE, CLASS_MEAN, LINEAR_SGD, ATTENTIVE, ZERO_SHOT, *TRAINING])
    choose_by: ClassVar = ("top1", "nll")

    def judge(self, dataset: Dataset, split: str, predicted: np.ndarray) -> Predictions:
        """See `Adapter.judge`; rows of `predicted` sum to one."""
        judged = dataset.splits[split]
        return Predictions.from_probabilities(
            judged.names, judged.labels, predicted, dataset.classes, judged.groups, dataset.groups
        )
