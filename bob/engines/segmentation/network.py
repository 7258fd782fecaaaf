"""An UPerNet on any backbone: images in, a score of each class for each 4 x 4 pixels out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bob.backbones.pyramid import Levels, Pyramid
from bob.engines.dense_recipe import SegmentationRecipe
from bob.engines.network import Network
from bob.extras import import_extra

STRIDE = 4
"""Of the logits, in pixels of the input."""

_AUXILIARY_MAP = 2  # of the four maps: that of stride 16
Logits = tuple[torch.Tensor, torch.Tensor | None]


class UPerNet(nn.Module):
    """All that is new on a backbone: what a plain ViT lacks of a pyramid, decoder, classifier and auxiliary head.

    Args:
        levels: The pyramid's new layers.
        channels: Of its four maps.
        n_classes: C.
        recipe: Says width, dropout and whether there is an auxiliary head.

    Raises:
        UserError: If segmentation-models-pytorch is not installed.

    Source: arXiv 1807.10221; mmsegmentation's configs/_base_/models/upernet_r50.py (the heads).
    """

    def __init__(self, levels: Levels, channels: Sequence[int], n_classes: int, recipe: SegmentationRecipe) -> None:
        super().__init__()
        library = import_extra("segmentation_models_pytorch.decoders.upernet.decoder", "smp")
        width = recipe.decoder_width
        self.levels = levels
        # The decoder counts in maps of strides 1, 2, 4, ... and leaves the first two out, whatever they are.
        self.decoder = library.UPerNetDecoder([0, 0, *channels], encoder_depth=5, decoder_channels=width)
        # It normalises every map over its channels, which neither the paper nor mmsegmentation does; of backbones whose
        # maps want that, the pyramid does.
        self.decoder.feature_norms = nn.ModuleList(nn.Identity() for _ in channels)
        self.dropout = nn.Dropout2d(recipe.dropout)
        self.classify = _classifier(width, n_classes)
        self.auxiliary = _fcn(channels[_AUXILIARY_MAP], width, n_classes, recipe) if recipe.auxiliary else None

    def forward(self, maps: Sequence[torch.Tensor]) -> Logits:
        """Return logits (B, C, H/4, W/4), and in training those of the auxiliary head (B, C, H/16, W/16), or None.

        Args:
            maps: Of a pyramid, its new layers applied.
        """
        logits = self.classify(self.dropout(self.decoder([maps[0], maps[0], *maps])))
        if self.auxiliary is None or not self.training:
            return logits, None
        return logits, self.auxiliary(maps[_AUXILIARY_MAP])


class SegmentationNetwork(Network):
    """A pyramid with an UPerNet: normalised images (B, 3, H, W) -> `Logits`.

    Args:
        pyramid: Its backbone is the caller's to give away.
        head: Holds the pyramid's new layers.
    """

    def __init__(self, pyramid: Pyramid, head: UPerNet) -> None:
        super().__init__(pyramid.backbone, head.to(pyramid.backbone.device), frozen=pyramid.frozen)
        self.pyramid = pyramid
        for parameter in head.parameters():
            if parameter.ndim == 4:  # convolutions run faster that way
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> Logits:  # type: ignore[override]
        """See `UPerNet.forward`; float32."""
        logits, auxiliary = self.head(self.pyramid(images))
        return logits.float(), None if auxiliary is None else auxiliary.float()


def _fcn(channels: int, width: int, n_classes: int, recipe: SegmentationRecipe) -> nn.Sequential:
    """One convolution and a classifier, half as wide as the decoder, as mmsegmentation's FCNHead."""
    inner = max(width // 2, 1)
    return nn.Sequential(
        nn.Conv2d(channels, inner, 3, padding=1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Dropout2d(recipe.dropout),
        _classifier(inner, n_classes),
    )


def _classifier(width: int, n_classes: int) -> nn.Conv2d:
    """Starts small, as mmsegmentation's."""
    layer = nn.Conv2d(width, n_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
