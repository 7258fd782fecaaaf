"""What a recipe for detection or segmentation says beyond one for classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bob.engines.recipe import (
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    SHARE,
    WHOLE,
    Recipe,
    Rule,
    check,
    one_of,
    or_none,
)
from bob.errors import UserError

_RISING: Rule = (
    lambda numbers: len(numbers) > 0 and min(numbers) > 0 and list(numbers) == sorted(numbers),
    "rising positive numbers",
)
_SIZE: Rule = (
    lambda pair: len(pair) == 2 and all(isinstance(edge, int) and edge > 0 for edge in pair),
    "two positive whole numbers, height and width",
)
_VIEW_RULES: dict[str, Rule] = {
    "jitter": one_of("scale", "sides"),
    "short": WHOLE,
    "long": WHOLE,
    "scale": (lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1], "two rising positive numbers"),
    "sides": _RISING,
    "crop": or_none(_SIZE),
    "cat_max_ratio": or_none((lambda value: 0 < value <= 1, "above 0 and up to 1")),
    "hflip": PROBABILITY,
    "color_jitter": NOT_NEGATIVE,
}
_DETECTION_RULES: dict[str, Rule] = {
    **dict.fromkeys(("fpn_width", "box_width", "mask_width", "proposals", "roi_samples", "detections"), WHOLE),
    "anchor_size": POSITIVE,
    "score_threshold": SHARE,
}
_SEGMENTATION_RULES: dict[str, Rule] = {
    "decoder_width": WHOLE,
    "dropout": SHARE,
    "auxiliary": NOT_NEGATIVE,
}


@dataclass(frozen=True, kw_only=True)
class View:
    """How an image and its annotation become an input of a dense network.

    Testing resizes the image so that its short side is `short`, or less where its long side would pass `long`. Training
    does so with a random size, crops at random and flips. Inputs are padded at right and bottom, with the mean colour,
    to the batch's largest, and to multiples of the coarsest stride.

    Attributes:
        jitter: `scale` multiplies the test size by a random factor (with a `crop` of the test size that is large-scale
            jittering, LSJ); `sides` draws the short side from a list (multi-scale training).
        short: Short side in testing, pixels.
        long: Largest long side in testing and with `sides`, pixels.
        scale: Smallest and largest factor of `scale`.
        sides: Short sides to draw from, pixels.
        crop: Height and width of the random crop; smaller images are padded to it. None for whole images.
        cat_max_ratio: Of class maps: a crop of which one class has a larger share is drawn again, up to ten times; None
            for the first crop.
        hflip: Probability of a horizontal flip.
        color_jitter: Strength of the jitter of brightness, contrast and saturation.

    Source: arXiv 2012.07177 (LSJ), arXiv 2310.19909 (both), mmsegmentation's RandomCrop.
    """

    jitter: Literal["scale", "sides"] = "scale"
    short: int = 1024
    long: int = 1024
    scale: tuple[float, float] = (0.1, 2.0)
    sides: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    crop: tuple[int, int] | None = (1024, 1024)
    cat_max_ratio: float | None = None
    hflip: float = 0.5
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        for name, rule in _VIEW_RULES.items():
            check("the view", name, getattr(self, name), rule)


@dataclass(frozen=True)
class DetectionRecipe(Recipe):
    """How a Cascade Mask R-CNN is trained, with boxes alone where the data have no masks.

    Attributes:
        view: Sizes and augmentation.
        fpn_width: Channels of every level of the feature pyramid.
        box_width: Width of the two hidden layers of each box head.
        mask_width: Channels of the mask head.
        anchor_size: Edge of an anchor on the level of stride 4, pixels; doubled from level to level.
        proposals: Regions kept for the heads, in training and testing.
        roi_samples: Regions of each image that the heads are trained on.
        detections: Most detections of an image.
        score_threshold: Detections below are dropped.

    Source: arXiv 1712.00726 (Cascade R-CNN), arXiv 2310.19909 (the recipe), bob-detection/configs.
    """

    augmentation: None = None  # the view's
    view: View = View()
    fpn_width: int = 256
    box_width: int = 1024
    mask_width: int = 256
    anchor_size: float = 32.0
    proposals: int = 1000
    roi_samples: int = 512
    detections: int = 100
    score_threshold: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, rule in _DETECTION_RULES.items():
            check(f"recipe '{self.name}'", name, getattr(self, name), rule)


@dataclass(frozen=True)
class SegmentationRecipe(Recipe):
    """How an UPerNet is trained.

    Attributes:
        view: Sizes and augmentation.
        decoder_width: Channels of the decoder.
        dropout: Before the last layer.
        auxiliary: Weight of the loss of a second head on stride 16; 0 for none.

    Source: arXiv 1807.10221 (UPerNet), mmsegmentation's configs/_base_/models/upernet_r50.py.
    """

    augmentation: None = None  # the view's
    view: View = View(short=512, long=2048, scale=(0.5, 2.0), crop=(512, 512), cat_max_ratio=0.75, color_jitter=0.4)
    decoder_width: int = 512
    dropout: float = 0.1
    auxiliary: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, rule in _SEGMENTATION_RULES.items():
            check(f"recipe '{self.name}'", name, getattr(self, name), rule)


# Fields that no dense network reads -> the one value that they may have.
_UNREAD: dict[str, Any] = {"loss": "cross_entropy", "head": "linear", "augmentation": None, "prior": None}


def require_read(recipe: Recipe, unread: Mapping[str, Any] | None = None) -> None:
    """Make sure that a recipe sets nothing that would do nothing.

    Args:
        recipe: Of the training.
        unread: Further fields that the engine does not read -> the value that they then must have.

    Raises:
        UserError: If it does.
    """
    for name, expected in {**_UNREAD, **(unread or {})}.items():
        value = getattr(recipe, name)
        if value != expected:
            said = "an augmentation" if name == "augmentation" else f"{name} = {value!r}"
            raise UserError(
                f"Recipe '{recipe.name}' has {said}, which training it here does not read.", f"Leave {name} out."
            )


# BoB's detectors: 36 epochs of AdamW with two steps down, one rate everywhere. Its plain ViTs train on LSJ crops of
# 1024 px, its others on several scales; here the task's card says which, for all. The batch is mmdet's 16.
BOB_DETECTION = DetectionRecipe(
    "bob_detection",
    lr=1e-4,
    layer_decay=None,
    epochs=36,
    schedule="multistep",
    milestones=(27 / 36, 33 / 36),
    warmup_epochs=0,
    warmup_steps=1000,
    warmup_lr=1e-7,
    batch_size=16,
    micro_batch=2,
)
# 160,000 updates of 16 crops are 127 epochs of ADE20K; polynomial decay (power 1) is mmsegmentation's.
UPERNET = SegmentationRecipe(
    "upernet",
    lr=1e-4,
    layer_decay=None,
    epochs=127,
    schedule="poly",
    warmup_epochs=0,
    warmup_steps=1500,
    warmup_lr=1e-7,
    min_lr=0.0,
    batch_size=16,
    micro_batch=4,
)
