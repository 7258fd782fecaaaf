"""Detections are judged against the split's own objects, and written as COCO's tools read them."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bob.adapters.detection import Detection
from bob.data.coco_export import to_coco_json
from bob.data.objects import Detections
from bob.data.sources import load_dataset
from bob.results.metrics import get_metric
from bob.task_cards import DataSpec


@pytest.fixture
def dataset(home):
    return load_dataset(DataSpec(source="shapes_detection"), adapter="detection")


@pytest.fixture
def detections(dataset):
    """The truth of the first classes, moved and shaken, of one class now and then wrong."""
    rng, test, said = np.random.default_rng(0), dataset.splits["test"], []
    for position in range(len(test)):
        truth = test.target(position)
        scores = -np.sort(-rng.random(len(truth))).astype(np.float32)
        labels = np.where(rng.random(len(truth)) < 0.8, truth.labels, (truth.labels + 1) % 10)
        boxes = (truth.boxes + rng.normal(0, 3, truth.boxes.shape)).astype(np.float32)
        said.append(Detections(boxes, scores, labels, truth.rles))
    return said


def test_files_are_cocos(dataset, detections, tmp_path):
    adapter = Detection()
    judged = adapter.judge(dataset, "test", detections)
    adapter.write_files(dataset, "test", detections, tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = to_coco_json(dataset.splits["test"].images, dataset.splits["test"].indices)
        truth.createIndex()
        for kind, metric in (("bbox", "box_ap"), ("segm", "mask_ap")):
            evaluated = COCOeval(truth, truth.loadRes(str(tmp_path / f"detections.{kind}.json")), kind)
            evaluated.evaluate()
            evaluated.accumulate()
            evaluated.summarize()
            # The files round scores and boxes.
            assert get_metric(metric).compute(judged) == pytest.approx(evaluated.stats[0], abs=1e-3)


def test_boxes_alone(dataset, detections, tmp_path):
    boxes = [Detections(said.boxes, said.scores, said.labels) for said in detections]
    Detection().write_files(dataset, "test", boxes, tmp_path)
    assert [path.name for path in tmp_path.glob("*.json")] == ["detections.bbox.json"]
    assert len(json.loads((tmp_path / "detections.bbox.json").read_text())) == sum(map(len, boxes))


def test_what_chooses(dataset, detections):
    scores = Detection().scores(dataset, "test", detections)
    assert 0.05 < scores["box_ap"] < scores["box_ap50"] < 1


def test_engines():
    protocol = Detection.protocol("finetune@detectron2")
    assert protocol.title == "finetune@detectron2" and protocol.as_dict()["engine"] == "detectron2"
    assert Detection.protocol("finetune").as_dict()["engine"] == "torchvision"
