"""Every score is a protocol: one head serves all, only judging knows the outliers, and nothing is chosen by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from bob.adapters.classification import LINEAR
from bob.adapters.modifiers import draw_shots
from bob.adapters.ood_detection import OODDetection, Scoring
from bob.data.base import Dataset, ImageSet, Split
from bob.data.other_sets import PartedDataset, with_parts
from bob.errors import UserError
from bob.features.extract import Extraction
from bob.features.reading import FEATURE, Reading
from bob.outliers.distances import KthNearest
from bob.outliers.logits import Energy
from bob.results.ood_detection import KNOWN
from bob.results.ood_detection_metrics import OOD_DETECTION_METRICS
from bob.task_cards import DataSpec, TaskCard
from bob.task_tables import OtherSet

TASK = TaskCard(
    name="toy",
    adapter="ood_detection",
    data=DataSpec(source="shapes"),
    sets=(OtherSet(name="close", source="x", near=True), OtherSet(name="away", source="y")),
)
PROTOCOLS = list(OODDetection.protocols.values())
AUROC = next(metric for metric in OOD_DETECTION_METRICS if metric.name == "auroc")


class Labels(ImageSet):
    """Images that nobody looks at."""

    def __init__(self, name: str, labels: np.ndarray) -> None:
        self.labels = labels
        self.names = [f"{name} {i}" for i in range(len(labels))]

    def read(self, index: int) -> torch.Tensor:
        raise AssertionError("A score works on features, not on images.")

    def fingerprint(self) -> str:
        return "0" * 64


def _dataset(train: int = 150) -> PartedDataset:
    def split(name: str, count: int, labels: np.ndarray | None = None) -> Split:
        return Split(Labels(name, np.arange(count) % 3 if labels is None else labels), np.arange(count))

    own = {"train": split("train", train), "val": split("val", 60), "test": split("test", 40)}
    outliers = [("close", split("close", 20), {"near": True}), ("away", split("away", 30), {"near": False})]
    return with_parts(Dataset("toy", ("a", "b", "c"), own), outliers)


class Given:
    """What a run is given, of features made up on the spot."""

    def __init__(self, dataset: Dataset | None = None, seed: int = 0) -> None:
        self.open = dataset or _dataset()
        self.dataset = self.open.sealed("test")
        self.task, self.adapter, self.how = TASK, OODDetection(), Extraction(torch.device("cpu"))
        self.asked: list[str] = []
        self.made: dict[Hashable, Any] = {}
        self._rng = np.random.default_rng(seed)
        self._features = {name: self._blobs(split.labels) for name, split in self.open.splits.items()}
        # Outliers lie between the classes.
        self._features["test"][40:] = self._rng.normal(size=(50, 8)) + self._means().mean(axis=0)

    def features(self, split: str, reading: Reading = FEATURE) -> np.ndarray:
        self.asked.append(split)
        return self._features[split].copy()

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def _means(self) -> np.ndarray:
        return 3 * np.random.default_rng(1).normal(size=(3, 8))

    def _blobs(self, labels: np.ndarray) -> np.ndarray:
        return (self._means()[labels] + self._rng.normal(size=(len(labels), 8))).astype("f4")


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_outcome(protocol: Scoring) -> None:
    given = Given()
    protocol.require(TASK, given.open)
    outcome = protocol.run(cast(Any, given), 0)
    judged = given.adapter.judge(given.open, "test", outcome.predicted)
    assert judged.sets == ("close", "away") and judged.near == (True, False)
    assert judged.members.tolist() == [KNOWN] * 40 + [0] * 20 + [1] * 30
    assert [judged.names[i] for i in (0, 40, 60)] == ["test 0", "close 0", "away 0"]
    assert AUROC.compute(judged) > 0.6 or protocol.name in ("ash", "she", "react", "feature_shaping")
    assert outcome.width == 8 and all(value >= 0 for value in outcome.seconds.values())
    assert given.asked[-1] == "test" and given.asked.count("test") == 1
    json.dumps([outcome.chosen, outcome.grid, outcome.notes, outcome.seconds, protocol.as_dict()], allow_nan=False)


def test_head_is_that_of_the_linear_protocol_and_fitted_once() -> None:
    given = Given()
    for protocol in PROTOCOLS:
        outcome = protocol.run(cast(Any, given), 0)
        if protocol.score.needs_head:
            assert outcome.chosen.keys() == {"l2"} and outcome.seconds["head"] > 0
            assert protocol.as_dict()["head"] == LINEAR.as_dict()
        else:
            assert outcome.chosen == {} and "head" not in protocol.as_dict()
    assert len(given.made) == 1
    # The head's choice and fit read the training images once each, and so does each score.
    assert given.asked.count("train") == 2 + len(PROTOCOLS)
    [fitted] = given.made.values()
    expected = LINEAR.run(cast(Any, given), 0)
    logits = fitted.head.logits(torch.from_numpy(given.features("test")))
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), expected.predicted, atol=1e-6)


def test_another_seed_and_shots_have_heads_of_their_own() -> None:
    given = Given()
    energy = OODDetection.protocols["energy"]
    energy.run(cast(Any, given), 0)
    energy.run(cast(Any, given), 1)
    few = OODDetection.protocol("energy@5shot")
    few.run(cast(Any, Given(draw_shots(_dataset(), few.shots, 0))), 0)
    assert len(given.made) == 2
    assert few.title == "energy@5shot" and few.as_dict()["head"]["name"] == "linear@5shot"


def test_too_few_images_for_the_neighbours() -> None:
    dataset = _dataset(train=30)
    few = replace(dataset, splits={**dataset.splits, "val": Split(dataset.splits["val"].images, np.arange(12))})
    with pytest.raises(UserError, match="toy has 42 training images, too few for 'knn', which looks at the 50th"):
        OODDetection.protocols["knn"].require(TASK, few)
    OODDetection.protocols["energy"].require(TASK, few)


def test_settings_are_part_of_the_protocol() -> None:
    assert OODDetection.protocols["knn"].as_dict()["settings"] == {"k": KthNearest().k}
    assert OODDetection.protocols["energy"].as_dict()["settings"] == Energy().settings() == {}
    assert {protocol.as_dict()["name"] for protocol in PROTOCOLS} == set(OODDetection.protocols)


def test_only_the_test_split_has_outliers() -> None:
    given = Given()
    with pytest.raises(TypeError, match="Expected the test split of a data set with outliers, but got 'val' of toy"):
        given.adapter.judge(given.open, "val", np.zeros(60))
    with pytest.raises(RuntimeError, match="sealed"):
        given.adapter.scores(given.dataset, "test", np.full((90, 3), 1 / 3))


@pytest.mark.parametrize("modifier", ["block1", "blocks", "patches4", "mmseg"])
def test_modifiers_without_meaning(modifier: str) -> None:
    with pytest.raises(UserError):
        OODDetection.protocol(f"energy@{modifier}")


@pytest.mark.slow
def test_from_end_to_end(run_bob: Callable[..., Any]) -> None:
    scores = ("-t", "shapes_ood", "-p", "energy,mahalanobis")
    first = run_bob("run", "-b", "constant,pixels", *scores)
    assert first.code == 0 and "2500 features computed" in first.out + first.err
    records = [json.loads(path.read_text()) for path in Path("results/runs").glob("*/record.json")]
    assert len(records) == 4
    for record in records:
        tables = record["breakdown"]["per_set"]
        assert [row["set"] for row in tables] == ["novel", "backgrounds", "noise"]
        mean = sum(row["auroc"] for row in tables) / 3
        assert record["metrics"]["auroc"]["value"] == pytest.approx(mean)
        if record["request"]["backbone"] == "constant":
            assert mean == 0.5
    assert "4 already there" in (again := run_bob("run", "-b", "constant,pixels", *scores)).out + again.err
    known = run_bob("run", "-b", "constant", "-t", "shapes", "-p", "knn")
    assert "1600 of 1600 features are stored already" in known.out + known.err
