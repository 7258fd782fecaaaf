"""Backbones from timm, with timm's weights or at random initialisation."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import nn

from bob.backbones.base import Backbone, LayerOutput, as_mistake_on
from bob.backbones.descriptor import add_descriptor
from bob.backbones.preprocess import Preprocess
from bob.backbones.timm_hub import download_of, is_about_download, weights_status
from bob.cards import BackboneCard, Weights
from bob.errors import UserError, did_you_mean

__all__ = ["TimmBackbone", "card_for", "create", "is_timm_name", "load_timm", "timm_names", "weights_status", "wrap"]

# Arguments of `timm.create_model` that a card says elsewhere, or that would make another thing than a backbone.
_NO_OPTIONS = {
    "img_size": "Say it as preprocess.size.",
    "num_classes": "A backbone has no classifier; leave it out.",
    "pretrained": "Say it as weights.pretrained.",
    "checkpoint_path": "Use the source 'checkpoint' and weights.file.",
    "in_chans": "Images have three channels; leave it out.",
    "features_only": "A backbone gives its feature maps without it; leave it out.",
}


class TimmBackbone(Backbone):
    """A timm model without its classifier."""

    model: Any  # timm's models have methods that nn.Module does not promise
    _one_pass: bool | None = None

    def layers(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> list[LayerOutput]:
        """See `Backbone.layers`; blocks as timm's `forward_intermediates` counts them, before the final norm.

        `pooled` is the block's class token where the model's own feature is its class token (as DINO reads a ViT's
        blocks), its maximum where that is how the card pools, and otherwise the mean over the map's positions: also
        for attention pooling, trained for the last block alone, and where a class token joins late (CaiT, XCiT) or
        timm does not hand it out (MViTv2). Register tokens are never part of it.

        Raises:
            UserError: If the model has no blocks to read, or none at such an index.
        """
        wanted = self._checked(indices)
        if self._hands_out_class_tokens():
            return self._pooled(self._intermediates(images, wanted, return_prefix_tokens=True))
        return self._pooled(self._maps(images, wanted))

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, list[LayerOutput]]:
        """See `Backbone.read`; one pass for the models whose head follows on `forward_intermediates`."""
        if self._one_pass is None:
            self._one_pass = hasattr(self.model, "forward_intermediates") and self._head_follows()
        return self._read_at_once(images) if self._one_pass else super().read(images)

    def _read_at_once(self, images: torch.Tensor) -> tuple[torch.Tensor, list[LayerOutput]]:
        tokens = {"return_prefix_tokens": True} if self._hands_out_class_tokens() else {}
        final, found = self.model.forward_intermediates(images, output_fmt="NCHW", **tokens)
        feature = self.model.forward_head(final)
        return feature.mean(dim=(2, 3)) if feature.ndim == 4 else feature, self._pooled(found)

    def _head_follows(self) -> bool:
        """Whether reading blocks and feature at once gives this model's feature; tried on noise."""
        noise = torch.rand(1, 3, *self.preprocess.size, generator=torch.Generator().manual_seed(0)).to(self.device)
        try:
            return torch.allclose(self._read_at_once(noise)[0], self.embed(noise), rtol=1e-3, atol=1e-5)
        except Exception:  # whatever a model raises that was not made for it: two passes will do
            return False

    def _pooled(self, found: Sequence[Any]) -> list[LayerOutput]:
        """From maps, or pairs of map and prefix tokens."""
        if found and isinstance(found[0], tuple):
            return [LayerOutput(pooled=prefix[:, 0], map=map_) for map_, prefix in found]
        maximum = self.card.feature.pooling == "max"
        return [LayerOutput(pooled=m.amax((2, 3)) if maximum else m.mean((2, 3)), map=m) for m in found]

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """See `Backbone.feature_maps`: the map of the last block of each stride, before the final norm, finest first.

        Where a stride does not divide the input, the map is as large as the model's own padding makes it.
        """
        return self._maps(images, list(self._last_block_of_each_stride().values()))

    @property
    def strides(self) -> list[int]:
        """See `Backbone.strides`; a plain ViT has one, its patch size."""
        return list(self._last_block_of_each_stride())

    def _last_block_of_each_stride(self) -> dict[int, int]:
        # timm itself holds that `reduction` never falls from block to block. A block without a module is none that
        # timm would hand out as a map: TResNet's stem, whose stride is another than `reduction` says.
        return {int(block["reduction"]): index for index, block in enumerate(self._blocks()) if block["module"]}

    def _blocks(self) -> list[dict[str, Any]]:
        """What timm calls `feature_info`: `reduction`, `num_chs` and `module` of each block."""
        blocks = getattr(self.model, "feature_info", None)
        if not blocks:
            raise self._lacks("feature maps", "Use a backbone whose timm model has `feature_info`.")
        return list(blocks)

    def _checked(self, indices: Sequence[int] | None) -> list[int] | None:
        if indices is None:
            return None
        count = len(self._blocks())
        if wrong := [index for index in indices if not -count <= index < count]:
            raise UserError(
                f"Backbone '{self.card.name}' has no block {wrong[0]}: timm counts {count}, from 0 to {count - 1}.",
                "Ask for one of those.",
            )
        return list(indices)

    def _hands_out_class_tokens(self) -> bool:
        if getattr(self.model, "global_pool", None) != "token" or not getattr(self.model, "num_prefix_tokens", 0):
            return False
        forward = getattr(self.model, "forward_intermediates", None)
        return forward is not None and "return_prefix_tokens" in inspect.signature(forward).parameters

    def _maps(self, images: torch.Tensor, indices: list[int] | None) -> list[torch.Tensor]:
        if hasattr(self.model, "forward_intermediates"):
            return self._intermediates(images, indices)
        return self._hooked(images, indices)

    def _intermediates(self, images: torch.Tensor, indices: list[int] | None, **extra: bool) -> list[Any]:
        return self.model.forward_intermediates(
            images, indices=indices, intermediates_only=True, output_fmt="NCHW", **extra
        )

    def _hooked(self, images: torch.Tensor, indices: list[int] | None) -> list[torch.Tensor]:
        """Maps of a model without `forward_intermediates`, at the modules that its `feature_info` names.

        The points where timm's own FeatureHookNet reads, but on this very module, whose weights are here once only.
        """
        blocks = self._blocks()
        wanted = sorted({range(len(blocks))[i] for i in (range(len(blocks)) if indices is None else indices)})
        found: dict[int, Any] = {}
        with contextlib.ExitStack() as hooks:
            for index in wanted:
                hooks.callback(_listen(self.model, blocks[index], index, found).remove)
            self.model(images)
        if any(not isinstance(found.get(index), torch.Tensor) or found[index].ndim != 4 for index in wanted):
            raise self._lacks("feature maps", "Use a backbone whose timm model has `forward_intermediates`.")
        return [found[index] for index in wanted]


def _listen(model: nn.Module, block: dict[str, Any], index: int, found: dict[int, Any]) -> Any:
    """Keep in `found[index]` what comes out of the block's module, or goes into it if timm says so."""

    def keep(*arguments: Any) -> None:
        last = arguments[-1]  # the output of a forward hook; the tuple of inputs of a pre-hook
        found[index] = last[0] if isinstance(last, tuple) else last

    module = model.get_submodule(block["module"])
    before = block.get("hook_type") == "forward_pre"
    return module.register_forward_pre_hook(keep) if before else module.register_forward_hook(keep)


def load_timm(card: BackboneCard) -> Backbone:
    """Build the timm model that the card names.

    Raises:
        UserError: If timm has no such model, its weights cannot be had, or it does not take the card's options.
    """
    with download_of(card.weights.model) if card.weights.pretrained else contextlib.nullcontext():
        model = create(card, pretrained=card.weights.pretrained)
    return wrap(card, model)


def card_for(spec: str) -> BackboneCard:
    """A card for a timm model without one; `NAME@FILE` takes its weights from a file.

    Raises:
        UserError: If timm has no such model.
    """
    name, _, file = spec.partition("@")
    if not is_timm_name(name):
        raise UserError(f"timm has no model '{name}'.", did_you_mean(name, timm_names()))
    weights = Weights(source="checkpoint" if file else "timm", model=name, file=file or None)
    card = BackboneCard(name=name, weights=weights, architecture=name.partition(".")[0])
    return card.model_copy(update={"name": spec})  # a path may hold characters that a card's name may not


def create(card: BackboneCard, pretrained: bool, num_classes: int = 0) -> nn.Module:
    """`timm.create_model` with the card's options, input size and pooling, and no classifier unless asked for.

    Raises:
        UserError: If timm has no such model, or the model cannot take those options, that size or that pooling.
    """
    name, pooling = card.weights.model, card.feature.pooling
    if not is_timm_name(name):
        raise UserError(f"timm {timm.__version__} has no model '{name}'.", did_you_mean(name, timm_names()))
    options, size = _options(card), _resampled_size(card)
    with _as_mistake_on(card, {"weights.options": options, "preprocess.size": size}):
        wanted = {**options, "img_size": size} if size else options
        model: Any = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **wanted)
    if card.feature.layer == "descriptor":
        with _as_mistake_on(card, {"feature.layer": "descriptor"}):
            add_descriptor(model, card.feature.width or 0)
    if pooling != "default":
        with _as_mistake_on(card, {"feature.pooling": pooling}):
            # Not an option of `create_model`, which may add layers that no checkpoint has trained.
            model.reset_classifier(num_classes, pooling)
    return model


def _options(card: BackboneCard) -> dict[str, Any]:
    for key in card.weights.options:
        if key in _NO_OPTIONS:
            raise UserError(f"Backbone '{card.name}': '{key}' has no place in weights.options.", _NO_OPTIONS[key])
    return dict(card.weights.options)


def _resampled_size(card: BackboneCard) -> tuple[int, int] | None:
    """The card's input size if timm must resample what the model holds for one size, such as position embeddings.

    All models that timm marks with `fixed_input_size` take `img_size`; the others mind no size, and few take it.
    """
    config = timm.get_pretrained_cfg(card.weights.model)
    return card.preprocess.size if config and config.fixed_input_size else None


def _as_mistake_on(card: BackboneCard, asked: Mapping[str, object]) -> contextlib.AbstractContextManager[None]:
    """See `as_mistake_on`; the download and the disk are not the card's mistake."""
    return as_mistake_on(card, "timm", asked, lambda error: isinstance(error, OSError) or is_about_download(error))


def wrap(card: BackboneCard, model: Any) -> Backbone:
    """Give a classifier-free timm model the interface, with the preprocessing of its `pretrained_cfg`.

    Raises:
        UserError: If the model cannot take images of the card's size.
    """
    preprocess = Preprocess.from_timm(model.pretrained_cfg).overridden(card.preprocess)
    backbone = TimmBackbone(card, model, preprocess, code={"timm": timm.__version__})
    if size := card.preprocess.size:
        with _as_mistake_on(card, {"preprocess.size": size}):
            backbone.width()  # some models find out in their forward pass only
    return backbone


def is_timm_name(name: str) -> bool:
    """Whether timm knows the architecture and, if a tag is given, the tag."""
    architecture, _, tag = name.partition(".")
    return timm.is_model(architecture) and (not tag or name in timm_names())


def timm_names() -> list[str]:
    """Every timm model name, with and without tag."""
    return [*timm.list_models(), *timm.list_pretrained()]
