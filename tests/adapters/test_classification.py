"""Every adapter keeps one contract; classification chooses on validation alone and tests once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from bob.adapters.base import Adapter, Outcome, Protocol
from bob.adapters.classification import KNN, LINEAR, Classification
from bob.adapters.probing import Probing
from bob.adapters.registry import ADAPTERS
from bob.data.base import Dataset, ImageSet, Split
from bob.errors import UserError
from bob.features.extract import Extraction
from bob.features.reading import BLOCKS, FEATURE, OUTPUT, Reading
from bob.probes.base import Probe
from bob.probes.knn import KNeighbors
from bob.results.metrics import METRICS
from bob.results.predictions import Predictions
from bob.task_cards import DataSpec, TaskCard

SIZES = {"train": 60, "val": 24, "test": 40}
TASK = TaskCard(name="toy", adapter="classification", data=DataSpec(source="shapes"))
CONTRACT = [
    pytest.param(kind, protocol, id=f"{name}-{protocol.name}")
    for name, kind in ADAPTERS.items()
    for protocol in kind.protocols.values()
    if name == "classification" and isinstance(protocol, Probing)
]


class Labels(ImageSet):
    """Images that nobody looks at."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels
        self.names = [f"image {i}" for i in range(len(labels))]

    def read(self, index: int) -> torch.Tensor:
        raise AssertionError("A probe works on features, not on images.")

    def fingerprint(self) -> str:
        return "0" * 64


class Toy:
    """What a run is given, of features made up on the spot; notes which splits were asked for."""

    def __init__(self, splits: dict[str, tuple[np.ndarray, np.ndarray]], classes: int = 3, device: str = "cpu") -> None:
        self.asked: list[str] = []
        self.task, self.adapter, self.how = TASK, Classification(), Extraction(torch.device(device))
        self._features = {name: features for name, (features, _) in splits.items()}
        sets = {name: Labels(labels.copy()) for name, (_, labels) in splits.items()}
        names = tuple(f"class {i}" for i in range(classes))
        self.open = Dataset("toy", names, {name: Split(s, np.arange(len(s))) for name, s in sets.items()})
        self.dataset = self.open.sealed("test")

    def features(self, split: str, reading: Reading = FEATURE) -> np.ndarray:
        self.asked.append(split)
        x = self._features[split].copy()
        return np.concatenate([x[:, ::-1], x], axis=1) if reading == BLOCKS else x

    def columns(self, reading: Reading) -> dict[str, slice]:
        if reading == BLOCKS:
            return {"block0": slice(0, 8), OUTPUT: slice(8, 16)}
        return {"token0": slice(0, 4), "token1": slice(4, 8)}

    def judged(self, outcome: Outcome) -> Predictions:
        return self.adapter.judge(self.open, "test", outcome.predicted)


def _blobs(seed: int = 0, noise: float = 1.0, **sizes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    means = 1.5 * rng.normal(size=(3, 8))
    splits = {}
    for name, size in (SIZES | sizes).items():
        labels = np.arange(size) % 3
        splits[name] = ((means[labels] + noise * rng.normal(size=(size, 8))).astype("f4"), labels)
    return splits


def _run(protocol: Protocol, splits: dict[str, Any], seed: int = 0) -> tuple[Outcome, Toy]:
    toy = Toy(splits)
    return protocol.run(cast(Any, toy), seed), toy


@pytest.mark.parametrize(("adapter", "protocol"), CONTRACT)
class TestContract:
    def test_outcome(self, adapter: type[Adapter], protocol: Protocol) -> None:
        splits = _blobs(train=360)
        outcome, toy = _run(protocol, splits)
        predictions = toy.judged(outcome)
        assert predictions.names == toy.dataset.splits["test"].names
        np.testing.assert_array_equal(predictions.labels, splits["test"][1])
        assert predictions.classes == toy.dataset.classes
        assert METRICS["top1"].compute(predictions) > 0.8
        assert outcome.chosen in [dict(point) for point in protocol.grid]
        assert all(set(outcome.chosen) < set(entry) for entry in outcome.grid)
        assert all(value >= 0 for value in outcome.seconds.values())
        json.dumps([outcome.chosen, outcome.grid, outcome.notes, outcome.seconds, protocol.as_dict()], allow_nan=False)

    def test_test_split_is_asked_for_last_and_once(self, adapter: type[Adapter], protocol: Protocol) -> None:
        _, toy = _run(protocol, _blobs())
        assert toy.asked[-1] == "test" and toy.asked.count("test") == 1

    def test_no_way_to_the_labels_of_test(self, adapter: type[Adapter], protocol: Protocol) -> None:
        given = Toy(_blobs())
        for ask in (lambda split: split.labels, lambda split: split.images.labels, lambda split: split.checksum()):
            with pytest.raises(RuntimeError, match="The labels of 'test' are sealed"):
                ask(given.dataset.splits["test"])
        with pytest.raises(RuntimeError, match="sealed"):
            given.adapter.scores(given.dataset, "test", np.full((40, 3), 1 / 3))

    def test_choice_knows_nothing_of_test(self, adapter: type[Adapter], protocol: Protocol) -> None:
        one, _ = _run(protocol, _blobs())
        rng = np.random.default_rng(7)
        other, _ = _run(protocol, _blobs() | {"test": (rng.normal(size=(5, 8)).astype("f4"), np.full(5, 2))})
        assert (one.chosen, one.grid, one.notes) == (other.chosen, other.grid, other.notes)

    def test_same_again(self, adapter: type[Adapter], protocol: Protocol) -> None:
        one, other = (_run(protocol, _blobs())[0] for _ in range(2))
        assert one.chosen == other.chosen and one.grid == other.grid
        np.testing.assert_array_equal(one.predicted, other.predicted)

    def test_unknown_protocol(self, adapter: type[Adapter], protocol: Protocol) -> None:
        assert adapter.protocol(protocol.name) is protocol
        with pytest.raises(UserError, match=f"Did you mean: {protocol.name}"):
            adapter.protocol(protocol.name + "x")
        with pytest.raises(UserError, match="Use one of linear, knn, ridge, class_mean"):
            adapter.protocol("zzz")


class Scripted(Probe):
    """Gives each query, whose only feature is the true label, a probability that the hyperparameter dictates."""

    fitted: list[tuple[str, int]]

    def __init__(self, name: str = "", wrong: int = 0, sure: float = 0.5, device: str = "cpu") -> None:
        self.name, self.wrong, self.sure, self.device = name, wrong, sure, device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Scripted:
        self.n_classes_ = n_classes
        type(self).fitted.append((self.name, len(features)))
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        labels = features[:, 0].astype(int)
        labels[: self.wrong] += 1
        table = np.full((len(labels), self.n_classes_), (1 - self.sure) / (self.n_classes_ - 1))
        table[np.arange(len(labels)), labels % self.n_classes_] = self.sure
        return table


@pytest.fixture
def scripted() -> Iterator[Callable[..., tuple[Outcome, list[tuple[str, int]]]]]:
    def run(*grid: dict[str, Any]) -> tuple[Outcome, list[tuple[str, int]]]:
        Scripted.fitted = []
        protocol = replace(LINEAR, probe=Scripted, grid=grid)
        splits = {name: (np.arange(size)[:, None] % 3, np.arange(size) % 3) for name, size in SIZES.items()}
        return _run(protocol, splits)[0], Scripted.fitted

    yield run


A, B, C = ({"name": name, "sure": sure, "wrong": 0} for name, sure in (("a", 0.5), ("b", 0.9), ("c", 0.9)))


def test_best_top1_wins_whatever_its_nll(scripted: Callable[..., Any]) -> None:
    outcome, fitted = scripted(B | {"wrong": 1}, A, C | {"wrong": 2})
    assert outcome.chosen["name"] == "a"
    assert [entry["val_top1"] for entry in outcome.grid] == [23 / 24, 1, 22 / 24]
    # Chosen on models of train alone; the one that is tested has seen train and validation.
    assert fitted == [("b", 60), ("a", 60), ("c", 60), ("a", 84)]


def test_nll_settles_ties_and_then_the_order_of_the_grid(scripted: Callable[..., Any]) -> None:
    outcome, _ = scripted(A, B, C)
    assert outcome.chosen["name"] == "b"
    assert [entry["val_nll"] for entry in outcome.grid] == pytest.approx([-np.log(0.5), -np.log(0.9), -np.log(0.9)])
    assert "device" not in outcome.chosen and all("device" not in entry for entry in outcome.grid)


def test_by_hand() -> None:
    # One-dimensional directions on the circle. Of the training images, 0 and 10 degrees are class 0; 80, 85 and 90 are
    # class 1. The validation image at 30 degrees is of class 0: its nearest is at 10 (class 0), so k = 1 is right; of
    # the nearest five, three votes of class 1 at 50 degrees and more (cos 0.64 and less against cos 0.94 and 0.87)
    # weigh next to nothing at temperature 0.07, so k = 5 is right too, and k = 1 wins by its NLL (probability 1).
    # Tested is k = 1 on all six: 40 degrees has the validation image (class 0) next to it, 70 degrees that at 80.
    def circle(*degrees: float) -> np.ndarray:
        angle = np.deg2rad(degrees)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype("f4")

    splits = {
        "train": (circle(0, 10, 80, 85, 90), np.array([0, 0, 1, 1, 1])),
        "val": (circle(30, 88), np.array([0, 1])),
        "test": (circle(40, 70, 57), np.array([0, 1, 0])),
    }
    outcome, toy = _run(KNN, splits)
    assert [entry["k"] for entry in outcome.grid] == [1, 2, 5]  # the others exceed the five training images
    assert [entry["val_top1"] for entry in outcome.grid] == [1, 1, 1]
    assert outcome.chosen == {"k": 1}
    predictions = toy.judged(outcome)
    np.testing.assert_array_equal(predictions.predicted, [0, 1, 1])  # 57 is nearer to 80 (23) than to 30 (27)
    np.testing.assert_array_equal(predictions.confidence, [1, 1, 1])


def test_infeasible_k_is_left_out_and_too_few_images_refused() -> None:
    outcome, _ = _run(KNN, _blobs(train=12))
    assert [entry["k"] for entry in outcome.grid] == [1, 2, 5, 10]
    with pytest.raises(UserError, match="toy has 12 training images, too few for 'knn'"):
        _run(replace(KNN, grid=({"k": 13}, {"k": 20})), _blobs(train=12))


def test_final_fit_uses_validation_too() -> None:
    # Class 2 is in validation only: a probe that had not seen it could not say it.
    splits = _blobs(noise=0.1)
    train, labels = splits["train"]
    splits["train"] = (train[labels < 2], labels[labels < 2])
    outcome, toy = _run(replace(KNN, grid=({"k": 1},)), splits)
    assert METRICS["top1"].compute(toy.judged(outcome)) == 1


@pytest.mark.parametrize(("best", "noted"), [(0, True), (1, False), (2, True)])
def test_note_at_the_edge_of_the_grid(best: int, noted: bool, scripted: Callable[..., Any]) -> None:
    grid = [{"sure": 0.9 if index == best else 0.6 + 0.1 * index} for index in range(3)]
    outcome, _ = scripted(*grid)
    edge = ("chosen at the edge of the grid: sure = 0.9",) if noted else ()
    assert outcome.notes == (*edge, "chosen on 24 validation images only")


def test_no_note_where_there_is_nothing_to_choose(scripted: Callable[..., Any]) -> None:
    assert scripted({"sure": 0.7})[0].notes == ()


def test_note_when_the_final_fit_did_not_converge() -> None:
    short = replace(LINEAR, grid=({"l2": 1e-3, "max_iter": 1},))
    assert "the final fit did not converge" in _run(short, _blobs())[0].notes
    assert "the final fit did not converge" not in _run(LINEAR, _blobs())[0].notes


def test_probes_compute_where_the_adapter_says() -> None:
    class Recorder(KNeighbors):
        devices: list[str] = []  # noqa: RUF012

        def fit(self, *data: Any) -> Recorder:
            self.devices.append(self.device)
            self.device = "cpu"
            return super().fit(*data)

    replace(KNN, probe=Recorder).run(cast(Any, Toy(_blobs(), device="cuda:1")), 0)
    assert set(Recorder.devices) == {"cuda:1"}


def test_validation_of_one_class_cannot_choose() -> None:
    splits = _blobs()
    splits["val"] = (splits["val"][0][:1], splits["val"][1][:1])
    with pytest.raises(UserError, match=r"validation split of toy \(1 images\) is too small to choose on"):
        _run(KNN, splits)


def test_few_validation_images_are_noted() -> None:
    assert "chosen on 24 validation images only" in _run(KNN, _blobs())[0].notes
    assert not any("images only" in note for note in _run(KNN, _blobs(val=60))[0].notes)
