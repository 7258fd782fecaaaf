"""A trained segmenter, and what it says about images, at their own resolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from bob.data.base import Split
from bob.data.objects import PredictedMasks
from bob.engines.dense_batch import DenseBatch
from bob.engines.dense_recipe import SegmentationRecipe
from bob.engines.devices import is_out_of_memory
from bob.engines.segmentation.network import STRIDE
from bob.engines.segmentation.upsample import pixel_classes
from bob.engines.trained import Trained
from bob.engines.views import test_batches
from bob.errors import UserError

_TOGETHER = 4  # images of one forward pass, where nothing says otherwise


@dataclass(frozen=True, kw_only=True)
class TrainedSegmenter(Trained):
    """An UPerNet that bob's own loop trained.

    Attributes:
        recipe: Its view says at which size images are tested.
    """

    recipe: SegmentationRecipe

    def predict(self, split: Split) -> PredictedMasks:
        """Return the likeliest class of each pixel of each image, at the image's own resolution.

        Images are seen whole, without padding, so that what is said of one does not depend on the others.

        Raises:
            UserError: If an image cannot be read, or one image alone does not fit in memory.
        """
        if not len(split):
            raise ValueError("Expected `split` to have images, but got none.")
        self.network.eval()
        masks = PredictedMasks()
        batches = test_batches(
            split,
            self.network.backbone.preprocess,
            self.recipe.view,
            batch_size=self.how.batch_size or self.recipe.micro_batch or _TOGETHER,
            workers=self.how.workers,
            pin_memory=self.how.device.type == "cuda",
        )
        for batch in batches:
            for classes in self._maps(batch):
                masks.append(classes)
        return masks

    def _maps(self, batch: DenseBatch) -> list[np.ndarray]:
        """The class of each pixel of each image; images of one size are seen together."""
        found: dict[int, np.ndarray] = {}
        for (height, width), places in _by_size(batch).items():
            images = batch.images[places, :, :height, :width]
            found |= zip(places, self._classes(images, [batch.originals[i] for i in places]), strict=True)
        return [found[place] for place in range(len(batch))]

    def _classes(self, images: torch.Tensor, originals: list[tuple[int, int]]) -> list[np.ndarray]:
        try:
            return list(self._predicted(images, originals))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(images) == 1:
                name, view = self.network.backbone.card.name, self.recipe.view
                raise UserError(
                    f"A segmenter on backbone '{name}' does not fit in the memory of {self.how.device}, even with one "
                    f"image of {images.shape[-2]} x {images.shape[-1]} px at a time.",
                    f"Use a larger device, --device cpu, or a smaller short side than {view.short}.",
                ) from error
        # Outside the handler, whose traceback keeps the failed pass's tensors alive.
        half = -(-len(images) // 2)
        return self._classes(images[:half], originals[:half]) + self._classes(images[half:], originals[half:])

    def _predicted(self, images: torch.Tensor, originals: list[tuple[int, int]]) -> Iterator[np.ndarray]:
        mixed = self.how.precision != "float32"
        dtype = getattr(torch, self.how.precision) if mixed else None
        device, size = self.network.backbone.device, (images.shape[-2], images.shape[-1])
        moved = images.to(device, non_blocking=True)
        with torch.inference_mode():
            with torch.autocast(device.type, dtype=dtype, enabled=mixed):
                logits, _ = self.network(self.network.backbone.preprocess.normalize(moved))
            for scores, original in zip(logits, originals, strict=True):
                yield pixel_classes(scores, size, original, STRIDE).cpu().numpy()


def _by_size(batch: DenseBatch) -> dict[tuple[int, int], list[int]]:
    places: dict[tuple[int, int], list[int]] = {}
    for place, size in enumerate(batch.sizes):
        places.setdefault(size, []).append(place)
    return places
