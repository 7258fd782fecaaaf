"""What a trained detector finds, and that detectron2's evaluator agrees with bob on how good it is."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset

from bob.data.base import Split
from bob.data.objects import Detections, Objects, decode_masks
from bob.engines.detectron2.data import record, test_loader
from bob.engines.detectron2.library import quiet
from bob.results.detection import DetectionPredictions

pytestmark = pytest.mark.slow


def _found(detections: Detections, objects: Objects) -> int:
    """Objects on which a sure detection of their class lies, by box and by mask."""
    masks = decode_masks(detections.rles or (), objects.size)
    count = 0
    for box, label, mask in zip(objects.boxes, objects.labels, objects.masks(), strict=True):
        for place in np.flatnonzero((detections.scores > 0.3) & (detections.labels == label)):
            own = detections.boxes[place]
            low, high = np.maximum(own, box), np.minimum(own, box)
            shared = np.clip(high[2:] - low[:2], 0, None).prod()
            union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, own)) - shared
            if shared / union > 0.5 and (masks[place] & mask).sum() > 0.5 * (masks[place] | mask).sum():
                count += 1
                break
    return count


def test_objects_are_found_in_the_images_own_pixels(learnt) -> None:
    trained, dataset, losses = learnt
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    split = dataset.splits["train"]
    targets = [split.target(position) for position in range(len(split))]
    detections = trained.predict(split)  # seen at up to 128 pixels; they have 96 x 120 or 104 x 88
    found = sum(_found(*pair) for pair in zip(detections, targets, strict=True))
    assert found >= 0.6 * sum(len(target) for target in targets)
    for one, target in zip(detections, targets, strict=True):
        assert one.boxes.dtype == one.scores.dtype == np.float32 and one.labels.dtype == np.int64
        assert len(one) <= trained.recipe.detections and (one.scores > trained.recipe.score_threshold).all()
        assert (np.diff(one.scores) <= 0).all() and one.boxes.min(initial=0) >= 0
        assert (one.boxes <= np.array(target.size[::-1] * 2) + 1e-3).all()
        assert one.rles is not None and all(tuple(rle["size"]) == target.size for rle in one.rles)


def test_predicting_asks_nobody_for_the_truth_and_repeats(learnt) -> None:
    trained, dataset, _ = learnt
    first, again = (trained.predict(dataset.splits["test"]) for _ in range(2))
    assert len(first) == 3 and all(np.array_equal(a.boxes, b.boxes) for a, b in zip(first, again, strict=True))
    with pytest.raises(ValueError, match="Expected `split` to have images"):
        trained.predict(Split(dataset.splits["test"].images, np.arange(0)))


def test_its_own_evaluator_gives_the_same_average_precision(learnt, tmp_path) -> None:
    trained, dataset, _ = learnt
    split, view = dataset.splits["train"], trained.recipe.view
    theirs = _by_detectron2(trained, split, view, dataset.classes, tmp_path)
    targets = [split.target(position) for position in range(len(split))]
    detections = trained.predict(split)
    predictions = DetectionPredictions.from_detections(split.names, targets, detections, dataset.classes)
    assert any(target.crowd.any() for target in targets) and 5 < theirs["segm"]["AP"] < 99.9
    once = np.ones((len(split), 1))
    for shape, kind in (("box", "bbox"), ("mask", "segm")):
        values = predictions.average_precisions(shape, "all", once)[:, 0]
        assert values.mean() == pytest.approx(theirs[kind]["AP"] / 100, abs=1e-4)
        assert values[0] == pytest.approx(theirs[kind]["AP50"] / 100, abs=1e-4)
        assert values[5] == pytest.approx(theirs[kind]["AP75"] / 100, abs=1e-4)
        for area, key in (("small", "APs"), ("medium", "APm")):
            own = predictions.average_precisions(shape, area, once).mean()
            assert own == pytest.approx(theirs[kind][key] / 100, abs=1e-4)


def _by_detectron2(trained, split, view, classes, folder) -> dict:
    """COCOEvaluator's scores in percent, of a pass of its own over the images."""

    def annotated(position: int) -> dict:
        target = split.target(position)
        crowds = record(target, position) | {"annotations": []}
        for place in range(len(target)):
            bare = np.zeros(len(target), bool)
            one = target.chosen(np.arange(len(target)) == place)
            (annotation,) = record(type(one)(**{**vars(one), "crowd": bare[:1]}), position)["annotations"]
            crowds["annotations"].append({**annotation, "iscrowd": int(target.crowd[place])})
        return {**crowds, "file_name": f"{position}.png"}

    name = "bob_test_blocks"
    DatasetCatalog.register(name, lambda: [annotated(position) for position in range(len(split))])
    MetadataCatalog.get(name).thing_classes = list(classes)
    try:
        with quiet():
            evaluator = COCOEvaluator(name, output_dir=str(folder), allow_cached_coco=False)
            loader = test_loader(split, trained.backbone.preprocess, view, workers=0)
            return inference_on_dataset(trained.detector, loader, evaluator)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
