"""A segmentor of mmsegmentation's, trained, and what it says about images, at their own resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bob.data.base import Split
from bob.data.loader import make_items
from bob.data.objects import PredictedMasks
from bob.engines.dense_recipe import SegmentationRecipe
from bob.engines.devices import is_out_of_memory
from bob.engines.mmseg.library import contained
from bob.engines.mmseg.samples import Sample, TestImages, collate
from bob.engines.trained import Trained
from bob.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainedSegmentor(Trained):
    """An UPerNet that mmsegmentation trained.

    Attributes:
        recipe: Its view says at which size images are tested.
        segmentor: An `EncoderDecoder`, in eval mode; `network` holds the same weights.
    """

    recipe: SegmentationRecipe
    segmentor: Any

    def predict(self, split: Split) -> PredictedMasks:
        """Return the likeliest class of each pixel of each image, one image at a time, by mmsegmentation's test path.

        Raises:
            UserError: If an image cannot be read, or does not fit in memory.
        """
        if not len(split):
            raise ValueError("Expected `split` to have images, but got none.")
        masks = PredictedMasks()
        make = TestImages(split, self.network.backbone.preprocess, self.recipe.view)
        with contained(0, self.how.device):
            self.segmentor.eval()
            for sample in make_items(len(split), make, self.how.workers):
                masks.append(self._classes(sample))
        return masks

    def _classes(self, sample: Sample) -> np.ndarray:
        mixed = self.how.precision != "float32"
        dtype = getattr(torch, self.how.precision) if mixed else None
        try:
            with torch.inference_mode(), torch.autocast(self.how.device.type, dtype=dtype, enabled=mixed):
                found = self.segmentor.test_step(collate([sample]))[0]
            classes: np.ndarray = found.pred_sem_seg.data[0].cpu().numpy()
            return classes
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"A segmentor on backbone '{self.network.backbone.card.name}' does not fit in the memory of "
                f"{self.how.device}, with one image of {' x '.join(map(str, _size(sample)))} px.",
                "Use a larger device, --device cpu, or a smaller short side.",
            ) from error


def _size(sample: Sample) -> tuple[int, int]:
    """Height and width at which an image is tested."""
    height, width = sample["inputs"].shape[-2:]
    return int(height), int(width)
