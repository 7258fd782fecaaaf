"""Features of several augmented views of some images, for what compares views: LiDAR and alignment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.data.base import ImageSet
from bob.data.loader import make_batches
from bob.features.extract import BackingOff, Extraction, prepare

SCALE = (0.2, 1.0)  # of a crop's area, as in MoCo v2
RATIO = (3 / 4, 4 / 3)  # width over height of a crop
_JITTER = 0.4  # of brightness, contrast and saturation


def embed_views(
    backbone: Backbone,
    images: ImageSet,
    indices: np.ndarray,
    views: int,
    how: Extraction,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Features (n, views, D) float32 of random views of images.

    A view is a crop resized to the network's input, flipped or not, its colours changed. They are computed anew each
    time. An image's views depend on the seed and its position alone.

    Args:
        backbone: Opened.
        images: Where to read from.
        indices: (n,) positions.
        views: Of each image.
        how: Device, precision, batch size and workers.
        seed: Of the views.
        advance: Told after each batch how many more images are done.

    Raises:
        UserError: If an image cannot be read.

    Source: Chen et al. 2020, SimCLR, arXiv 2002.05709, for the kinds of change; here in mild form, without blur and
        greyscale.
    """
    size = max(1, how.images_per_batch // views)
    positions = [indices[start : start + size].tolist() for start in range(0, len(indices), size)]
    forward = BackingOff(prepare(backbone, how.device), how)
    parts = []
    for batch in make_batches(positions, _Views(images, backbone.preprocess, views, seed), how.workers):
        parts.append(forward(batch.images).float().cpu().unflatten(0, (-1, views)))
        advance(len(batch.indices))
    return torch.cat(parts).numpy()


@dataclass(frozen=True)
class _Views:
    """Position -> uint8 (views, 3, h, w)."""

    images: ImageSet
    preprocess: Preprocess
    views: int
    seed: int

    def __call__(self, index: int) -> torch.Tensor:
        rng, image = np.random.default_rng((self.seed, index)), self.images.read(index)
        whole = replace(self.preprocess, crop_fraction=1.0, crop_mode="squash")
        return torch.stack([_view(image, whole, rng) for _ in range(self.views)])


def _view(image: torch.Tensor, whole: Preprocess, rng: np.random.Generator) -> torch.Tensor:
    height, width = image.shape[-2:]
    area, ratio = rng.uniform(*SCALE) * height * width, np.exp(rng.uniform(*np.log(RATIO)))
    rows = min(height, max(1, round(float(np.sqrt(area / ratio)))))
    columns = min(width, max(1, round(float(np.sqrt(area * ratio)))))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    view = whole.crop(image[:, top : top + rows, left : left + columns])
    if rng.random() < 0.5:
        view = F.horizontal_flip(view)
    for change in (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation):
        view = change(view, float(rng.uniform(1 - _JITTER, 1 + _JITTER)))
    return view
