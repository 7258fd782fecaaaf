"""Detections are judged as pycocotools judges them, match for match, and come back from Parquet unchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bob.data.objects import Detections, Objects
from bob.errors import UserError
from bob.results.any import read_predictions
from bob.results.detection import DetectionPredictions

Draw = Callable[..., Any]
CASES: dict[str, dict[str, Any]] = {
    "crowds": {},
    "no crowds": {"crowd": False},
    "other": {"seed": 1},
    "without ties": {"seed": 2, "digits": 8},
    "more than 100 of a class": {"seed": 3, "classes": 2, "most": 300, "images": 6},
    "one image": {"seed": 4, "images": 1},
}


def _judge(
    boxes: list[list[float]],
    scores: list[float],
    truth: list[list[float]],
    *,
    found: list[int] | None = None,
    classes: int = 1,
    federated: bool = False,
    **given: Any,
) -> DetectionPredictions:
    """One image of 100 x 100; objects of class 0 unless told."""
    corners = np.array(truth, dtype=np.float64).reshape(-1, 4)
    count = len(corners)
    plain = {"labels": np.zeros(count, dtype=np.int64), "crowd": np.zeros(count, dtype=bool)}
    plain |= {"areas": (corners[:, 2:] - corners[:, :2]).prod(axis=1)}
    objects = Objects(boxes=corners, ids=np.arange(count), size=(100, 100), **(plain | given))
    detections = Detections(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float32),
        np.zeros(len(scores), dtype=np.int64) if found is None else np.array(found),
    )
    return DetectionPredictions.from_detections(["i"], [objects], [detections], "abcdef"[:classes], federated)


def _levels(bits: np.ndarray) -> list[int]:
    """At how many thresholds, of objects of all sizes."""
    return [int(value & 1023).bit_count() for value in bits]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", ["box", "mask"])
def test_matches_are_those_of_pycocotools(draw_scene: Draw, case: str, shape: str) -> None:
    scene = draw_scene(**CASES[case])
    made = scene.predictions()
    outcome, found = getattr(made, shape), []
    assert len(made.scores) and outcome.hits.any() and outcome.ignored.any()
    evaluation = scene.judged(shape)
    size = len(scene.truths)
    for image, label in np.unique(np.stack([made.images, made.labels]), axis=1).T:
        per_area = [evaluation.evalImgs[(label * 4 + area) * size + image] for area in range(4)]
        hits = np.concatenate([(own["dtMatches"] > 0) & ~own["dtIgnore"].astype(bool) for own in per_area])
        ignored = np.concatenate([own["dtIgnore"].astype(bool) for own in per_area])
        found.append(np.stack([hits, ignored]))
        own = (made.images == image) & (made.labels == label)
        np.testing.assert_allclose(made.scores[own], per_area[0]["dtScores"])
    expected = np.concatenate(found, axis=2)
    for bits, reference in zip((outcome.hits, outcome.ignored), expected, strict=True):
        np.testing.assert_array_equal(bits, (reference * 2 ** np.arange(40)[:, None]).sum(axis=0))


class TestByHand:
    def test_the_best_free_object_wins(self) -> None:
        # The surer detection takes the object that it overlaps most, the second what is left, the third nothing.
        truth = [[0, 0, 10, 10], [0, 0, 10, 9]]
        made = _judge([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8, 0.7], truth)
        assert _levels(made.box.hits) == [10, 9, 0]  # 0.9 reaches nine thresholds
        assert _levels(made.box.ignored) == [0, 0, 0]

    def test_overlap_at_a_threshold_is_enough(self) -> None:
        assert _levels(_judge([[0, 0, 10, 5]], [0.9], [[0, 0, 10, 10]]).box.hits) == [1]
        assert _levels(_judge([[0, 0, 10, 4.999]], [0.9], [[0, 0, 10, 10]]).box.hits) == [0]

    def test_a_region_to_ignore_takes_any_number(self) -> None:
        truth = [[0, 0, 90, 90], [0, 0, 10, 10]]
        boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30], [85, 85, 99, 99]]
        made = _judge(boxes, [0.9, 0.8, 0.7, 0.6], truth, crowd=np.array([True, False]))
        assert _levels(made.box.hits) == [10, 0, 0, 0]  # an object comes first though the region covers it as well
        assert _levels(made.box.ignored) == [0, 10, 10, 0]
        assert list(made.object_ranges) == [0, 0b0011]

    def test_sizes(self) -> None:
        made = _judge([[0, 0, 32, 32], [50, 50, 60, 60]], [0.9, 0.8], [[0, 0, 32, 32]])
        assert list(made.object_ranges) == [0b0111]  # 32 x 32 is small and medium
        every = 1023
        assert made.box.hits[0] == every | every << 10 | every << 20
        assert made.box.ignored[0] == every << 30  # it found an object, which is not large
        assert made.box.ignored[1] == every << 20 | every << 30  # it found nothing and is small itself

    def test_annotated_area_decides_not_the_box(self) -> None:
        made = _judge([[0, 0, 40, 40]], [0.9], [[0, 0, 40, 40]], areas=np.array([500.0]))
        assert list(made.object_ranges) == [0b0011]

    def test_federated(self) -> None:
        """Class 0 is there, 1 known not to be, 2 there though not every one is annotated, 3 unknown."""
        boxes = [[0, 0, 10, 10], [50, 50, 60, 60], [50, 50, 60, 60], [20, 20, 40, 40], [70, 70, 80, 80], [1, 1, 2, 2]]
        made = _judge(
            boxes,
            [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
            [[0, 0, 10, 10], [20, 20, 40, 40]],
            found=[0, 0, 1, 2, 2, 3],
            classes=4,
            federated=True,
            labels=np.array([0, 2]),
            negatives=(1,),
            partial=(2,),
        )
        assert list(made.labels) == [0, 0, 1, 2, 2]
        assert _levels(made.box.hits) == [10, 0, 0, 10, 0]
        assert _levels(made.box.ignored) == [0, 0, 0, 0, 10]

    def test_most_of_a_class_and_of_an_image(self) -> None:
        boxes, labels = [[0, 0, 10, 10]] * 320, [0] * 110 + [1] * 205 + [0] * 5
        scores = list(np.linspace(1, 0.1, 320))
        made = _judge(boxes, scores, [[0, 0, 10, 10]], found=labels, classes=2)
        assert list(np.bincount(made.labels)) == [100, 100]
        made = _judge(boxes, scores, [[0, 0, 10, 10]], found=labels, classes=2, federated=True, negatives=())
        assert list(np.bincount(made.labels)) == [110]  # 190 more were among the 300, of a class that is unknown here


class TestMistakes:
    def test_input(self) -> None:
        none: dict[str, Any] = {"boxes": [], "scores": [], "truth": []}
        with pytest.raises(UserError, match="at least one sample, but got none"):
            DetectionPredictions.from_detections([], [], [], "a")
        with pytest.raises(ValueError, match="Expected `truths` to be of 1 images, but got 0"):
            DetectionPredictions.from_detections(["i"], [], [], "a")
        with pytest.raises(ValueError, match="labels of `detections` to be at least 0 and less than 1, but got 3"):
            _judge([[0, 0, 1, 1]], [0.5], [], found=[3])
        with pytest.raises(ValueError, match="Expected `federated` to be true"):
            _judge(**none, negatives=(0,))
        with pytest.raises(UserError, match="scores of all detections to be finite"):
            _judge([[0, 0, 1, 1]], [np.nan], [])

    def test_some_have_masks(self, draw_scene: Draw) -> None:
        scene = draw_scene()
        scene.detections = [dataclasses.replace(own, rles=None) for own in scene.detections]
        assert scene.predictions().shapes == ("box",)
        scene.truths[3] = dataclasses.replace(scene.truths[3], rles=None)
        with pytest.raises(ValueError, match="Expected all objects or none to have masks"):
            scene.predictions()


class TestFiles:
    @pytest.mark.parametrize(("masks", "federated"), [(True, False), (False, True)])
    def test_round_trip(self, draw_scene: Draw, tmp_path: Path, masks: bool, federated: bool) -> None:
        made = draw_scene(masks=masks).predictions(federated)
        made.write(tmp_path / "p.parquet")
        for back in (DetectionPredictions.read(tmp_path / "p.parquet"), read_predictions(tmp_path / "p.parquet")):
            assert isinstance(back, DetectionPredictions)
            assert (back.names, back.classes, back.federated) == (made.names, made.classes, federated)
            for name in ("object_images", "object_labels", "object_ranges", "images", "labels", "scores"):
                np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
                assert getattr(back, name).dtype == getattr(made, name).dtype
            assert back.shapes == made.shapes == (("box", "mask") if masks else ("box",))
            for shape in made.shapes:
                np.testing.assert_array_equal(getattr(back, shape).hits, getattr(made, shape).hits)
                np.testing.assert_array_equal(getattr(back, shape).ignored, getattr(made, shape).ignored)
            assert back.per_class() == made.per_class()
        back.write(tmp_path / "again.parquet")
        assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()
        assert list(pd.read_parquet(tmp_path / "p.parquet")["scores"][0]) == list(made.scores[made.images == 0])

    def test_nothing_found(self, tmp_path: Path) -> None:
        _judge([], [], []).write(tmp_path / "p")
        assert len(read_predictions(tmp_path / "p")) == 1

    def test_damaged(self, tmp_path: Path) -> None:
        pd.DataFrame({"name": ["a"]}).to_parquet(tmp_path / "p")
        with pytest.raises(UserError, match=r"written by `DetectionPredictions\.write` \(columns name, object_labels"):
            DetectionPredictions.read(tmp_path / "p")
