"""Two backbones compared: differences by hand, intervals as a slow bootstrap has them, and only what is alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from bob.data.objects import Detections
from bob.errors import UserError
from bob.results.compare import class_table, find_pair, overall
from bob.results.metrics import METRICS
from bob.results.multilabel import MultiLabelPredictions
from bob.results.predictions import Predictions
from bob.results.record import Record
from bob.results.segmentation import SegmentationPredictions
from bob.results.statistics import bootstrap

Make = Callable[..., Record]


def _predictions(right: np.ndarray, labels: np.ndarray, classes: str = "abcd") -> Predictions:
    answers = np.where(right, labels, (labels + 1) % len(classes))
    names = [f"i{i}" for i in range(len(labels))]
    return Predictions.from_probabilities(names, labels, np.eye(len(classes))[answers], classes)


def _several(seed: int, size: int = 80) -> MultiLabelPredictions:
    labels = (np.random.default_rng(0).random((size, 3)) < [0.4, 0.2, 0.0]).astype(int)
    labels[5:9, 1] = -1
    table = np.clip(np.random.default_rng(seed).random((size, 3)) + 0.2 * labels, 0, 1)
    return MultiLabelPredictions.from_probabilities([f"i{i}" for i in range(size)], labels, table, ["x", "y", "z"])


class TestClassTable:
    def test_by_hand(self) -> None:
        labels = np.array([0, 0, 0, 0, 1, 1, 3, 3])
        a = _predictions(np.array([1, 1, 1, 0, 0, 0, 1, 0], dtype=bool), labels)
        b = _predictions(np.array([1, 0, 0, 0, 1, 0, 0, 1], dtype=bool), labels)
        table = class_table(a, b)
        assert list(table["class"]) == ["a", "d", "b"]  # class c has no sample
        assert list(table["n"]) == [4, 2, 2]
        assert list(table["a"]) == [0.75, 0.5, 0.0]
        assert list(table["b"]) == [0.25, 0.5, 0.5]
        assert list(table["difference"]) == [-0.5, 0, 0.5]
        # Two of four are lost: 0 to 4 losses in a resample have 1, 4, 6, 4, 1 sixteenths, and 1/16 is over 2.5%.
        assert table.loc[0, ["low", "high"]].to_list() == [-1, 0]

    def test_interval_equals_the_slow_way(self) -> None:
        rng = np.random.default_rng(1)
        labels = np.repeat([0, 1], 60)
        a, b = (_predictions(rng.random(120) < share, labels) for share in (0.6, 0.7))
        table = class_table(a, b).set_index("class")
        for index, name in enumerate("ab"):
            members = np.flatnonzero(labels == index)
            draws = members[rng.integers(60, size=(20_000, 60))]
            change = (b.predicted == labels).astype(float) - (a.predicted == labels)
            expected = np.quantile(change[draws].mean(axis=1), [0.025, 0.975])
            np.testing.assert_allclose(table.loc[name, ["low", "high"]].astype(float), expected, atol=1.1 / 60)

    def test_intervals_hold_no_difference_as_often_as_they_say(self) -> None:
        rng, held = np.random.default_rng(2), []
        labels = np.repeat(np.arange(100), 80)
        classes = [str(c) for c in range(100)]
        for _ in range(5):
            a, b = (_predictions(rng.random(8000) < 0.7, labels, classes) for _ in range(2))
            table = class_table(a, b)
            held.append(((table["low"] <= 0) & (table["high"] >= 0)).mean())
        assert 0.92 <= np.mean(held) <= 0.99

    def test_is_the_same_again(self) -> None:
        labels = np.arange(40) % 4
        a, b = (_predictions(np.arange(40) % k > 0, labels) for k in (3, 5))
        assert class_table(a, b).equals(class_table(a, b))

    def test_of_several_labels(self) -> None:
        a, b = _several(1), _several(2)
        table = class_table(a, b).set_index("class")
        assert set(table.index) == {"x", "y"}  # z is in no image
        for index, name in enumerate("xy"):
            known = a.labels[:, index] >= 0
            scores = [average_precision_score(p.labels[known, index], p.probabilities[known, index]) for p in (a, b)]
            assert table.loc[name, ["a", "b"]].to_list() == pytest.approx(scores, rel=1e-12)
            assert table.loc[name, "difference"] == pytest.approx(scores[1] - scores[0])
            assert table.loc[name, "low"] < table.loc[name, "difference"] < table.loc[name, "high"]
        assert table.loc["y", "n"] == (a.labels[:, 1] == 1).sum()


class TestOverall:
    def test_difference_of_top1(self) -> None:
        labels = np.arange(100) % 4
        a, b = _predictions(np.arange(100) < 60, labels), _predictions(np.arange(100) < 70, labels)
        found = overall(METRICS["top1"], a, b)
        assert found.value == pytest.approx(0.1) and 0 < found.low < 0.1 < found.high
        assert overall(METRICS["top1"], b, a).value == pytest.approx(-0.1)

    def test_several_labels(self) -> None:
        found = overall(METRICS["map"], _several(1), _several(2))
        assert found.low < found.value < found.high

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"names": ["i0", "i9", "i2", "i3"]}, "sample 1 of ours is i1, that of theirs is i9"),
            ({"labels": np.array([0, 1, 0, 3])}, "i2 has another label in each"),
            ({"classes": ("a", "b", "c", "e")}, "their 4 and 4 classes are not the same"),
        ],
    )
    def test_other_samples(self, change: dict[str, object], message: str) -> None:
        a = _predictions(np.ones(4, dtype=bool), np.arange(4))
        b = dataclasses.replace(a, **change)
        for ask in (
            lambda: class_table(a, b, ("ours", "theirs")),
            lambda: overall(METRICS["top1"], a, b, ("ours", "theirs")),
        ):
            with pytest.raises(UserError, match=f"ours and theirs were not tested on the same samples: {message}"):
                ask()

    def test_other_number_or_kind(self) -> None:
        a = _predictions(np.ones(4, dtype=bool), np.arange(4))
        with pytest.raises(UserError, match="a has 4 of them, b 3"):
            class_table(a, _predictions(np.ones(3, dtype=bool), np.arange(3)))
        with pytest.raises(UserError, match="a is about classification, b about multilabel"):
            class_table(a, _several(0))


class TestOfDetectors:
    def _pair(self, draw_scene: Callable[..., Any]) -> tuple[Any, Any]:
        """Two detectors on the same scenes, the second without half of what the first found of class 1."""
        a, b = draw_scene(crowd=False), draw_scene(crowd=False)
        for index, own in enumerate(b.detections):
            kept = (own.labels != 1) | (np.arange(len(own)) % 2 > 0)
            rles = tuple(rle for rle, keep in zip(own.rles, kept, strict=True) if keep)
            b.detections[index] = Detections(own.boxes[kept], own.scores[kept], own.labels[kept], rles)
        return a, b

    def test_classes_and_overall(self, draw_scene: Callable[..., Any]) -> None:
        a, b = (scene.predictions() for scene in self._pair(draw_scene))
        table = class_table(a, b).set_index("class")
        rows = [{row["class"]: row for row in made.per_class()} for made in (a, b)]
        assert set(table.index) == {"c0", "c1", "c2"}  # c3 is in no image
        for name in table.index:
            scores = [own[name]["ap"] for own in rows]
            assert table.loc[name, ["n", "a", "b"]].to_list() == pytest.approx([rows[0][name]["n"], *scores])
        assert table.index[0] == "c1" and table.loc["c1", "low"] < table.loc["c1", "difference"] < 0
        assert table.loc["c0", ["difference", "low", "high"]].to_list() == [0, 0, 0]
        found = overall(METRICS["mask_ap"], a, b)
        assert found.value == METRICS["mask_ap"].compute(b) - METRICS["mask_ap"].compute(a)
        assert found.low < found.value < found.high
        alone = bootstrap([METRICS["mask_ap"]], a)["mask_ap"]
        assert found.high - found.low < alone.high - alone.low

    def test_other_objects(self, draw_scene: Callable[..., Any]) -> None:
        a, b = self._pair(draw_scene)
        image = next(index for index, truth in enumerate(b.truths) if len(truth))
        b.truths[image] = b.truths[image].chosen(np.arange(1, len(b.truths[image])))
        with pytest.raises(UserError, match=f"same samples: i{image} has other objects in each"):
            class_table(a.predictions(), b.predictions())
        with pytest.raises(UserError, match="the annotation of one is federated"):
            class_table(a.predictions(), a.predictions(federated=True))


class TestOfSegmenters:
    def _made(self, share: float, score_at: int | None = None, classes: int = 4) -> SegmentationPredictions:
        rng = np.random.default_rng(0)
        truths = [rng.integers(3, size=(8, 9)) for _ in range(20)]
        predicted = [np.where(rng.random((8, 9)) < share, truth, (truth + 1) % 3) for truth in truths]
        names, kinds = [f"i{i}" for i in range(20)], [f"c{c}" for c in range(classes)]
        return SegmentationPredictions.from_masks(names, truths, predicted, kinds, score_at)

    def test_classes_and_overall(self) -> None:
        a, b = self._made(0.6), self._made(0.8)
        table = class_table(a, b).set_index("class")
        rows = [{row["class"]: row for row in made.per_class()} for made in (a, b)]
        assert set(table.index) == {"c0", "c1", "c2"}
        for name in table.index:
            expected = [20, rows[0][name]["iou"], rows[1][name]["iou"]]
            assert table.loc[name, ["n", "a", "b"]].to_list() == pytest.approx(expected)
            assert 0 < table.loc[name, "low"] < table.loc[name, "difference"] < table.loc[name, "high"]
        found = overall(METRICS["miou"], a, b)
        assert 0 < found.low < found.value < found.high

    def test_other_pixels(self) -> None:
        a = self._made(0.6)
        with pytest.raises(UserError, match="they were scored at original and 4 pixels"):
            class_table(a, self._made(0.6, score_at=4))
        truth = a.truth[:, [1, 0, 2, 3]]
        b = dataclasses.replace(a, truth=truth, predicted=truth, intersection=np.zeros_like(truth))
        with pytest.raises(UserError, match="i0 has other pixels of a class in each"):
            class_table(a, b)


class TestFindPair:
    def test_newest_of_what_is_alike(self, make_record: Make) -> None:
        records = [
            make_record("a", 0.1, data="old", created="2026-01-01"),
            make_record("b", 0.2, data="old", created="2026-01-01"),
            make_record("a", 0.3, data="new", created="2026-01-02"),
            make_record("b", 0.4, data="new", seed=1, created="2026-01-02"),
            make_record("b", 0.5, data="new", created="2026-01-02"),
            make_record("c", 0.6, data="newest", created="2026-01-03"),
        ]
        pair = find_pair(records, "b", "a")
        assert [record.metrics["top1"].value for record in (pair.a, pair.b)] == [0.5, 0.3]
        assert pair.setting == "t/linear"

    def test_the_lowest_seed_that_both_have(self, make_record: Make) -> None:
        records = [make_record(name, seed=seed) for name, seeds in (("a", (0, 2, 4)), ("b", (4, 2))) for seed in seeds]
        assert find_pair(records, "a", "b").a.request.seed == 2

    def test_mistakes(self, make_record: Make) -> None:
        records = [
            make_record("a"),
            make_record("b"),
            make_record("a", protocol="knn"),
            make_record("b", protocol="knn"),
        ]
        with pytest.raises(UserError, match=r"There is no such run of c\. Make one: `bob run -b c"):
            find_pair(records, "a", "c")
        with pytest.raises(UserError, match=r"got a twice"):
            find_pair(records, "a", "a")
        several = r"a and b share 2 settings\. Choose one: --task t --protocol knn; --task t --protocol linear\."
        with pytest.raises(UserError, match=several):
            find_pair(records, "a", "b")
        with pytest.raises(UserError, match=r"not run on the same task.*bob run -b a,b"):
            find_pair([make_record("a"), make_record("b", data="other")], "a", "b")
