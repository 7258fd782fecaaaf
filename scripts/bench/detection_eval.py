"""What scoring detections costs beside pycocotools: `python scripts/bench/detection_eval.py`.

Draws images with objects, and detections of which most are wrong, as a detector's are; scores them with bob (match
every detection, then the six numbers of boxes) and with pycocotools, which must agree; and prints the ratio of their
times. With `--resamples` it also times the bootstrap of those numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bob.data.objects import Detections, Objects
from bob.results.detection import DetectionPredictions
from bob.results.metrics import METRICS
from bob.results.statistics import bootstrap

NAMES = ("box_ap", "box_ap50", "box_ap75", "box_ap_small", "box_ap_medium", "box_ap_large")
SIZE = (480, 640)
CLASSES = 80


def main() -> None:
    """Time both, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="in each image")
    parser.add_argument("--resamples", type=int, default=0, help="also time a bootstrap of this many")
    given = parser.parse_args()
    truths, detections = draw(given.images, given.detections)
    own, values, predictions = score(truths, detections)
    theirs, reference = score_with_pycocotools(truths, detections)
    count = sum(map(len, detections))
    print(f"{given.images} images, {sum(map(len, truths))} objects, {count} detections, {CLASSES} classes")
    print(f"bob          {own:7.2f} s  " + " ".join(f"{value:.4f}" for value in values))
    print(f"pycocotools  {theirs:7.2f} s  " + " ".join(f"{value:.4f}" for value in reference))
    print(f"largest difference {np.abs(values - reference).max():.1e} (bound: 1e-4)")
    print(f"pycocotools / bob: {theirs / own:.1f} (bound: 4)")
    if given.resamples:
        start = time.perf_counter()
        found = bootstrap([METRICS[name] for name in NAMES], predictions, resamples=given.resamples)
        seconds = time.perf_counter() - start
        ap = found["box_ap"]
        print(f"bootstrap of {given.resamples}: {seconds:.1f} s, box_ap {ap.value:.4f} [{ap.low:.4f}, {ap.high:.4f}]")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def score(truths: list[Objects], detections: list[Detections]) -> tuple[float, np.ndarray, DetectionPredictions]:
    """Seconds, the six numbers, and what they come from."""
    names, classes = [str(i) for i in range(len(truths))], [str(c) for c in range(CLASSES)]
    start = time.perf_counter()
    predictions = DetectionPredictions.from_detections(names, truths, detections, classes)
    values = np.array([METRICS[name].compute(predictions) for name in NAMES])
    return time.perf_counter() - start, values, predictions


def score_with_pycocotools(truths: list[Objects], detections: list[Detections]) -> tuple[float, np.ndarray]:
    """Seconds, and the six numbers; what it takes to make its dictionaries is not counted."""
    truth, found = as_dictionaries(truths, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        start = time.perf_counter()
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return time.perf_counter() - start, evaluation.stats[:6]


def draw(images: int, found: int) -> tuple[list[Objects], list[Detections]]:
    """Objects of all sizes, 7 in a mean image; of the detections, about one in ten lies near an object of its class."""
    rng = np.random.default_rng(0)
    truths, detections = [], []
    for _ in range(images):
        truth = _objects(rng, int(rng.poisson(7.3)), sum(map(len, truths[-1:])))
        truths.append(truth)
        detections.append(_detections(rng, truth, found))
    return truths, detections


def as_dictionaries(truths: list[Objects], detections: list[Detections]) -> tuple[dict, list[dict]]:
    """COCO's annotation file and result file; images, annotations and categories are numbered from 1."""
    images = [{"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(len(truths))]
    objects, found = [], []
    for number, (truth, own) in enumerate(zip(truths, detections, strict=True), start=1):
        parts = zip(_sides(truth.boxes), truth.labels.tolist(), truth.areas.tolist(), truth.crowd.tolist(), strict=True)
        for box, label, area, crowd in parts:
            row = {"id": len(objects) + 1, "image_id": number, "category_id": label + 1}
            objects.append(row | {"bbox": box, "area": area, "iscrowd": int(crowd)})
        for box, label, score in zip(_sides(own.boxes), own.labels.tolist(), own.scores.tolist(), strict=True):
            found.append({"image_id": number, "category_id": label + 1, "bbox": box, "score": score})
    categories = [{"id": label + 1, "name": str(label)} for label in range(CLASSES)]
    return {"info": {}, "images": images, "annotations": objects, "categories": categories}, found


def _sides(boxes: np.ndarray) -> list[list[float]]:
    """Left, top, width and height."""
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    height, width = SIZE
    sides = np.exp(rng.uniform(np.log(8), np.log(400), size=(count, 2)))
    start = rng.random((count, 2)) * (np.array([width, height]) - sides)
    return np.concatenate([start, start + sides], axis=1)


def _objects(rng: np.random.Generator, count: int, first: int) -> Objects:
    boxes = _boxes(rng, count)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * rng.uniform(0.4, 1, size=count)
    labels, crowd = rng.integers(CLASSES - 1, size=count), rng.random(count) < 0.02
    return Objects(boxes, labels, first + np.arange(count), areas, crowd, SIZE)


def _detections(rng: np.random.Generator, truth: Objects, count: int) -> Detections:
    boxes, labels = _boxes(rng, count), rng.integers(CLASSES, size=count)
    scores = rng.random(count) * 0.6
    if len(truth):
        near = np.flatnonzero(rng.random(count) < 0.1)
        source = rng.integers(len(truth), size=len(near))
        sides = np.tile(truth.boxes[source, 2:] - truth.boxes[source, :2], 2)
        boxes[near] = truth.boxes[source] + rng.normal(scale=0.06, size=(len(near), 4)) * sides
        labels[near] = truth.labels[source]
        scores[near] += 0.4 * rng.random(len(near))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order].astype(np.float32), scores[order].astype(np.float32), labels[order])


if __name__ == "__main__":
    main()
