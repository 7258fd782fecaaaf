"""Pixel counts by hand and as torchmetrics has them; they come back from Parquet unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from bob.data.objects import IGNORE, PredictedMasks
from bob.errors import UserError
from bob.results.any import read_predictions
from bob.results.metrics import METRICS
from bob.results.segmentation import SegmentationPredictions
from bob.results.statistics import Estimate, bootstrap, paired_bootstrap

NAMES = ("miou", "mean_accuracy", "pixel_accuracy")
ALL = [METRICS[name] for name in NAMES]
Maps = list[np.ndarray]


def _maps(images: int = 12, classes: int = 5, present: int = 4, seed: int = 0) -> tuple[Maps, Maps]:
    """Class maps of several sizes, some pixels to be ignored; the last classes are nowhere, or only predicted."""
    rng = np.random.default_rng(seed)
    truths, predicted = [], []
    for _ in range(images):
        size = tuple(rng.integers(8, 20, size=2))
        truth = rng.integers(present, size=size)
        truths.append(np.where(rng.random(size) < 0.1, IGNORE, truth).astype(np.int16))
        predicted.append(np.where(rng.random(size) < 0.6, truth, rng.integers(classes, size=size)).astype(np.int16))
    return truths, predicted


def _made(truths: Maps, predicted: Maps, classes: int = 5, score_at: int | None = None) -> SegmentationPredictions:
    names, kinds = [f"i{i}" for i in range(len(truths))], [f"c{c}" for c in range(classes)]
    return SegmentationPredictions.from_masks(names, iter(truths), iter(predicted), kinds, score_at)


def _odd(classes: np.ndarray) -> np.ndarray:
    """Without the last row or column where they are even in number."""
    return classes[: (len(classes) - 1) // 2 * 2 + 1, : (classes.shape[1] - 1) // 2 * 2 + 1]


def _flat(maps: Maps) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([each.ravel() for each in maps]).astype(np.int64))


class TestByHand:
    """Of class 0 3 of 4 are found, and one more is claimed; of 1 2 of 3, and one; 2 is only claimed; 3 is nowhere."""

    TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, -1], [-1, -1, -1, -1], [4, 4, 4, 4]])
    PREDICTED = np.array([[0, 0, 1, 1], [0, 1, 0, 3], [0, 1, 2, 4], [4, 4, 4, 2]])

    def test_values(self) -> None:
        made = _made([self.TRUTH], [self.PREDICTED])
        assert made.intersection.tolist() == [[3, 2, 0, 0, 3]]
        assert made.truth.tolist() == [[4, 3, 0, 0, 4]]
        assert made.predicted.tolist() == [[4, 3, 1, 0, 3]]
        assert METRICS["miou"].compute(made) == pytest.approx((3 / 5 + 2 / 4 + 0 + 3 / 4) / 4)
        assert METRICS["mean_accuracy"].compute(made) == pytest.approx((3 / 4 + 2 / 3 + 3 / 4) / 3)
        assert METRICS["pixel_accuracy"].compute(made) == pytest.approx(8 / 11)

    def test_per_class(self) -> None:
        assert _made([self.TRUTH, self.TRUTH], [self.PREDICTED, self.PREDICTED]).per_class() == [
            {"class": "c0", "n": 2, "iou": 3 / 5, "accuracy": 3 / 4},
            {"class": "c1", "n": 2, "iou": 2 / 4, "accuracy": 2 / 3},
            {"class": "c2", "n": 0, "iou": 0.0},
            {"class": "c4", "n": 2, "iou": 3 / 4, "accuracy": 3 / 4},
        ]


class TestValues:
    @pytest.mark.parametrize(("classes", "present"), [(5, 5), (5, 3), (171, 150)])
    def test_equal_torchmetrics(self, classes: int, present: int) -> None:
        truths, predicted = _maps(classes=classes, present=present)
        made, pair = _made(truths, predicted, classes), (_flat(predicted), _flat(truths))
        jaccard = MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORE)(*pair)
        assert METRICS["miou"].compute(made) == pytest.approx(float(jaccard), rel=1e-5)
        micro = MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE)(*pair)
        assert METRICS["pixel_accuracy"].compute(made) == pytest.approx(float(micro), rel=1e-5)
        recalls = MulticlassAccuracy(classes, average="none", ignore_index=IGNORE)(*pair).numpy()
        shown = made.truth.any(axis=0)
        assert METRICS["mean_accuracy"].compute(made) == pytest.approx(float(recalls[shown].mean()), rel=1e-5)

    def test_at_another_resolution(self) -> None:
        """PIL takes the nearest pixel as well; of odd sides none lies half-way, which PIL rounds by chance."""
        truths, predicted = ([_odd(each) for each in maps] for maps in _maps())
        resized = []
        for maps in (truths, predicted):
            sides = [[int(9 * side / min(each.shape)) for side in each.shape] for each in maps]
            images = [Image.fromarray((each + 1).astype(np.uint8)) for each in maps]
            resized.append(
                [
                    np.asarray(image.resize(tuple(side[::-1]), Image.Resampling.NEAREST)).astype(np.int16) - 1
                    for image, side in zip(images, sides, strict=True)
                ]
            )
        made, expected = _made(truths, predicted, score_at=9), _made(*resized)
        np.testing.assert_array_equal(made.intersection, expected.intersection)
        np.testing.assert_array_equal(made.truth, expected.truth)
        assert (made.score_at, expected.score_at) == (9, None)

    def test_nearest_pixel_by_hand(self) -> None:
        truth = np.arange(24).reshape(4, 6)
        made = _made([truth], [truth], classes=24, score_at=2)
        assert np.flatnonzero(made.truth[0]).tolist() == [7, 9, 11, 19, 21, 23]

    def test_one_image_at_a_time(self) -> None:
        truths, predicted = _maps()
        kept, asked = PredictedMasks(), []
        for own in predicted:
            kept.append(own)

        def read() -> Iterator[np.ndarray]:
            for index, truth in enumerate(truths):
                asked.append(index)
                yield truth

        made = SegmentationPredictions.from_masks([""] * 12, read(), kept, "abcde")
        np.testing.assert_array_equal(made.intersection, _made(truths, predicted).intersection)
        assert asked == list(range(12))

    def test_nothing_counts(self) -> None:
        made = _made([np.full((2, 2), IGNORE)], [np.zeros((2, 2), dtype=int)])
        for metric in ALL:
            assert not metric.defined_on(made)
            with pytest.raises(UserError, match=f"`{metric.name}` is not defined on this test split: all its pixels"):
                metric.compute(made)


class TestResamples:
    def test_bootstrap_equals_the_slow_way(self) -> None:
        truths, predicted = _maps(images=6, classes=9, present=8)
        truths[0][:] = np.where(truths[0] == 1, 8, truths[0])  # a class that resamples may lack
        rng = np.random.default_rng(5)
        draws = [rng.integers(6, size=6) for _ in range(40)]
        again = [_made([truths[i] for i in draw], [predicted[i] for i in draw], 9) for draw in draws]
        for name, found in bootstrap(ALL, _made(truths, predicted, 9), resamples=40, confidence=0.8, seed=5).items():
            expected = np.quantile([METRICS[name].compute(each) for each in again], [0.1, 0.9])
            np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)
            assert found.n == 6

    def test_paired(self) -> None:
        made = _made(*_maps())
        assert paired_bootstrap(METRICS["miou"], made, made, resamples=50) == Estimate(0, 0, 0, 12)


class TestMistakes:
    def test_maps(self) -> None:
        truth = np.zeros((2, 3), dtype=np.int16)
        with pytest.raises(ValueError, match=r"of i0 to be two arrays of one size, but got \(2, 3\) and \(3, 2\)"):
            _made([truth], [truth.T])
        with pytest.raises(ValueError, match="the truth of i0 to be at least -1 and less than 5, but got 0 to 255"):
            _made([np.array([[0, 255]])], [np.array([[0, 1]])])
        with pytest.raises(ValueError, match="the prediction of i0 to be at least 0 and less than 5, but got -1 to 0"):
            _made([np.array([[0, 1]])], [np.array([[0, -1]])])
        with pytest.raises(ValueError, match="shorter"):
            _made([truth, truth], [truth])
        with pytest.raises(UserError, match="at least one sample"):
            _made([], [])

    def test_counts_that_cannot_be(self) -> None:
        one, two = np.array([[1]]), np.array([[2]])
        with pytest.raises(UserError, match="Expected `intersection` to be at most"):
            SegmentationPredictions(["i"], two, one, one, ("a",))
        with pytest.raises(UserError, match="as many pixels in `truth` as in `predicted`"):
            SegmentationPredictions(["i"], one, one, two, ("a",))


@pytest.mark.parametrize("score_at", [None, 9])
def test_round_trip(tmp_path: Path, score_at: int | None) -> None:
    made = _made(*_maps(), score_at=score_at)
    made.write(tmp_path / "p.parquet")
    for back in (SegmentationPredictions.read(tmp_path / "p.parquet"), read_predictions(tmp_path / "p.parquet")):
        assert isinstance(back, SegmentationPredictions)
        assert (back.names, back.classes, back.score_at) == (made.names, made.classes, score_at)
        for name in ("intersection", "truth", "predicted"):
            np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
    back.write(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()
