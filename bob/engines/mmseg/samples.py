"""Images and class maps as mmsegmentation's own pipelines resize, crop, flip and distort them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bob.backbones.preprocess import Preprocess
from bob.data.base import Split
from bob.data.objects import IGNORE
from bob.engines.dense_recipe import View
from bob.engines.mmseg.library import load
from bob.engines.order import random_for_image

# The strength of `View.color_jitter` at which a distortion is as strong as its defaults.
_USUAL_JITTER = 0.4
Sample = dict[str, Any]  # `inputs` uint8 (3, h, w), BGR, and `data_samples`


@dataclass(frozen=True)
class TrainingBatches:
    """Makes a batch of augmented images, each from random numbers of its own; see `bob.engines.views`.

    Attributes:
        split: With class maps.
        preprocess: The checkpoint's own interpolation.
        view: Sizes and augmentation.
        batches: Positions of each batch's images.
        seed: Of the training.
        epoch: Counted from 0.
    """

    split: Split
    preprocess: Preprocess
    view: View
    batches: Sequence[Sequence[int]]
    seed: int
    epoch: int

    def __call__(self, number: int) -> list[Sample]:
        """Return batch `number`."""
        pipeline = training_pipeline(self.view, self.preprocess)
        return [self._sample(pipeline, position) for position in self.batches[number]]

    def _sample(self, pipeline: Any, position: int) -> Sample:
        results = read(self.split, position)
        results |= {"gt_seg_map": self.split.target(position), "seg_fields": ["gt_seg_map"]}
        with random_for_image(self.seed, self.epoch, position):
            return pipeline(results)


@dataclass(frozen=True)
class TestImages:
    """Makes an image at the test size, without its class map."""

    __test__ = False  # not pytest's

    split: Split
    preprocess: Preprocess
    view: View

    def __call__(self, position: int) -> Sample:
        """Return image `position`."""
        sample: Sample = test_pipeline(self.view, self.preprocess)(read(self.split, position))
        return sample


def read(split: Split, position: int) -> dict[str, Any]:
    """An image as `LoadImageFromFile` gives it: BGR, channels last."""
    image = split.images.read(int(split.indices[position])).numpy()
    size = image.shape[-2:]
    return {"img": np.ascontiguousarray(image[::-1].transpose(1, 2, 0)), "img_shape": size, "ori_shape": size}


def training_pipeline(view: View, preprocess: Preprocess) -> Any:
    """The usual pipeline of mmsegmentation at the view's sizes.

    `View.color_jitter` is the strength of `PhotoMetricDistortion`: 0.4 is its own.

    Source: mmsegmentation's configs/_base_/datasets/ade20k.py.
    """
    mmcv, own = load("mmcv.transforms"), load("mmseg.datasets.transforms")
    how = {"keep_ratio": True, "interpolation": preprocess.interpolation}
    steps: list[Any] = [
        mmcv.RandomResize(scale=(view.long, view.short), ratio_range=view.scale, **how)
        if view.jitter == "scale"
        else mmcv.RandomChoiceResize(scales=[(view.long, side) for side in view.sides], **how)
    ]
    if view.crop is not None:
        steps.append(own.RandomCrop(crop_size=view.crop, cat_max_ratio=view.cat_max_ratio or 1.0, ignore_index=IGNORE))
    steps.append(mmcv.RandomFlip(prob=view.hflip))
    if view.color_jitter:
        steps.append(own.PhotoMetricDistortion(**_distortion(view.color_jitter / _USUAL_JITTER)))
    return mmcv.Compose([*steps, own.PackSegInputs()])


def test_pipeline(view: View, preprocess: Preprocess) -> Any:
    """Resizes to the test size."""
    mmcv, own = load("mmcv.transforms"), load("mmseg.datasets.transforms")
    resize = mmcv.Resize(scale=(view.long, view.short), keep_ratio=True, interpolation=preprocess.interpolation)
    return mmcv.Compose([resize, own.PackSegInputs()])


# Not a test of pytest's, wherever it is imported.
test_pipeline.__test__ = False  # type: ignore[attr-defined]


def collate(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """What mmengine's models take."""
    return {key: [sample[key] for sample in samples] for key in ("inputs", "data_samples")}


def _distortion(strength: float) -> dict[str, Any]:
    spread = min(0.5 * strength, 1.0)
    return {
        "brightness_delta": round(32 * strength),
        "contrast_range": (1 - spread, 1 + spread),
        "saturation_range": (1 - spread, 1 + spread),
        "hue_delta": round(18 * strength),
    }
