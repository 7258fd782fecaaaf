"""The feature of an image shrunk to a share of the checkpoint's own input size, for search at several scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from bob.backbones.base import Backbone
from bob.errors import UserError
from bob.features.reading import FEATURE, Reading

# As in the revisited Oxford and Paris benchmark and in DINO's evaluation of it; the first is the plain feature.
SCALES = (1.0, 2**-0.5, 0.5)


@dataclass(frozen=True)
class ScaledFeature(Reading):
    """What `embed` returns for the checkpoint's own crop, shrunk.

    Attributes:
        scale: Share of the input size, below 1; edges are rounded to the backbone's coarsest stride.
    """

    scale: float = 0.5

    @property
    def crops(self) -> tuple[object, ...]:
        """See `Reading.crops`; each scale is a pass of its own."""
        return (*super().crops, self.scale)

    def identity(self) -> dict[str, Any]:
        """See `Reading.identity`."""
        return {"reading": {"scale": round(self.scale, 6)}}

    def crop(self, backbone: Backbone) -> Callable[[torch.Tensor], torch.Tensor]:
        """See `Reading.crop`."""
        own, size = backbone.preprocess.crop, scaled_size(backbone, self.scale)
        return lambda image: resize(own(image), list(size), InterpolationMode.BILINEAR, antialias=True)

    def forwards(self, backbone: Backbone) -> float:
        """See `Reading.forwards`."""
        height, width = scaled_size(backbone, self.scale)
        return height * width / (backbone.preprocess.size[0] * backbone.preprocess.size[1])


MULTISCALE: tuple[Reading, ...] = (FEATURE, *(ScaledFeature(scale=scale) for scale in SCALES[1:]))


def scaled_size(backbone: Backbone, scale: float) -> tuple[int, int]:
    """Height and width of the shrunk input."""
    cell = max(backbone.strides)
    height, width = (max(cell, round(edge * scale / cell) * cell) for edge in backbone.preprocess.size)
    return height, width


def require_scales(backbone: Backbone) -> None:
    """Fail if the backbone does not take images of the smaller sizes; asked with noise.

    Raises:
        UserError: Naming the backbone and the size.
    """
    for scale in SCALES[1:]:
        size = scaled_size(backbone, scale)
        noise = torch.randint(256, (1, 3, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        try:
            with torch.inference_mode():
                backbone.eval().embed(backbone.preprocess.normalize(noise.to(backbone.device)))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"Backbone '{backbone.card.name}' takes images of {' x '.join(map(str, backbone.preprocess.size))} px "
                f"only, not of {' x '.join(map(str, size))}, which @multiscale needs.",
                "Leave @multiscale out, or take a convolutional backbone.",
            ) from error
