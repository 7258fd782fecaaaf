"""`bob compare`: what it prints of two records, what it writes, and that every mistake is one sentence and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.compare import compare
from bob.data.objects import Detections, Objects
from bob.errors import UserError
from bob.results.detection import DetectionPredictions
from bob.results.metrics import METRICS
from bob.results.multilabel import MultiLabelPredictions
from bob.results.predictions import Predictions
from bob.results.record import Record
from bob.results.segmentation import SegmentationPredictions

Make = Callable[..., Record]
Run = Callable[..., str]
CLASSES = ["cat", "dog", "eel", "fox"]
LABELS = np.repeat(np.arange(4), 25)


@pytest.fixture
def run(tmp_path: Path, run_command: Run) -> Run:
    """Run the command on the records in `tmp_path`, and give what it prints."""
    return partial(run_command, compare, "--results", tmp_path)


@pytest.fixture
def write(tmp_path: Path, make_record: Make) -> Callable[..., None]:
    """Write the record of a backbone that is right about so many of each class's 25 images."""

    def make(backbone: str, hits: tuple[int, ...], stem: str = "i", **options: object) -> None:
        right = np.concatenate([np.arange(25) < n for n in hits])
        table = np.eye(4)[np.where(right, LABELS, (LABELS + 1) % 4)]
        made = Predictions.from_probabilities([f"{stem}{i}" for i in range(100)], LABELS, table, CLASSES)
        make_record(backbone, METRICS["top1"].compute(made), **options).write(tmp_path, made)

    return make


def test_a_gain_that_hides_a_loss(run: Run, write: Callable[..., None], tmp_path: Path) -> None:
    write("old", (20, 10, 10, 15))
    write("new", (10, 20, 20, 15))
    lines = run("old", "new", "--out", tmp_path / "classes.csv").splitlines()
    assert lines[0] == "t/linear, top-1 on 100 test images: old 0.550, new 0.650"
    assert lines[1].startswith("difference +0.100 [") and lines[1].endswith("neither is known to be better.")
    assert "1 of 4 classes are hurt from old to new, by recall:" in lines
    assert "2 of 4 classes are helped from old to new, by recall:" in lines
    cat = next(line.split() for line in lines if line.startswith("cat"))
    assert cat[:5] == ["cat", "25", "0.800", "0.400", "-0.400"]
    assert "3 of 4 intervals are without 0; about 0.2 would be by chance if no class differed." in lines
    table = pd.read_csv(tmp_path / "classes.csv")
    assert list(table["class"]) == ["cat", "fox", "dog", "eel"]
    assert list(table.columns) == ["class", "n", "a", "b", "difference", "low", "high"]


def test_top_limits_the_rows(run: Run, write: Callable[..., None]) -> None:
    write("old", (5, 6, 7, 20))
    write("new", (10, 20, 20, 15))
    shown = run("old", "new", "--top", 1).splitlines()
    assert [line.split()[0] for line in shown if line.split()[:1] and line.split()[0] in CLASSES] == ["fox", "dog"]
    assert shown[1].endswith("; new is better.")
    assert run("new", "old").splitlines()[1].endswith("; old is worse.")


def test_classes_that_none_is_hurt(run: Run, write: Callable[..., None]) -> None:
    write("old", (5, 6, 7, 20))
    write("new", (5, 6, 7, 20))
    shown = run("old", "new").splitlines()
    assert shown[1] == (
        "difference +0.000 [+0.000, +0.000] (95%, paired); the interval holds 0, so neither is known to be better."
    )
    assert "0 of 4 classes are hurt from old to new, by recall:" in shown


def test_task_and_protocol_choose(run: Run, write: Callable[..., None]) -> None:
    for backbone, hits in (("old", (5, 5, 5, 5)), ("new", (9, 9, 9, 9))):
        write(backbone, hits, protocol="knn@5shot")
        write(backbone, hits)
    with pytest.raises(UserError, match=r"share 2 settings\. Choose one: --task t --protocol knn@5shot; "):
        run("old", "new")
    assert run("old", "new", "-p", "knn@5shot", "-t", "t").startswith("t/knn@5shot, top-1")


def test_several_labels(run: Run, tmp_path: Path, make_record: Make) -> None:
    labels = np.random.default_rng(0).integers(2, size=(60, 2))
    for seed, backbone in enumerate(("old", "new")):
        table = np.random.default_rng(seed).random((60, 2)) * (0.5 + 0.5 * labels * seed)
        made = MultiLabelPredictions.from_probabilities([f"i{i}" for i in range(60)], labels, table, ["sea", "sky"])
        make_record(backbone, METRICS["map"].compute(made), metric="map").write(tmp_path, made)
    shown = run("old", "new")
    assert shown.startswith("t/linear, mAP on 60 test images: old ")
    assert "classes are helped from old to new, by average precision:" in shown


def test_detectors(run: Run, tmp_path: Path, make_record: Make) -> None:
    corners, labels = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]]), np.array([0, 1])
    truth = Objects(corners, labels, labels, np.array([100.0, 400]), np.zeros(2, dtype=bool), (50, 50))
    for shift, backbone in ((3, "old"), (1, "new")):
        found = Detections((corners + shift).astype(np.float32), np.array([0.9, 0.8], dtype=np.float32), labels)
        names = [f"i{i}" for i in range(12)]
        made = DetectionPredictions.from_detections(names, [truth] * 12, [found] * 12, ["sea", "sky"])
        make_record(backbone, METRICS["box_ap"].compute(made), metric="box_ap").write(tmp_path, made)
    shown = run("old", "new")
    assert shown.startswith("t/linear, box AP on 12 test images: old ")
    assert "2 of 2 classes are helped from old to new, by average precision of boxes:" in shown


def test_segmenters(run: Run, tmp_path: Path, make_record: Make) -> None:
    truths = [np.arange(16).reshape(4, 4) % 2 for _ in range(12)]
    for wrong, backbone in ((6, "old"), (3, "new")):
        predicted = [np.where(np.arange(16).reshape(4, 4) < wrong, 1 - truth, truth) for truth in truths]
        made = SegmentationPredictions.from_masks([f"i{i}" for i in range(12)], truths, predicted, ["sea", "sky"])
        make_record(backbone, METRICS["miou"].compute(made), metric="miou").write(tmp_path, made)
    shown = run("old", "new")
    assert shown.startswith("t/linear, mIoU on 12 test images: old ")
    assert "2 of 2 classes are helped from old to new, by intersection over union:" in shown


def test_mistakes(run: Run, write: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no records"):
        run("old", "new")
    write("old", (5, 6, 7, 20))
    with pytest.raises(UserError, match="There is no such run of new"):
        run("old", "new")
    write("new", (5, 6, 7, 20), stem="j")
    message = "old and new were not tested on the same samples: sample 0 of old is i0, that of new is j0"
    with pytest.raises(UserError, match=message):
        run("old", "new", "-o", tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()
    with pytest.raises(UserError, match=r"Cannot tell the format of .*x\.md\. Give a name that ends in \.csv\."):
        run("old", "new", "-o", tmp_path / "x.md")


def test_one_draw_of_several_says_which(run: Run, write: Callable[..., None]) -> None:
    for seed in (1, 2):
        write("old", (20, 10, 10, 15), seed=seed)
        write("new", (10, 20, 20, 15), seed=seed)
    assert run("old", "new").splitlines()[0].startswith("t/linear (seed 1 alone), top-1 on 100 test images: old 0.550")
