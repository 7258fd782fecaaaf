"""What a run predicted, image by image, beside what is true."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bob.data.base import Dataset, Split
from bob.data.objects import Detections
from bob.data.sources import load_task
from bob.errors import UserError
from bob.pictures.draw import draw_classes, draw_label, draw_objects
from bob.results.files import PICTURES, require_suffix, write_figure
from bob.results.multilabel import MultiLabelPredictions
from bob.results.predictions import Predictions
from bob.results.reading import predictions_of, read_record
from bob.results.record import Record
from bob.task_cards import TaskCard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Draws what is true of an image on one pair of axes and what was predicted on the other.
Pair = Callable[[int, np.ndarray, "Axes", "Axes"], None]
_INCHES = 3.2


def draw_run(
    record_path: Path, out: Path, *, count: int, threshold: float, seed: int, data_root: Path | None = None
) -> list[str]:
    """Draw some test images of a run: ground truth at the left, prediction at the right.

    Args:
        record_path: The run's record.
        out: PNG or SVG to write.
        count: How many images.
        threshold: Detections of a lower score are left out.
        seed: Of the choice of images.
        data_root: Folder of downloaded data sets.

    Returns:
        The names of the images drawn.

    Raises:
        UserError: If the data are not those of the run, or its files are not there.
    """
    require_suffix(out, PICTURES)
    record = read_record(record_path)
    dataset = load_task(TaskCard.model_validate(record.task_card), data_root)
    test = dataset.splits["test"]
    _require_same_data(record, test)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(test))[:count])
    pair = _pair(record, record_path, dataset, threshold)
    write_figure(_figure(record, test, chosen.tolist(), pair), out)
    return [test.images.names[test.indices[position]] for position in chosen]


def _require_same_data(record: Record, test: Split) -> None:
    said = record.request.data["splits"]["test"]
    if said != {"n": len(test), "sha256": test.checksum()}:
        raise UserError(
            f"The test images of {record.request.task} here are not those that the run {record.run_id} saw.",
            "Give the same data (--data-root), or run again.",
        )


def _pair(record: Record, path: Path, dataset: Dataset, threshold: float) -> Pair:
    adapter = record.task_card["adapter"]
    if adapter == "detection":
        return _detections(path.parent, dataset, threshold)
    if adapter == "segmentation":
        return _class_maps(path.parent, dataset)
    return _labels(path)


def _detections(folder: Path, dataset: Dataset, threshold: float) -> Pair:
    test, found = dataset.splits["test"], read_detections(folder, dataset)

    def draw(position: int, image: np.ndarray, truth: Axes, said: Axes) -> None:
        objects, detections = test.target(position), found[position]
        sure = detections.scores >= threshold
        rles = [rle for rle, is_sure in zip(detections.rles or (), sure, strict=False) if is_sure]
        draw_objects(truth, image, objects.boxes, objects.labels, dataset.classes, rles=objects.rles)
        draw_objects(
            said, image, detections.boxes[sure], detections.labels[sure], dataset.classes, detections.scores[sure], rles
        )

    return draw


def read_detections(folder: Path, dataset: Dataset) -> list[Detections]:
    """Read what the detection adapter wrote beside a record, for each test image in order.

    Raises:
        UserError: If the files are missing or damaged.
    """
    masks = folder / "detections.segm.json"
    boxes = _read_json(folder / "detections.bbox.json")
    rles = [row["segmentation"] for row in _read_json(masks)] if masks.is_file() else None
    test: Any = dataset.splits["test"]
    label_of = {int(number): label for label, number in enumerate(test.images.category_ids)}
    rows: dict[int, list[int]] = {}
    for row, said in enumerate(boxes):
        rows.setdefault(said["image_id"], []).append(row)
    return [
        _detections_of([boxes[row] for row in own], None if rles is None else [rles[row] for row in own], label_of)
        for own in (rows.get(int(test.images.image_ids[index]), []) for index in test.indices)
    ]


def _detections_of(said: Sequence[dict[str, Any]], rles: Sequence[Any] | None, label_of: dict[int, int]) -> Detections:
    corners = np.array([row["bbox"] for row in said], dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Detections(
        boxes=corners,
        scores=np.array([row["score"] for row in said], dtype=np.float32),
        labels=np.array([label_of[row["category_id"]] for row in said], dtype=np.int64),
        rles=None if rles is None else tuple({**rle, "counts": rle["counts"].encode()} for rle in rles),
    )


def _class_maps(folder: Path, dataset: Dataset) -> Pair:
    test = dataset.splits["test"]

    def draw(position: int, image: np.ndarray, truth: Axes, said: Axes) -> None:
        path = folder / "masks" / f"{position:05d}.png"
        try:
            with Image.open(path) as file:
                map_ = np.asarray(file).astype(np.int16)
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error}.", "Run again with --recompute.") from error
        draw_classes(truth, image, test.target(position), dataset.classes)
        draw_classes(said, image, map_, dataset.classes)

    return draw


def _labels(path: Path) -> Pair:
    predictions = predictions_of(path)

    def draw(position: int, image: np.ndarray, truth: Axes, said: Axes) -> None:
        draw_label(truth, image, _true_label(predictions, position))
        draw_label(said, image, _predicted_label(predictions, position))

    return draw


def _true_label(predictions: Any, position: int) -> str:
    labels = predictions.labels[position]
    if isinstance(predictions, MultiLabelPredictions):
        return ", ".join(predictions.classes[label] for label in np.flatnonzero(labels == 1)) or "none"
    return predictions.classes[labels]


def _predicted_label(predictions: Any, position: int) -> str:
    if isinstance(predictions, Predictions):
        return f"{predictions.classes[predictions.predicted[position]]} {predictions.confidence[position]:.2f}"
    shares = predictions.probabilities[position]
    likely = [label for label in np.argsort(-shares) if shares[label] >= 0.5]
    return ", ".join(f"{predictions.classes[label]} {shares[label]:.2f}" for label in likely) or "none"


def _figure(record: Record, test: Split, positions: list[int], draw: Pair) -> Figure:
    from matplotlib.figure import Figure

    images = [test.images.read(int(test.indices[position])).permute(1, 2, 0).numpy() for position in positions]
    heights = [_INCHES * image.shape[0] / image.shape[1] + 0.2 for image in images]
    figure = Figure(figsize=(2 * _INCHES, sum(heights) + 0.5), layout="constrained", dpi=150)
    request = record.request
    figure.suptitle(f"{request.backbone} on {request.task}, {request.protocol['name']}: truth, prediction", fontsize=8)
    grid = figure.subplots(len(positions), 2, squeeze=False, height_ratios=heights)
    for position, image, (truth, said) in zip(positions, images, grid, strict=True):
        draw(position, image, truth, said)
    return figure


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {error}.", "Run again with --recompute.") from error
