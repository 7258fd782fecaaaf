"""Semantic segmentation: a class for each pixel, from stored maps or by an UPerNet, and how that is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from bob.adapters.base import Adapter, named
from bob.adapters.segmentation_probing import KNN, LINEAR
from bob.adapters.training import Training
from bob.data.base import Dataset
from bob.data.objects import PredictedMasks
from bob.engines.dense_recipe import UPERNET
from bob.results.segmentation import SegmentationPredictions

UPER = Training(
    name="upernet",
    version=1,
    description="UPerNet, all weights trained (AdamW, polynomial decay); learning rate chosen on validation.",
    recipe=UPERNET,
    rates=(3e-5, 1e-4, 3e-4),
    engine="smp",
    engines=("mmseg",),
)
UPER_FROZEN = replace(
    UPER,
    name="upernet_frozen",
    description="UPerNet by the same recipe on the backbone as it is.",
    recipe=replace(UPERNET, name="upernet_frozen", trainable="head", drop_path=0.0),
)
MASKS = "masks"


class Segmentation(Adapter):
    """A class for each pixel; pixels without one count for nothing."""

    protocols: ClassVar = named([LINEAR, KNN, UPER, UPER_FROZEN])
    choose_by: ClassVar = ("miou", "pixel_accuracy")

    def judge(self, dataset: Dataset, split: str, predicted: PredictedMasks) -> SegmentationPredictions:
        """See `Adapter.judge`; at the resolution that the task's card says."""
        judged = dataset.splits[split]
        truths = (judged.target(position) for position in range(len(judged)))
        score_at = dataset.facts.get("score_at")
        short = score_at if isinstance(score_at, int) else None
        return SegmentationPredictions.from_masks(judged.names, truths, predicted, dataset.classes, score_at=short)

    def write_files(self, dataset: Dataset, split: str, predicted: PredictedMasks, folder: Path) -> None:
        """Write `masks/00000.png`, ...: for each image in order a PNG whose grey value is the class.

        Raises:
            OSError: If the disk refuses.
        """
        (folder / MASKS).mkdir()
        for index in range(len(predicted)):
            predicted.save(folder / MASKS / f"{index:05d}.png", index)
