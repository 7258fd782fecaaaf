"""mmsegmentation's UPerHead and FCNHead on the maps of any backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bob.backbones.preprocess import Preprocess
from bob.backbones.pyramid import Pyramid
from bob.data.objects import IGNORE
from bob.engines.dense_recipe import SegmentationRecipe
from bob.engines.mmseg.library import load
from bob.engines.network import Network

_AUXILIARY_MAP = 2  # of the four maps: that of stride 16
_STRIDE = 32  # whole images of different sizes are padded to a multiple of it


class Maps(nn.Module):
    """A pyramid as mmsegmentation's segmentors want a backbone: a tuple of maps.

    Args:
        pyramid: Of the backbone.
    """

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the four maps of normalised images (B, 3, H, W)."""
        return tuple(self.pyramid(images))


def make_segmentor(pyramid: Pyramid, n_classes: int, recipe: SegmentationRecipe, preprocess: Preprocess) -> Any:
    """An `EncoderDecoder` with new heads, on the CPU or wherever the pyramid is.

    Its parts are given as classes: nothing is added to mmengine's registries.

    Source: mmsegmentation's configs/_base_/models/upernet_r50.py.
    """
    segmentors, heads = load("mmseg.models.segmentors"), load("mmseg.models.decode_heads")
    common = {
        "num_classes": n_classes,
        "dropout_ratio": recipe.dropout,
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "align_corners": False,
        "ignore_index": IGNORE,
    }
    decode = {
        **common,
        "type": heads.UPerHead,
        "in_channels": list(pyramid.channels),
        "in_index": [0, 1, 2, 3],
        "pool_scales": (1, 2, 3, 6),
        "channels": recipe.decoder_width,
        "loss_decode": _cross_entropy(1.0),
    }
    auxiliary = {
        **common,
        "type": heads.FCNHead,
        "in_channels": pyramid.channels[_AUXILIARY_MAP],
        "in_index": _AUXILIARY_MAP,
        "channels": max(recipe.decoder_width // 2, 1),
        "num_convs": 1,
        "concat_input": False,
        "loss_decode": _cross_entropy(recipe.auxiliary),
    }
    return segmentors.EncoderDecoder(
        backbone={"type": Maps, "pyramid": pyramid},
        decode_head=decode,
        auxiliary_head=auxiliary if recipe.auxiliary else None,
        data_preprocessor=_normalisation(recipe, preprocess),
        train_cfg=None,
        test_cfg=load("mmengine.config").ConfigDict(mode="whole"),
    )


def as_network(segmentor: Any) -> Network:
    """The same weights as bob trains, keeps and saves them: backbone and everything new."""
    pyramid: Pyramid = segmentor.backbone.pyramid
    head = nn.ModuleDict({"levels": pyramid.own, "decode_head": segmentor.decode_head})
    if segmentor.with_auxiliary_head:
        head["auxiliary_head"] = segmentor.auxiliary_head
    return Network(pyramid.backbone, head, frozen=pyramid.frozen)


def _cross_entropy(weight: float) -> dict[str, Any]:
    return {"type": load("mmseg.models.losses").CrossEntropyLoss, "loss_weight": weight}


def _normalisation(recipe: SegmentationRecipe, preprocess: Preprocess) -> dict[str, Any]:
    """As `Preprocess.normalize`, with padding of the mean colour at right and bottom."""
    crop = recipe.view.crop
    return {
        "type": load("mmseg.models").SegDataPreProcessor,
        "mean": [255 * value for value in preprocess.mean],
        "std": [255 * value for value in preprocess.std],
        "bgr_to_rgb": True,
        "pad_val": 0,
        "seg_pad_val": IGNORE,
        "size": crop,
        "size_divisor": _STRIDE if crop is None else None,
        "test_cfg": {"size_divisor": 4},  # so that logits of stride 4 lie where the pixels are
    }
