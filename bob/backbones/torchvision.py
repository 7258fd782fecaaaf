"""Backbones from torchvision's image classification models, with torchvision's weights or at random initialisation."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from huggingface_hub import constants as hub
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torchvision.models import WeightsEnum, get_model_builder, get_model_weights, list_models
from torchvision.models.vision_transformer import interpolate_embeddings
from torchvision.transforms.v2 import InterpolationMode

from bob.backbones.base import Backbone, as_mistake_on
from bob.backbones.checkpoint import read_tensors
from bob.backbones.download import torch_hub_file
from bob.backbones.hooks import HookedBackbone
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard, Weights
from bob.errors import UserError, did_you_mean, first_line

_TIMEOUT = 15.0  # seconds without an answer or a byte
_INTERPOLATIONS = {
    InterpolationMode.NEAREST_EXACT: "nearest",
    InterpolationMode.BILINEAR: "bilinear",
    InterpolationMode.BICUBIC: "bicubic",
}
# Arguments of torchvision's builders that the card says elsewhere, or that make no feature extractor.
_NO_OPTIONS = {
    "weights": "Write weights.model as NAME/WEIGHTS.",
    "progress": "Leave it out.",
    "num_classes": "Leave it out: the classifier is removed.",
    "aux_logits": "Leave it out: the classifiers are removed.",
    "init_weights": "Leave it out.",
    "image_size": "Write it as preprocess.size.",
    "input_size": "Write it as preprocess.size.",
}
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# `denselayer1.norm.1.weight` in DenseNet's files, from when module names might hold a dot.
_OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def load_torchvision(card: BackboneCard) -> Backbone:
    """Build the torchvision model that the card names, without its last layer: the feature is what that layer saw.

    Raises:
        UserError: If torchvision has no such model or weights, they cannot be had, or the model does not take what the
            card asks of it.
    """
    entry = _entry(card.weights.model)
    card = _exact(card, entry)
    if card.feature.pooling != "default":
        raise UserError(
            f"Backbone '{card.name}': torchvision's models have the pooling of their own only, "
            f"but feature.pooling is '{card.feature.pooling}'.",
            "Leave it out, or use a timm model.",
        )
    preprocess = _preprocess(entry).overridden(card.preprocess)
    model = _build(card, preprocess.size)
    if card.weights.pretrained:
        _load(model, entry, card)
    _cut_classifier(model)
    backbone = HookedBackbone(card, model, preprocess, code={"torchvision": torchvision.__version__})
    if size := card.preprocess.size:
        with as_mistake_on(card, "torchvision", {"preprocess.size": size}):
            backbone.width()  # some models find out in their forward pass only
    return backbone


def card_for(spec: str) -> BackboneCard:
    """A card for a torchvision model without one: NAME/WEIGHTS, or NAME for torchvision's default weights.

    Raises:
        UserError: If torchvision has no such classification model or weights.
    """
    name, entry = spec.partition("/")[0], _entry(spec)
    weights = Weights(source="torchvision", model=f"{name}/{entry.name}")
    return BackboneCard(name=f"torchvision:{weights.model}", weights=weights, architecture=name)


def weights_status(weights: Weights) -> str:
    """Say in words whether the weights are in torch.hub's cache, and if not how they get here."""
    entry = _entry(weights.model)
    path = torch_hub_file(entry.url)
    return f"here, {path}" if path.is_file() else f"not here; downloaded from {entry.url} when first used"


# Names.


@functools.cache
def _classifiers() -> tuple[str, ...]:
    """Every model that classifies images; quantised ones, detectors and the like lie in modules of their own."""
    return tuple(list_models(module=torchvision.models))


def _entry(spec: str) -> WeightsEnum:
    """The weights that NAME/WEIGHTS or NAME stands for."""
    name, _, weights = spec.partition("/")
    if name not in _classifiers():
        if name in list_models():
            raise UserError(f"torchvision's '{name}' is no image classification model.", "Use one that is.")
        raise UserError(
            f"torchvision {torchvision.__version__} has no model '{name}'.", did_you_mean(name, _classifiers())
        )
    entries = get_model_weights(name).__members__
    if weights and weights not in entries:
        known = ", ".join(entry.name for entry in get_model_weights(name))
        raise UserError(f"torchvision's {name} has no weights '{weights}'.", f"It has: {known}.")
    entry = entries[weights or "DEFAULT"]
    if entry.meta["categories"] is None:
        raise UserError(
            f"torchvision's {name}/{entry.name} has no weights between its maps and its classifier.",
            f"Use {name}/{entries['DEFAULT'].name}.",
        )
    return entry


def _exact(card: BackboneCard, entry: WeightsEnum) -> BackboneCard:
    """The card with the weights spelt out, as torchvision's default is another one in another version."""
    model = f"{card.weights.model.partition('/')[0]}/{entry.name}"
    if model == card.weights.model:
        return card
    return card.model_copy(update={"weights": card.weights.model_copy(update={"model": model})})


# Preprocessing.


def _preprocess(entry: WeightsEnum) -> Preprocess:
    """What `entry.transforms()` does."""
    preset = entry.transforms()
    (resized,), (size,) = preset.resize_size, preset.crop_size
    return Preprocess(
        size=(size, size),
        crop_fraction=_crop_fraction(size, resized),
        interpolation=_INTERPOLATIONS[preset.interpolation],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _crop_fraction(size: int, resized: int) -> float:
    """Share of the crop, or the next smaller number if dividing by it falls short of `resized` by rounding."""
    fraction = size / resized
    return fraction if math.floor(size / fraction) == resized else math.nextafter(fraction, 0)


# The model.


def _build(card: BackboneCard, size: tuple[int, int]) -> nn.Module:
    """The architecture for images of this size, whole."""
    name = card.weights.model.partition("/")[0]
    for key in card.weights.options:
        if key in _NO_OPTIONS:
            raise UserError(f"Backbone '{card.name}': '{key}' has no place in weights.options.", _NO_OPTIONS[key])
    arguments = _arguments(card, name, size) | dict(card.weights.options)
    asked = {"weights.options": card.weights.options, "preprocess.size": card.preprocess.size}
    with as_mistake_on(card, "torchvision", asked):
        if torch.get_default_device().type == "meta":
            with _meta_parameters():
                return get_model_builder(name)(**arguments).to("meta")
        return get_model_builder(name)(**arguments)


def _arguments(card: BackboneCard, name: str, size: tuple[int, int]) -> dict[str, Any]:
    """What torchvision itself passes on for its weights, and the input size where it is part of the model."""
    if name in ("googlenet", "inception_v3"):
        # Its weights saw other means than the preset's; its initialisation is slow, and warns unless asked for.
        return {"transform_input": True, "aux_logits": False, "init_weights": not card.weights.pretrained}
    if name.startswith("vit_"):
        if size[0] != size[1]:
            raise UserError(f"torchvision's {name} takes square images, not preprocess.size = {size}.", "Correct it.")
        return {"image_size": size[0]}
    return {"input_size": size} if name.startswith("maxvit_") else {}


@contextlib.contextmanager
def _meta_parameters() -> Iterator[None]:
    """Parameters without memory, but numbers for what a builder calculates (RegNet's widths)."""

    def on_meta(_module: nn.Module, _name: str, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(on_meta)  # type: ignore[arg-type]
    try:
        with torch.device("cpu"):
            yield
    finally:
        hook.remove()


def _cut_classifier(model: nn.Module) -> None:
    """Put nothing in the place of the last linear layer, or in SqueezeNet of the last convolution."""
    name = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())


# The weights.


def _load(model: nn.Module, entry: WeightsEnum, card: BackboneCard) -> None:
    """Read the file into the whole model, as torchvision does, but weights-only."""
    path = _located(entry, card.weights.sha256)
    state: Any = read_tensors(path)  # changed in place: it carries versions (`_metadata`) that modules go by
    for key in list(state):
        tensor = state.pop(key)
        if not key.startswith(_AUXILIARY):
            state[_OLD_DENSENET_KEY.sub(r"\1\2", key)] = tensor
    try:
        if "encoder.pos_embedding" in state:
            state = interpolate_embeddings(model.image_size, model.patch_size, state)
        model.load_state_dict(state, strict=True)
    except Exception as error:
        reason = " ".join(str(error).split("\n\t", 2)[-1].split())[:300].rstrip(".")
        raise UserError(
            f"{path} does not fit torchvision's {card.weights.model}: {reason}.",
            "Get the file again, or correct weights.options on the card.",
        ) from error


def _located(entry: WeightsEnum, sha256: str | None) -> Path:
    """The cached file, downloaded if need be, with the card's checksum or the one that torchvision's names begin."""
    path = torch_hub_file(entry.url)
    named = torch.hub.HASH_REGEX.search(path.name)
    expected = sha256 or (named[1] if named else "")
    if not path.is_file():
        _download(entry, path, expected)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected):
        raise UserError(
            f"{path} has SHA-256 {found[:12]}..., but that of torchvision's file begins with {expected[:12]}.",
            f"Remove it, and get {entry.url} again.",
        )
    return path


def _download(entry: WeightsEnum, path: Path, sha256: str) -> None:
    if hub.HF_HUB_OFFLINE:
        raise _cannot(entry, path, "HF_HUB_OFFLINE is set")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)  # torch.hub sets none, and would wait for minutes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(entry.url, str(path), hash_prefix=sha256 or None, progress=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the file that came has another checksum
        raise _cannot(entry, path, str(getattr(error, "reason", None) or first_line(error))) from error
    finally:
        socket.setdefaulttimeout(before)


def _cannot(entry: WeightsEnum, path: Path, reason: str) -> UserError:
    return UserError(
        f"Cannot download {entry.url} ({' '.join(reason.split()).rstrip('.')}).",
        f"On a machine with a network run `curl -LO {entry.url}`, and put the file here as {path}.",
    )
