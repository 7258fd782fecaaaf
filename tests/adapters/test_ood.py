"""A probe learnt on the clean images is judged on them and on each shifted set."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bob.adapters.base import Inputs
from bob.adapters.classification import LINEAR, Classification
from bob.adapters.ood import OOD
from bob.data.base import Dataset, ImageSet, Split
from bob.data.other_sets import with_parts
from bob.data.shifted import ShiftedSet
from bob.results.ood import OODPredictions
from bob.results.predictions import Predictions

CENTRES = np.array([[3.0, 0.0], [0.0, 3.0], [-3.0, -3.0]])


class Points(ImageSet):
    """Labels of points about three centres, which `features` moves."""

    def __init__(self, labels: np.ndarray, moved: float, seed: int) -> None:
        self.labels, self.names = labels, [f"{seed}/{i}" for i in range(len(labels))]
        noise = np.random.default_rng(seed).normal(size=(len(labels), 2))
        self.features = (CENTRES[labels] + noise + moved).astype(np.float32)

    def read(self, index: int):
        raise NotImplementedError

    def fingerprint(self) -> str:
        return self.names[0]


@pytest.fixture
def dataset() -> Dataset:
    own = Points(np.arange(240) % 3, 0.0, seed=0)
    splits = {name: Split(own, np.arange(80) + 80 * place) for place, name in enumerate(("train", "val", "test"))}
    copies = Points(own.labels[splits["test"].indices], 4.0, seed=1)
    others = Points(np.array([0, 2] * 20), 0.5, seed=2)
    pieces = [
        ("c/fog/1", Split(copies, np.arange(80)), ShiftedSet("c", "fog", 1).as_dict()),
        ("few", Split(others, np.arange(40)), ShiftedSet("few", members=((0,), (2,))).as_dict()),
    ]
    return with_parts(Dataset("points", ("a", "b", "c"), splits), pieces)


def _given(dataset: Dataset) -> Inputs:
    def features(split: str, reading: object = None) -> np.ndarray:
        parts = dataset.splits[split].images.parts
        return np.concatenate([part.features for part in parts])[dataset.splits[split].indices]

    return SimpleNamespace(
        task=SimpleNamespace(name="points"),
        dataset=dataset.sealed(),
        adapter=OOD(),
        how=SimpleNamespace(device="cpu"),
        features=features,
    )


def test_a_probe_is_judged_on_every_set(dataset) -> None:
    outcome = LINEAR.run(_given(dataset), seed=0)
    judged = OOD().judge(dataset, "test", outcome.predicted)
    assert isinstance(judged, OODPredictions) and len(judged) == 80 + 40
    noisy, few = judged.breakdown()["per_set"]
    assert (noisy["n"], few["n"], few["clean_n"]) == (80, 40, 53)
    assert noisy["clean_top1"] > 0.9 and noisy["drop"] > 0.1 and abs(few["drop"]) < 0.1
    table, labels = outcome.predicted, dataset.splits["test"].labels
    assert noisy["clean_top1"] == np.mean(table[:80].argmax(axis=1) == labels[:80])
    assert noisy["top1"] == np.mean(table[80:160].argmax(axis=1) == labels[80:160])


def test_choices_are_those_of_classification(dataset) -> None:
    assert OOD.protocols == Classification.protocols and OOD.choose_by == Classification.choose_by
    table = np.full((80, 3), 1 / 3)
    assert isinstance(OOD().judge(dataset, "val", table), Predictions)
    with pytest.raises(ValueError, match="PartedDataset"):
        OOD().judge(Dataset("points", ("a", "b", "c"), dataset.splits), "test", table)
