"""Average precision equals pycocotools' on detections, on resamples of images, and lvis-style on federated data."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster

from bob.data.objects import Detections
from bob.errors import UserError
from bob.results import precision_recall, statistics
from bob.results.detection import DetectionPredictions
from bob.results.metrics import METRICS, get_metric
from bob.results.statistics import Estimate, bootstrap, paired_bootstrap

Draw = Callable[..., Any]
SUFFIXES = ("", "50", "75", "_small", "_medium", "_large")
BOXES = [METRICS[f"box_ap{suffix}"] for suffix in SUFFIXES]
ALL = [*BOXES, *(METRICS[f"mask_ap{suffix}"] for suffix in SUFFIXES)]
CASES: dict[str, dict[str, Any]] = {
    "crowds": {},
    "no crowds": {"crowd": False},
    "without ties": {"digits": 8},
    "many ties": {"digits": 1},
    "more than 100 of a class": {"classes": 2, "most": 300, "images": 6},
    "one image": {"images": 1, "seed": 4},
    "nothing found": {"most": 0},
}


def _values(shape: str, made: DetectionPredictions) -> list[float]:
    metrics = [METRICS[f"{shape}_ap{suffix}"] for suffix in SUFFIXES]
    return [metric.compute(made) if metric.defined_on(made) else -1 for metric in metrics]


class TestValues:
    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("shape", ["box", "mask"])
    def test_equal_pycocotools(self, draw_scene: Draw, case: str, shape: str) -> None:
        scene = draw_scene(**CASES[case])
        np.testing.assert_allclose(_values(shape, scene.predictions()), scene.judged(shape).stats[:6], atol=1e-12)

    def test_no_object_at_all(self, draw_scene: Draw) -> None:
        scene = draw_scene()
        scene.truths = [truth.chosen(truth.crowd) for truth in scene.truths]  # only regions to ignore
        made = scene.predictions()
        assert set(scene.judged("box").stats[:6]) == {-1.0}
        assert not any(metric.defined_on(made) for metric in ALL)
        assert made.per_class() == []
        with pytest.raises(UserError, match=r"`box_ap` is not defined on this test split: no object counts\. Leave"):
            METRICS["box_ap"].compute(made)

    def test_recall_is_compared_as_coco_does(self, draw_scene: Draw) -> None:
        """Of 100 objects 7 are found: 7 / 100 is below the eighth of COCO's recalls, which is 7 x 0.01."""
        scene = draw_scene(images=0)
        scene.truths = draw_scene(images=300, crowd=False, seed=1, masks=False).truths
        scene.truths = [truth.chosen(truth.labels == 0) for truth in scene.truths]
        ends = np.cumsum([len(truth) for truth in scene.truths])
        scene.truths = scene.truths[: int(np.searchsorted(ends, 100)) + 1]
        scene.truths[-1] = scene.truths[-1].chosen(np.arange(100 - ends[len(scene.truths) - 2]))
        assert sum(map(len, scene.truths)) == 100
        for found in (7, 14, 28, 29, 55, 58):
            left = found
            scene.detections = []
            for truth in scene.truths:
                boxes = truth.boxes[: min(left, len(truth))].astype(np.float32)
                left -= len(boxes)
                kinds = np.zeros(len(boxes), dtype=np.int64)
                scene.detections.append(Detections(boxes, np.full(len(boxes), 0.5, np.float32), kinds))
            np.testing.assert_allclose(_values("box", scene.predictions()), scene.judged("box").stats[:6], atol=1e-12)

    def test_small_ones_or_masks_are_lacking(self, draw_scene: Draw) -> None:
        scene = draw_scene(masks=False)
        scene.truths = [truth.chosen(truth.areas > 40**2) for truth in scene.truths]
        made = scene.predictions()
        assert [m.name for m in ALL if m.defined_on(made)] == [m.name for m in BOXES if m.name != "box_ap_small"]
        with pytest.raises(UserError, match=r"`box_ap_small` is not defined.*: no small object counts"):
            bootstrap([METRICS["box_ap_small"]], made)
        with pytest.raises(UserError, match=r"`mask_ap` is not defined.*or there are no masks"):
            METRICS["mask_ap"].compute(made)


class TestFederated:
    def _annotate(self, scene: Any, seed: int = 0) -> dict[str, Any]:
        """Say of each image which classes it does not show, and which not all of; the file as LVIS has it."""
        rng, content = np.random.default_rng(seed), scene.annotations()
        for index, (truth, image) in enumerate(zip(scene.truths, content["images"], strict=True)):
            absent = np.setdiff1d(np.arange(scene.classes), truth.labels)
            negatives = tuple(int(label) for label in absent[rng.random(len(absent)) < 0.5])
            partial = tuple(int(label) for label in np.unique(truth.labels)[:1])
            scene.truths[index] = type(truth)(**(vars(truth) | {"negatives": negatives, "partial": partial}))
            image["neg_category_ids"] = [label + 1 for label in negatives]
            image["not_exhaustive_category_ids"] = [label + 1 for label in partial]
        for category in content["categories"]:
            category["frequency"] = "f"
        return content

    # In an image without objects of which no detection is looked at, faster-coco-eval asks for a size it does not have.
    @pytest.mark.parametrize(("shape", "seed"), [("box", 0), ("box", 1), ("box", 2), ("mask", 0), ("mask", 3)])
    def test_equals_lvis_style(self, draw_scene: Draw, shape: str, seed: int) -> None:
        scene = draw_scene(seed, classes=6, crowd=False)
        reference = FasterCOCO(self._annotate(scene))
        found = reference.loadRes(scene.results(shape))
        kind = {"box": "bbox", "mask": "segm"}[shape]
        evaluation = COCOeval_faster(reference, found, kind, lvis_style=True, print_function=lambda *_: None)
        evaluation.params.maxDets = [300]
        evaluation.run()
        made = scene.predictions(federated=True)
        assert len(made.scores) < sum(map(len, scene.detections))
        np.testing.assert_allclose(_values(shape, made), evaluation.stats[:6], atol=1e-12)


class TestResamples:
    def test_equal_a_data_set_of_copies(self, draw_scene: Draw) -> None:
        """pycocotools on images repeated, with ids of their own; scores tie between copies and between images."""
        scene, rng = draw_scene(digits=8), np.random.default_rng(0)
        for own in scene.detections:
            own.scores[:] = np.linspace(0.9, 0.1, len(own))  # as sure in each image; within an image never
        made = scene.predictions()
        counts = np.stack([np.bincount(rng.integers(25, size=25), minlength=25) for _ in range(6)], axis=1)
        for shape in ("box", "mask"):
            found = np.stack([METRICS[f"{shape}_ap{s}"].weighted(made)(counts.astype(np.float64)) for s in SUFFIXES])
            for column, own in zip(counts.T, found.T, strict=True):
                expected = scene.resampled(column).judged(shape).stats[:6]
                np.testing.assert_allclose(np.nan_to_num(own, nan=-1), expected, atol=1e-12)

    def test_weights_of_one_give_the_value(self, draw_scene: Draw) -> None:
        made = draw_scene().predictions()
        weights = np.ones((25, 7))
        for metric in ALL:
            assert set(metric.weighted(made)(weights)) == {metric.compute(made)}

    def test_bootstrap_equals_the_slow_way(self, draw_scene: Draw) -> None:
        scene = draw_scene(images=8, digits=8, masks=False)
        rng = np.random.default_rng(5)
        draws = [np.bincount(rng.integers(8, size=8), minlength=8) for _ in range(12)]
        slow = np.array([scene.resampled(draw).judged("box").stats[:6] for draw in draws])
        slow[slow < 0] = np.nan
        metrics = [metric for metric in BOXES if metric.defined_on(scene.predictions())]
        estimates = bootstrap(metrics, scene.predictions(), resamples=12, confidence=0.8, seed=5)
        for index, metric in enumerate(BOXES):
            if metric in metrics:
                expected = np.nanquantile(slow[:, index], [0.1, 0.9])
                found = estimates[metric.name]
                np.testing.assert_allclose([found.low, found.high], expected, atol=1e-12)
                assert found.n == 8

    @pytest.mark.parametrize("size", [1, 8 * 25 * 7, 2**30])
    def test_chunks_do_not_change_a_digit(self, draw_scene: Draw, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        expected = bootstrap(ALL, draw_scene().predictions(), resamples=60)
        monkeypatch.setattr(statistics, "_CHUNK_BYTES", size)
        monkeypatch.setattr(precision_recall, "_BLOCK", max(1, size // 100))
        assert bootstrap(ALL, draw_scene().predictions(), resamples=60) == expected

    def test_other_weights_are_not_mistaken_for_the_last(self, draw_scene: Draw) -> None:
        made, weights = draw_scene().predictions(), np.ones((25, 2))
        evaluate = METRICS["box_ap"].weighted(made)
        before = evaluate(weights)
        weights[:12] = 0  # in place
        assert evaluate(weights)[0] != before[0]

    def test_memory_is_bounded(self, draw_scene: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statistics, "_CHUNK_BYTES", 2**19)
        monkeypatch.setattr(precision_recall, "_BLOCK", 2**14)
        made = draw_scene(images=100, masks=False).predictions()
        bootstrap(BOXES, made, resamples=2)
        tracemalloc.start()
        bootstrap(BOXES[:3], made, resamples=6000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**22  # all counts at once would be 4.8 MB, held several times over

    def test_paired(self, draw_scene: Draw) -> None:
        made = draw_scene().predictions()
        assert paired_bootstrap(METRICS["box_ap"], made, made, resamples=50) == Estimate(0, 0, 0, 25)

    def test_more_images_narrow_the_interval(self, draw_scene: Draw) -> None:
        widths = []
        for images in (40, 640):
            own = bootstrap([METRICS["box_ap"]], draw_scene(images=images, masks=False).predictions(), resamples=300)
            found = own["box_ap"]
            assert found.low < found.value < found.high
            widths.append(found.high - found.low)
        assert 2.5 < widths[0] / widths[1] < 6.5  # four, if it falls with the root of their number


class TestPerClass:
    def test_means_are_the_metrics(self, draw_scene: Draw) -> None:
        made = draw_scene().predictions()
        table = made.per_class()
        assert [row["class"] for row in table] == ["c0", "c1", "c2"]  # c3 is in no image
        assert sum(int(row["n"]) for row in table) == made.in_range("all").sum()
        for key, metric in (("ap", "box_ap"), ("ap50", "box_ap50"), ("mask_ap", "mask_ap")):
            assert np.mean([row[key] for row in table]) == pytest.approx(METRICS[metric].compute(made), rel=1e-12)


def test_other_kinds_are_refused(draw_scene: Draw) -> None:
    made = draw_scene(images=2, masks=False).predictions()
    with pytest.raises(
        UserError, match=r"`top1` is for one label an image, but the task has the obj.* box_ap, box_ap50"
    ):
        METRICS["top1"].compute(made)
    with pytest.raises(UserError, match=r"for the objects in an image, but the task has a class.* miou, mean_accuracy"):
        get_metric("box_ap", "segmentation")
    with pytest.raises(UserError, match="Did you mean: mask_ap"):
        get_metric("mask_app")
