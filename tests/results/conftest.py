"""Random scenes with detections of them, and what pycocotools says of those."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bob.data.objects import Detections, Objects, encode_masks
from bob.results.detection import DetectionPredictions

SIZE = (130, 150)


@dataclass
class Scene:
    """Images with what is in them and what was found."""

    truths: list[Objects]
    detections: list[Detections]
    classes: int

    def predictions(self, federated: bool = False) -> DetectionPredictions:
        names = [f"i{i}" for i in range(len(self.truths))]
        classes = [f"c{c}" for c in range(self.classes)]
        return DetectionPredictions.from_detections(names, self.truths, self.detections, classes, federated)

    def resampled(self, counts: np.ndarray) -> Scene:
        """Image i `counts[i]` times, copies side by side."""
        images = np.repeat(np.arange(len(self.truths)), counts)
        return Scene([self.truths[i] for i in images], [self.detections[i] for i in images], self.classes)

    def annotations(self) -> dict[str, Any]:
        """COCO's annotation file; images, objects and categories are numbered anew, from 1."""
        images = [{"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(len(self.truths))]
        objects: list[dict[str, Any]] = []
        for image, truth in enumerate(self.truths, start=1):
            for row in range(len(truth)):
                own = {"id": len(objects) + 1, "image_id": image, "category_id": int(truth.labels[row]) + 1}
                own |= {"bbox": _sides(truth.boxes[row]), "area": float(truth.areas[row])}
                own |= {"iscrowd": int(truth.crowd[row])} | ({"segmentation": truth.rles[row]} if truth.rles else {})
                objects.append(own)
        categories = [{"id": label + 1, "name": str(label)} for label in range(self.classes)]
        return {"info": {}, "images": images, "annotations": objects, "categories": categories}

    def results(self, shape: str) -> list[dict[str, Any]]:
        """COCO's result file, of boxes or of masks."""
        found = []
        for image, own in enumerate(self.detections, start=1):
            for row in range(len(own)):
                seen = {"image_id": image, "category_id": int(own.labels[row]) + 1, "score": float(own.scores[row])}
                what = {"bbox": _sides(own.boxes[row])} if shape == "box" else {"segmentation": own.rles[row]}
                found.append(seen | what)
        return found

    def judged(self, shape: str) -> COCOeval:
        """What pycocotools says."""
        with contextlib.redirect_stdout(io.StringIO()):
            reference = COCO()
            reference.dataset = self.annotations()
            reference.createIndex()
            found = reference.loadRes(self.results(shape)) if sum(map(len, self.detections)) else COCO()
            if not found.dataset:
                found.dataset = reference.dataset | {"annotations": []}
                found.createIndex()
            evaluation = COCOeval(reference, found, {"box": "bbox", "mask": "segm"}[shape])
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation


@pytest.fixture
def draw_scene() -> Callable[..., Scene]:
    """Draw a scene: objects of whole pixels, detections mostly near one, scores that often tie; the last class is in
    no image. Some images have no object, some no detection."""

    def draw(
        seed: int = 0,
        *,
        images: int = 25,
        classes: int = 4,
        most: int = 60,
        crowd: bool = True,
        masks: bool = True,
        digits: int = 2,
    ) -> Scene:
        rng = np.random.default_rng(seed)
        truths = [
            _objects(rng, rng.integers(9) * (rng.random() > 0.15), classes - 1, crowd, masks) for _ in range(images)
        ]
        found = [_detections(rng, truth, rng.integers(most + 1), classes, masks, digits) for truth in truths]
        return Scene(truths, [Detections(*parts) for parts in found], classes)

    return draw


def _objects(rng: np.random.Generator, count: int, classes: int, crowd: bool, masks: bool) -> Objects:
    boxes = _boxes(rng, count)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * rng.choice([0.6, 1.0], size=count)
    regions = (rng.random(count) < 0.15) & crowd
    labels, ids = rng.integers(classes, size=count), np.arange(count)
    return Objects(boxes, labels, ids, areas, regions, SIZE, _masks(rng, boxes) if masks else None)


def _detections(
    rng: np.random.Generator, truth: Objects, count: int, classes: int, masks: bool, digits: int
) -> tuple[Any, ...]:
    boxes, labels = _boxes(rng, count), rng.integers(classes, size=count)
    if len(truth):
        source, near = rng.integers(len(truth), size=count), rng.random(count) < 0.7
        close = truth.boxes[source] + rng.integers(-2, 3, size=(count, 4))
        close[:, 2:] = np.maximum(close[:, 2:], close[:, :2] + 1)
        boxes = np.where(near[:, None], close, boxes)
        labels = np.where(near, truth.labels[source], labels)
    scores = np.sort(rng.random(count).round(digits))[::-1].astype(np.float32)
    rles = _masks(rng, np.clip(boxes, 0, SIZE[0])) if masks else None
    return boxes.astype(np.float32), scores, labels, rles


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = np.floor(np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4) * np.tile([SIZE[1], SIZE[0]], 2))
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 2)
    return corners


def _masks(rng: np.random.Generator, boxes: np.ndarray) -> tuple[Any, ...]:
    rows, columns = np.arange(SIZE[0])[:, None], np.arange(SIZE[1])
    inside = [(columns >= a) & (columns < c) & (rows >= b) & (rows < d) for a, b, c, d in boxes]
    return encode_masks(np.array([each & (rng.random(SIZE) < 0.95) for each in inside]).reshape(-1, *SIZE))


def _sides(box: np.ndarray) -> list[float]:
    left, top, right, bottom = box.astype(np.float64).tolist()
    return [left, top, right - left, bottom - top]
