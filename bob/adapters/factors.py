"""Classification of images whose factors are known: where a classifier fails, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np

from bob.adapters.classification import Classification
from bob.data.base import Dataset
from bob.results.factors import FactorPredictions
from bob.results.predictions import Predictions


class Factors(Classification):
    """Single-label classification, tested on images with factors; training and choice know nothing of these."""

    def judge(self, dataset: Dataset, split: str, predicted: np.ndarray) -> Predictions:
        """See `Classification.judge`; the predictions on the test split have the images' factors."""
        plain = super().judge(dataset, split, predicted)
        if split != self.tested:
            return plain
        judged = dataset.splits[split]
        images: Any = judged.images
        return FactorPredictions.of(plain, images.flags[judged.indices], images.flag_names)
