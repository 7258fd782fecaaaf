"""Backbones from timm, with timm's weights or at random initialisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn

from bob.backbones.base import Backbone, LayerOutput
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard
from bob.errors import UserError, did_you_mean


class TimmBackbone(Backbone):
    """A timm model without its classifier."""

    model: Any  # timm's models have methods that nn.Module does not promise

    def layers(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> list[LayerOutput]:
        """See `Backbone.layers`; blocks as timm's `forward_intermediates` counts them, pooled by averaging the map."""
        self._require_intermediates()
        wanted = None if indices is None else list(indices)
        maps = self.model.forward_intermediates(images, indices=wanted, intermediates_only=True, output_fmt="NCHW")
        return [LayerOutput(pooled=map_.mean(dim=(2, 3)), map=map_) for map_ in maps]

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """See `Backbone.feature_maps`: the last map of each stride, finest first."""
        self._require_intermediates()
        indices = list(self._last_block_of_each_stride().values())
        return self.model.forward_intermediates(images, indices=indices, intermediates_only=True, output_fmt="NCHW")

    @property
    def strides(self) -> list[int]:
        """See `Backbone.strides`; a plain ViT has one, its patch size."""
        return list(self._last_block_of_each_stride())

    def _last_block_of_each_stride(self) -> dict[int, int]:
        blocks = getattr(self.model, "feature_info", None)
        if not blocks:
            raise self._lacks("feature maps", "Use a backbone whose timm model has `feature_info`.")
        return {int(block["reduction"]): index for index, block in enumerate(blocks)}

    def _require_intermediates(self) -> None:
        if not hasattr(self.model, "forward_intermediates"):
            raise self._lacks(
                "blocks to read one by one", "Use a backbone whose timm model has `forward_intermediates`."
            )


def load_timm(card: BackboneCard) -> Backbone:
    """Build the timm model that the card names.

    Raises:
        UserError: If timm has no such model or its weights cannot be had.
    """
    if card.weights.pretrained:
        model = _pretrained(card)
    else:
        # Forked so that building a baseline does not move the caller's random stream.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(card.weights.seed)
            model = create(card, pretrained=False)
    return wrap(card, model)


def create(card: BackboneCard, **options: Any) -> nn.Module:
    """`timm.create_model` without classifier and with the card's pooling.

    Raises:
        UserError: If timm has no such model.
    """
    name = card.weights.model
    if not is_timm_name(name):
        raise UserError(f"timm {timm.__version__} has no model '{name}'.", did_you_mean(name, timm_names()))
    if card.feature.pooling != "default":
        options["global_pool"] = card.feature.pooling
    return timm.create_model(name, num_classes=options.pop("num_classes", 0), **options)


def wrap(card: BackboneCard, model: Any) -> Backbone:
    """Give a classifier-free timm model the interface, with the preprocessing of its `pretrained_cfg`."""
    preprocess = Preprocess.from_timm(model.pretrained_cfg).overridden(card.preprocess)
    return TimmBackbone(card, model, preprocess, code={"timm": timm.__version__})


def is_timm_name(name: str) -> bool:
    """Whether timm knows the architecture and, if a tag is given, the tag."""
    architecture, _, tag = name.partition(".")
    return timm.is_model(architecture) and (not tag or name in timm_names())


def timm_names() -> list[str]:
    """Every timm model name, with and without tag."""
    return [*timm.list_models(), *timm.list_pretrained()]


def _pretrained(card: BackboneCard) -> nn.Module:
    """Build with timm's weights, through timm's own download and cache."""
    try:
        return create(card, pretrained=True)
    except (OSError, RuntimeError) as error:
        # urllib, huggingface_hub and requests all raise kinds of OSError; timm has RuntimeError for "no weights".
        if isinstance(error, RuntimeError) and "pretrained" not in str(error).lower():
            raise
        raise UserError(
            f"The weights of '{card.weights.model}' are not in the cache and cannot be downloaded "
            f"({type(error).__name__}).",
            _how_to_get(card.weights.model),
        ) from error


def _how_to_get(name: str) -> str:
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        return f"timm publishes none for it: give a file, `--backbone timm:{name}@WEIGHTS`, or use '{name}.random'."
    where = f"`hf download {config.hf_hub_id}`" if config.hf_hub_id else f"download {config.url}"
    return (
        f"On a machine with a network run {where} and copy the file here, then `--backbone timm:{name}@FILE`, "
        "or copy the cache folder ($HF_HOME)."
    )


def cached_weights(name: str) -> str:
    """Say in words whether timm's weights for a model are in the cache."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        return "timm publishes none"
    if config.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        files = ("model.safetensors", "pytorch_model.bin")
        found = [path for file in files if isinstance(path := try_to_load_from_cache(config.hf_hub_id, file), str)]
        return f"here, {found[0]}" if found else f"not here; downloaded from {config.hf_hub_id} when first used"
    return f"downloaded from {config.url} when first used"
