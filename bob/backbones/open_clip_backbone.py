"""A vision-language backbone of open_clip: image tower, text tower, tokenizer and logit scale."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import open_clip
import timm
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

from bob.backbones import open_clip_weights as where
from bob.backbones.base import LayerOutput
from bob.backbones.preprocess import Preprocess
from bob.backbones.text_tower import TextTower
from bob.backbones.timm import TimmBackbone
from bob.cards import BackboneCard
from bob.errors import UserError

# open_clip's words for how an image becomes square -> those of `Preprocess`. None of its checkpoints uses `longest`,
# whose padding is black where `border` pads with the mean.
_CROP_MODES = {"shortest": "center", "squash": "squash"}


class OpenClipBackbone(TextTower):
    """An open_clip model; its image tower is what is counted, hashed and embedded, its text tower stays beside it.

    Args:
        card: Which checkpoint this is.
        clip: The whole model.
    """

    image_parts = ("visual.",)
    model: Any  # each of open_clip's towers has attributes of its own
    _trunk: TimmBackbone | None

    def __init__(self, card: BackboneCard, clip: Any) -> None:
        code = {"open_clip": open_clip.__version__}
        if isinstance(clip.visual, TimmModel):
            code["timm"] = timm.__version__
        super().__init__(card, clip.visual, _preprocess(clip).overridden(card.preprocess), code)
        self.dual = clip.eval()
        # Not a submodule: the trunk is one already, as part of the tower.
        trunk = TimmBackbone(card, clip.visual.trunk, self.preprocess, code) if "timm" in code else None
        self.__dict__["_trunk"] = trunk

    def layers(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> list[LayerOutput]:
        """See `Backbone.layers`; blocks as `forward_intermediates` counts them, before the final norm.

        `pooled` is the block's class token where the tower's own feature is its class token, otherwise the mean over
        the map's positions. Block 0 of a ResNet is its stem.

        Raises:
            UserError: If there is no block at such an index.
        """
        if self._trunk is not None:
            return self._trunk.layers(images, indices)
        output = self._intermediates(images, self._checked(indices), output_extra_tokens=True)
        maps = output["image_intermediates"]
        if self._ends_in_class_token():
            pooled = [prefix[:, 0] for prefix in output["image_intermediates_prefix"]]
        else:
            pooled = [map_.mean(dim=(2, 3)) for map_ in maps]
        return [LayerOutput(pooled=vector, map=map_) for vector, map_ in zip(pooled, maps, strict=True)]

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """See `Backbone.feature_maps`: the map of the last block of each stride, before the final norm."""
        if self._trunk is not None:
            return self._trunk.feature_maps(images)
        return self._intermediates(images, list(self._last_block_of_each_stride().values()))["image_intermediates"]

    @property
    def strides(self) -> list[int]:
        """See `Backbone.strides`; a plain ViT has one, its patch size."""
        return self._trunk.strides if self._trunk is not None else list(self._last_block_of_each_stride())

    @cached_property
    def tokenizer(self) -> Any:
        """Maps a list of strings to tokens (N, L).

        Raises:
            UserError: If its files are neither here nor reachable.
        """
        architecture, _ = where.split(self.card.weights)
        length = self.card.weights.options.get("force_context_length")
        with where.quietly():
            return where.open_tokenizer(architecture, int(length) if length else None)

    def tokenizer_identity(self) -> dict[str, Any]:
        """See `TextTower.tokenizer_identity`."""
        return where.tokenizer_identity(self.tokenizer)

    def _encode(self, prompts: list[str]) -> torch.Tensor:
        return self.dual.encode_text(self.tokenizer(prompts).to(self.device), normalize=False)

    def _intermediates(self, images: torch.Tensor, indices: list[int] | None, **extra: bool) -> dict[str, Any]:
        return self.model.forward_intermediates(
            images, indices=indices, intermediates_only=True, output_fmt="NCHW", **extra
        )

    def _last_block_of_each_stride(self) -> dict[int, int]:
        if isinstance(self.model, ModifiedResNet):
            return {4: 1, 8: 2, 16: 3, 32: 4}
        return {self.model.patch_size[0]: len(self.model.transformer.resblocks) - 1}

    def _ends_in_class_token(self) -> bool:
        tower = self.model
        return isinstance(tower, VisionTransformer) and tower.attn_pool is None and tower.pool_type == "tok"

    def _checked(self, indices: Sequence[int] | None) -> list[int] | None:
        count = 1 + max(self._last_block_of_each_stride().values())
        if wrong := [index for index in indices or () if not -count <= index < count]:
            raise UserError(
                f"Backbone '{self.card.name}' has no block {wrong[0]}: "
                f"open_clip counts {count}, from 0 to {count - 1}.",
                "Ask for one of those.",
            )
        return None if indices is None else list(indices)


def _preprocess(clip: Any) -> Preprocess:
    """What open_clip's `image_transform_v2` does for evaluation, without cropping away a margin."""
    config = open_clip.get_model_preprocess_cfg(clip)
    mode, size = config.get("resize_mode", "shortest"), config["size"]
    if mode not in _CROP_MODES:
        raise UserError(f"open_clip's resize mode '{mode}' is not supported.", f"Use one of {', '.join(_CROP_MODES)}.")
    return Preprocess(
        size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        crop_fraction=1.0,
        crop_mode=_CROP_MODES[mode],
        interpolation=config.get("interpolation", "bicubic"),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
