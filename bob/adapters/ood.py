"""Classification tested on shifted sets: learnt and chosen on the task's own images, judged there and elsewhere."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bob.adapters.base import Adapter
from bob.adapters.classification import Classification
from bob.data.base import Dataset
from bob.data.other_sets import PartedDataset
from bob.data.shifted import ShiftedSet
from bob.results.judged import Judged
from bob.results.judged_sets import JudgedSet
from bob.results.ood import OODPredictions


class OOD(Adapter):
    """Single-label classification under distribution shift, by the protocols of classification, unchanged."""

    protocols: ClassVar = Classification.protocols
    choose_by: ClassVar = Classification.choose_by

    def judge(self, dataset: Dataset, split: str, predicted: np.ndarray) -> Judged:
        """See `Adapter.judge`; rows of `predicted` sum to one, also those of images of a set with fewer classes.

        Raises:
            ValueError: If the tested split is not made of several sets.
        """
        if split != self.tested:
            return Classification().judge(dataset, split, predicted)
        if not isinstance(dataset, PartedDataset):
            raise ValueError(f"Expected `dataset` to be a PartedDataset, but got {type(dataset).__name__}.")
        judged = dataset.splits[split]
        clean, *others = dataset.open_parts()
        sets = [(JudgedSet(clean.name), clean.rows)]
        for part in others:
            said = ShiftedSet.from_dict(part.said)
            sets.append((JudgedSet(part.name, said.entry, said.corruption, said.severity, said.members), part.rows))
        return OODPredictions.from_probabilities(judged.names, judged.labels, predicted, dataset.classes, sets)
