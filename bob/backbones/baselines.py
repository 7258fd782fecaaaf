"""Degenerate baselines: what any pretrained backbone must beat for its score to mean anything."""

from __future__ import annotations

import torch
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard

PIXELS_SIZE = 32


class _Constant(nn.Module):
    """Gives every image the same feature."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 1, device=images.device)


def load_pixels(card: BackboneCard) -> Backbone:
    """Raw pixels: the image shrunk to 32 x 32 and flattened, (B, 3072)."""
    preprocess = Preprocess(size=(PIXELS_SIZE, PIXELS_SIZE), crop_fraction=1.0, crop_mode="squash")
    return Backbone(card, nn.Flatten(), preprocess.overridden(card.preprocess), code={"bob": "pixels/1"})


def load_constant(card: BackboneCard) -> Backbone:
    """One constant feature, (B, 1): what the labels alone give away."""
    preprocess = Preprocess(size=(8, 8), crop_fraction=1.0, crop_mode="squash", interpolation="nearest")
    return Backbone(card, _Constant(), preprocess.overridden(card.preprocess), code={"bob": "constant/1"})
