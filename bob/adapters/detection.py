"""Detection and instance segmentation: a Cascade Mask R-CNN on the backbone, and how its detections are judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from bob.adapters.base import Adapter, named
from bob.adapters.training import Training
from bob.data.base import Dataset, Split
from bob.data.objects import Detections
from bob.engines.dense_recipe import BOB_DETECTION
from bob.results.detection import DetectionPredictions

FINETUNE = Training(
    name="finetune",
    version=1,
    description="Cascade Mask R-CNN, all weights trained by the paper's recipe (AdamW, 36 epochs, two steps down).",
    recipe=BOB_DETECTION,
    rates=(8e-5, 1e-4, 2e-4, 3e-4),
    engine="torchvision",
    engines=("detectron2",),
)
FROZEN = replace(
    FINETUNE,
    name="frozen",
    description="Cascade Mask R-CNN by the same recipe on the backbone as it is.",
    recipe=replace(BOB_DETECTION, name="bob_detection_frozen", trainable="head", drop_path=0.0),
)


class Detection(Adapter):
    """Boxes and, where the data have them, masks of objects; trained and judged as COCO does."""

    protocols: ClassVar = named([FINETUNE, FROZEN])
    choose_by: ClassVar = ("box_ap", "box_ap50")

    def judge(self, dataset: Dataset, split: str, predicted: Sequence[Detections]) -> DetectionPredictions:
        """See `Adapter.judge`."""
        judged = dataset.splits[split]
        truths = [judged.target(position) for position in range(len(judged))]
        federated = judged.images.federated  # type: ignore[attr-defined]
        return DetectionPredictions.from_detections(judged.names, truths, predicted, dataset.classes, federated)

    def write_files(self, dataset: Dataset, split: str, predicted: Sequence[Detections], folder: Path) -> None:
        """Write `detections.bbox.json` and, with masks, `detections.segm.json`, in COCO's result format.

        Images and categories have the data set's own numbers.

        Raises:
            OSError: If the disk refuses.
        """
        judged = dataset.splits[split]
        kinds = {"bbox": _boxes, "segm": _masks}
        if any(each.rles is None for each in predicted):
            del kinds["segm"]
        for kind, rows in kinds.items():
            with (folder / f"detections.{kind}.json").open("w", encoding="utf-8") as file:
                json.dump(list(_results(judged, predicted, rows)), file)


def _results(judged: Split, predicted: Sequence[Detections], rows: Any) -> Iterator[dict[str, Any]]:
    """COCO's rows: one for each detection."""
    images, categories = judged.images.image_ids, judged.images.category_ids  # type: ignore[attr-defined]
    for position, detections in zip(judged.indices, predicted, strict=True):
        for score, label, what in zip(detections.scores, detections.labels, rows(detections), strict=True):
            yield {
                "image_id": int(images[position]),
                "category_id": int(categories[label]),
                "score": round(float(score), 6),
                **what,
            }


def _boxes(detections: Detections) -> Iterator[dict[str, Any]]:
    for left, top, right, bottom in detections.boxes.astype(float).round(2).tolist():
        yield {"bbox": [left, top, round(right - left, 2), round(bottom - top, 2)]}


def _masks(detections: Detections) -> Iterator[dict[str, Any]]:
    for rle in detections.rles or ():
        counts = rle["counts"]
        yield {"segmentation": {**rle, "counts": counts.decode() if isinstance(counts, bytes) else counts}}
