"""Backbones from timm, with timm's weights or at random initialisation."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from typing import Any

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HfHubHTTPError
from torch import nn

from bob.backbones.base import Backbone, LayerOutput
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard, Weights
from bob.errors import UserError, did_you_mean, first_line


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
    return wrap(card, _pretrained(card) if card.weights.pretrained else create(card, pretrained=False))


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
    """`timm.create_model` with the card's input size and pooling and, unless `num_classes` says so, no classifier.

    Raises:
        UserError: If timm has no such model, or the model cannot take that size or pooling.
    """
    name, size, pooling = card.weights.model, card.preprocess.size, card.feature.pooling
    if not is_timm_name(name):
        raise UserError(f"timm {timm.__version__} has no model '{name}'.", did_you_mean(name, timm_names()))
    config = timm.get_pretrained_cfg(name)
    # A position embedding is made for one size; timm resamples it for another.
    resampled: dict[str, Any] = {"img_size": size} if size and config and config.fixed_input_size else {}
    with _as_mistake_on(card, "preprocess.size", size) if resampled else contextlib.nullcontext():
        options: dict[str, Any] = {**card.weights.options, **resampled}
        model: Any = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **options)
    if pooling != "default":
        with _as_mistake_on(card, "feature.pooling", pooling):
            # Not an option of `create_model`, which may add layers that no checkpoint has trained.
            model.reset_classifier(num_classes, pooling)
    return model


@contextlib.contextmanager
def _as_mistake_on(card: BackboneCard, key: str, value: object) -> Iterator[None]:
    """Blame the card's key for what timm refuses in the block, unless it is the download."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _is_about_download(error):
            raise
        problem = f"timm's {card.weights.model} does not take {key} = {value!r} ({first_line(error)})."
        raise UserError(problem, f"Correct {key} on the card.") from error


def wrap(card: BackboneCard, model: Any) -> Backbone:
    """Give a classifier-free timm model the interface, with the preprocessing of its `pretrained_cfg`."""
    preprocess = Preprocess.from_timm(model.pretrained_cfg).overridden(card.preprocess)
    backbone = TimmBackbone(card, model, preprocess, code={"timm": timm.__version__})
    if size := card.preprocess.size:
        with _as_mistake_on(card, "preprocess.size", size):
            backbone.width()  # some models find out in their forward pass only
    return backbone


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
        _require_hub(card.weights.model)
        return create(card, pretrained=True)
    except Exception as error:
        if not _is_about_download(error):
            raise
        raise UserError(
            f"The weights of '{card.weights.model}' are not in the cache and cannot be downloaded "
            f"({first_line(error)}).",
            _how_to_get(card.weights.model),
        ) from error


def _require_hub(name: str) -> None:
    """Ask the hub once before a download: without a network its own retries take most of a minute."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or _in_hub_cache(config.hf_hub_id):
        return
    with contextlib.suppress(HfHubHTTPError):  # it has answered; what it lacks, the download says
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id, "config.json"), timeout=10)


def _is_about_download(error: Exception) -> bool:
    if isinstance(error, OSError):
        # urllib, requests and huggingface_hub raise kinds of OSError; a full disk is another matter.
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, RuntimeError):
        return "no pretrained weights" in str(error).lower()
    return type(error).__module__.startswith("httpx")


def _how_to_get(name: str) -> str:
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        return f"timm publishes none for it: give a file, `--backbone timm:{name}@WEIGHTS`, or use '{name}.random'."
    where = f"`hf download {config.hf_hub_id}`" if config.hf_hub_id else f"`curl -LO {config.url}`"
    return (
        f"On a machine with a network run {where} and copy the file here, then `--backbone timm:{name}@FILE`, "
        "or copy the cache folder ($HF_HOME)."
    )


def weights_status(weights: Weights) -> str:
    """Say in words whether timm's weights for a model are in the cache."""
    config = timm.get_pretrained_cfg(weights.model)
    if config is None or not (config.hf_hub_id or config.url):
        return "timm publishes none"
    if config.hf_hub_id:
        found = _in_hub_cache(config.hf_hub_id)
        return f"here, {found}" if found else f"not here; downloaded from {config.hf_hub_id} when first used"
    return f"downloaded from {config.url} when first used"


def _in_hub_cache(repository: str) -> str | None:
    """Path of the weights in huggingface_hub's cache, under one of the names that timm gives them."""
    found = [try_to_load_from_cache(repository, file) for file in ("model.safetensors", "pytorch_model.bin")]
    return next((path for path in found if isinstance(path, str)), None)
