"""A trained detector, and what it finds in images as they lie on disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bob.data.base import Split
from bob.data.objects import Detections
from bob.engines.dense_batch import DenseBatch
from bob.engines.dense_recipe import DetectionRecipe
from bob.engines.detection.masks import paste
from bob.engines.detection.network import Detector, Seen
from bob.engines.devices import is_out_of_memory
from bob.engines.trained import Trained
from bob.engines.views import test_batches
from bob.errors import UserError

_AT_ONCE = 8  # images in one forward pass, where the recipe does not say


@dataclass(frozen=True, kw_only=True)
class TrainedDetector(Trained):
    """A network from images to detections."""

    network: Detector
    recipe: DetectionRecipe

    def predict(self, split: Split) -> list[Detections]:
        """Return what is in each image, in order: in its own pixels, the surest first.

        Every process that calls this does all of it.

        Raises:
            UserError: If an image cannot be read, or one image alone does not fit in memory.
        """
        self.network.eval()
        loaded = test_batches(
            split,
            self.network.backbone.preprocess,
            self.recipe.view,
            batch_size=self.how.batch_size or self.recipe.micro_batch or _AT_ONCE,
            workers=self.how.workers,
            pin_memory=self.how.device.type == "cuda",
        )
        return [detections for batch in loaded for detections in self._detections(batch)]

    def _detections(self, batch: DenseBatch) -> list[Detections]:
        try:
            seen = self._seen(batch)
            return [_in_the_original(*one) for one in zip(seen, batch.sizes, batch.originals, strict=True)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise UserError(
                    f"A detector on backbone '{self.network.backbone.card.name}' does not fit in the memory of "
                    f"{self.how.device}, even with one image at a time.",
                    "Use a larger device, --device cpu, or a smaller view.",
                ) from error
        # Outside the handler, whose traceback keeps the failed pass's tensors alive.
        return [one for half in batch.split(-(-len(batch) // 2)) for one in self._detections(half)]

    def _seen(self, batch: DenseBatch) -> list[Seen]:
        mixed = self.how.precision != "float32"
        dtype = getattr(torch, self.how.precision) if mixed else None
        device = self.network.backbone.device
        images = self.network.backbone.preprocess.normalize(batch.images.to(device, non_blocking=True))
        with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=mixed):
            return self.network.detect(images, batch.sizes)


def _in_the_original(seen: Seen, size: tuple[int, int], original: tuple[int, int]) -> Detections:
    height, width = original
    scale = np.array([width / size[1], height / size[0]] * 2, dtype=np.float32)
    limits = np.array([width, height] * 2, dtype=np.float32)
    boxes = np.minimum(seen.found.boxes.cpu().numpy() * scale, limits)
    masks = None if seen.masks is None else paste(seen.masks.cpu().numpy(), boxes, original)
    return Detections(boxes, seen.found.scores.cpu().numpy(), seen.found.labels.cpu().numpy(), masks)
