"""The detector: bob's pyramid as a backbone of detectron2, its FPN, RPN and cascade of heads on top."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone as TheirBackbone
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
)
from detectron2.structures import ImageList
from torch.nn import functional as F

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.backbones.pyramid import Pyramid
from bob.engines.dense_recipe import DetectionRecipe

# Cascade R-CNN's: overlap from which a box counts as an object, and how finely its corrections are scaled.
_STAGES = ((0.5, (10.0, 10.0, 5.0, 5.0)), (0.6, (20.0, 20.0, 10.0, 10.0)), (0.7, (30.0, 30.0, 15.0, 15.0)))
_RATIOS = (0.5, 1.0, 2.0)
_LEVELS = ("p2", "p3", "p4", "p5")
_POOLED = 7, 14  # edges of what the box heads and the mask head see of a region


class PyramidBackbone(TheirBackbone):
    """bob's pyramid as detectron2 sees a backbone: maps named by prefix and log2 of their stride.

    Args:
        pyramid: Of the strides 4 to 32.
        prefix: `c` for what an FPN is built on, `p` for what the heads look at.
        top: Makes one more map of the last, of twice its stride.
    """

    def __init__(self, pyramid: Pyramid, prefix: str, top: LastLevelMaxPool | None = None) -> None:
        super().__init__()
        self.pyramid, self.top = pyramid, top
        strides = pyramid.strides + ([2 * pyramid.strides[-1]] if top else [])
        channels = pyramid.channels + pyramid.channels[-1:] * (top is not None)
        self._out_features = [f"{prefix}{int(math.log2(stride))}" for stride in strides]
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))
        self._out_feature_channels = dict(zip(self._out_features, channels, strict=True))

    @property
    def size_divisibility(self) -> int:
        """Edges of a batch are multiples of it."""
        return self.pyramid.strides[-1]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Normalised (B, 3, H, W) -> maps by name."""
        maps = self.pyramid(images)
        if self.top is not None:
            maps = [*maps, *self.top(maps[-1])]
        return dict(zip(self._out_features, maps, strict=True))


class Detector(GeneralizedRCNN):
    """detectron2's detector; training images smaller than `least`, (height, width), are padded to it with the mean."""

    least: tuple[int, int] = (0, 0)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise, pad and batch, as detectron2 does."""
        images = super().preprocess_image(batched_inputs)
        if not self.training:
            return images
        multiple = self.backbone.size_divisibility
        wanted = (-(-edge // multiple) * multiple for edge in self.least)
        down, right = (max(0, want - have) for want, have in zip(wanted, images.tensor.shape[-2:], strict=True))
        return ImageList(F.pad(images.tensor, (0, right, 0, down)), images.image_sizes)


def make_pyramid(backbone: Backbone, recipe: DetectionRecipe, frozen: bool) -> Pyramid:
    """Maps for the detector: of a plain ViT ViTDet's simple feature pyramid, of any other what an FPN is built on."""
    plain = len(backbone.strides) == 1
    return Pyramid(backbone, recipe.fpn_width if plain else None, frozen=frozen)


def make_detector(
    pyramid: Pyramid, classes: int, masks: bool, recipe: DetectionRecipe, preprocess: Preprocess
) -> Detector:
    """A Cascade R-CNN, with a mask head where the data have masks; what is new of it is on the CPU,
    where random numbers are the same for every device.

    Args:
        pyramid: Of `make_pyramid`.
        classes: Number of classes.
        masks: Whether there are masks to learn from.
        recipe: Widths, anchors and numbers of regions.
        preprocess: The checkpoint's mean and standard deviation.

    Source: arXiv 1712.00726; detectron2's configs/common/models/cascade_rcnn.py and projects/ViTDet.
    """
    detector = Detector(
        backbone=_neck(pyramid, recipe),
        proposal_generator=_proposals(recipe),
        roi_heads=CascadeROIHeads(**_heads(classes, recipe), **(_mask_head(classes, recipe) if masks else {})),
        pixel_mean=[255 * value for value in preprocess.mean],
        pixel_std=[255 * value for value in preprocess.std],
        input_format="RGB",
    )
    detector.least = recipe.view.crop or (0, 0)
    return detector


def _neck(pyramid: Pyramid, recipe: DetectionRecipe) -> TheirBackbone:
    if pyramid.own.outputs:  # the simple feature pyramid's own layers
        return PyramidBackbone(pyramid, "p", LastLevelMaxPool())
    levels = PyramidBackbone(pyramid, "c")
    return FPN(levels, list(levels.output_shape()), recipe.fpn_width, top_block=LastLevelMaxPool())


def _proposals(recipe: DetectionRecipe) -> RPN:
    levels = [*_LEVELS, "p6"]
    return RPN(
        in_features=levels,
        head=StandardRPNHead(in_channels=recipe.fpn_width, num_anchors=len(_RATIOS)),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[recipe.anchor_size * 2**level] for level in range(len(levels))],
            aspect_ratios=list(_RATIOS),
            strides=[4 * 2**level for level in range(len(levels))],
            offset=0.0,
        ),
        anchor_matcher=Matcher(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=(2 * recipe.proposals, recipe.proposals),
        post_nms_topk=(recipe.proposals, recipe.proposals),
        nms_thresh=0.7,
    )


def _heads(classes: int, recipe: DetectionRecipe) -> dict[str, Any]:
    pooled = ShapeSpec(channels=recipe.fpn_width, height=_POOLED[0], width=_POOLED[0])
    return {
        "num_classes": classes,
        "batch_size_per_image": recipe.roi_samples,
        "positive_fraction": 0.25,
        "box_in_features": list(_LEVELS),
        "box_pooler": _pooler(_POOLED[0], recipe),
        "box_heads": [FastRCNNConvFCHead(pooled, conv_dims=[], fc_dims=[recipe.box_width] * 2) for _ in _STAGES],
        "box_predictors": [
            FastRCNNOutputLayers(
                ShapeSpec(channels=recipe.box_width),
                box2box_transform=Box2BoxTransform(weights=weights),
                num_classes=classes,
                cls_agnostic_bbox_reg=True,
                test_score_thresh=recipe.score_threshold,
                test_nms_thresh=0.5,
                test_topk_per_image=recipe.detections,
            )
            for _, weights in _STAGES
        ],
        "proposal_matchers": [
            Matcher(thresholds=[overlap], labels=[0, 1], allow_low_quality_matches=False) for overlap, _ in _STAGES
        ],
    }


def _mask_head(classes: int, recipe: DetectionRecipe) -> dict[str, Any]:
    pooled = ShapeSpec(channels=recipe.fpn_width, height=_POOLED[1], width=_POOLED[1])
    return {
        "mask_in_features": list(_LEVELS),
        "mask_pooler": _pooler(_POOLED[1], recipe),
        "mask_head": MaskRCNNConvUpsampleHead(pooled, num_classes=classes, conv_dims=[recipe.mask_width] * 5),
    }


def _pooler(edge: int, recipe: DetectionRecipe) -> ROIPooler:
    return ROIPooler(
        output_size=edge,
        scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32],
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
        # Level and size of a region go together as in FPN, where anchors of 32 pixels and a scale of 224 do.
        canonical_box_size=7 * recipe.anchor_size,
    )
