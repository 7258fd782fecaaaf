"""Several labels an image: every probe ranks images by each label, and unknown labels count nowhere."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from bob.adapters.multilabel import PROBES, MultiLabel
from bob.adapters.probing import Probing
from bob.data.base import Dataset, ImageSet, Split
from bob.features.extract import Extraction
from bob.features.reading import BLOCKS, FEATURE, OUTPUT, Reading
from bob.results.metrics import METRICS
from bob.task_cards import DataSpec, TaskCard

SIZES = {"train": 200, "val": 80, "test": 120}
TASK = TaskCard(
    name="toy", adapter="multilabel", data=DataSpec(source="x"), metrics=("mean_auroc",), primary="mean_auroc"
)


class Labels(ImageSet):
    def __init__(self, labels: np.ndarray) -> None:
        self.labels, self.names = labels, [f"image {i}" for i in range(len(labels))]

    def read(self, index: int) -> torch.Tensor:
        raise AssertionError

    def fingerprint(self) -> str:
        return "0" * 64


class Toy:
    """Three labels, each with a direction of its own; one in five is unknown."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(3, 8))
        self.task, self.adapter, self.how = TASK, MultiLabel(), Extraction(torch.device("cpu"))
        self._features, splits = {}, {}
        for name, size in SIZES.items():
            labels = rng.integers(0, 2, (size, 3))
            self._features[name] = (labels @ directions + rng.normal(size=(size, 8))).astype("f4")
            labels[rng.random((size, 3)) < 0.2] = -1
            splits[name] = Split(Labels(labels), np.arange(size))
        self.open = Dataset("toy", ("cat", "dog", "owl"), splits)
        self.dataset = self.open.sealed("test")

    def features(self, split: str, reading: Reading = FEATURE) -> np.ndarray:
        x = self._features[split]
        return np.concatenate([x, x], axis=1) if reading == BLOCKS else x

    def columns(self, reading: Reading) -> dict[str, slice]:
        return {"block0": slice(0, 8), OUTPUT: slice(8, 16)}


@pytest.mark.parametrize("protocol", PROBES, ids=lambda protocol: protocol.name)
def test_ranks_by_each_label(protocol: Probing) -> None:
    toy = Toy()
    outcome = protocol.run(cast(Any, toy), 0)
    judged = toy.adapter.judge(toy.open, "test", outcome.predicted)
    assert METRICS["mean_auroc"].compute(judged) > 0.8
    assert outcome.predicted.shape == (120, 3) and not np.allclose(outcome.predicted.sum(axis=1), 1)
    assert all({"val_mean_auroc", "val_map"} < set(entry) for entry in outcome.grid)
    best = max(entry["val_mean_auroc"] for entry in outcome.grid)
    chosen = [entry for entry in outcome.grid if all(entry[key] == value for key, value in outcome.chosen.items())]
    assert [entry["val_mean_auroc"] for entry in chosen] == [best]


def test_names_are_those_of_single_labels() -> None:
    assert {"linear", "knn", "linear_sgd", "finetune"} <= set(MultiLabel.protocols)
    assert all(protocol.as_dict()["grid"] for protocol in PROBES)
