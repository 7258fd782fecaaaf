"""A user's own backbone: any callable, in a file or an importable module, that returns an `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.hooks import HookedBackbone
from bob.backbones.preprocess import Preprocess
from bob.backbones.user_code import import_user_module, run_user_code, source_sha256
from bob.cards import BackboneCard
from bob.errors import UserError, did_you_mean


def load_custom(card: BackboneCard) -> Backbone:
    """Call `file.py:make` or `package.module:make` with the card's options and give what it returns the interface.

    The module may carry `preprocess` (a `bob.backbones.preprocess.Preprocess`) or a timm `pretrained_cfg`; without
    either it gets 224 px, bicubic, crop 0.875 and ImageNet's mean and standard deviation. Its blocks and maps are read
    by timm's methods if it is a timm model, by its own if it is a `Backbone`, and else by hooks.

    Raises:
        UserError: If the code cannot be imported or called, does not return an `nn.Module`, or gives no features.
    """
    spec = card.weights.model
    where, _, name = spec.rpartition(":")
    module = import_user_module(where)
    make = _attribute(module, name, where)
    backbone = _backbone(card, run_user_code(spec, lambda: make(**card.weights.options)), module)
    # One black image now: an error in `forward` is as much the user's as one in `make`.
    run_user_code(spec, backbone.width)
    return backbone


def is_custom(spec: str) -> bool:
    """Whether a name on the command line has the form `file.py:make` or `package.module:make`."""
    where, _, name = spec.rpartition(":")
    return name.isidentifier() and (where.endswith(".py") or all(part.isidentifier() for part in where.split(".")))


def _attribute(module: ModuleType, name: str, where: str) -> Callable[..., object]:
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{where} has no function '{name}'.", did_you_mean(name, known) or "Define it.")
    return found


def _backbone(card: BackboneCard, model: object, module: ModuleType) -> Backbone:
    if not isinstance(model, nn.Module):
        raise UserError(
            f"{card.weights.model}: expected a torch.nn.Module, but got a value of type {type(model).__name__}.",
            "Return the module.",
        )
    code = {"source_sha256": source_sha256(module)}
    if not isinstance(model, Backbone):
        return _interface(model)(card, model, _preprocess(model).overridden(card.preprocess), code)
    # One that brings its own methods; name, identity and overrides are still those of the card that was asked for.
    model.card, model.code = card, {**model.code, **code}
    model.preprocess = model.preprocess.overridden(card.preprocess)
    return model.eval()


def _interface(model: nn.Module) -> type[Backbone]:
    if not (hasattr(model, "forward_intermediates") and getattr(model, "feature_info", None)):
        return HookedBackbone
    from bob.backbones.timm import TimmBackbone

    return TimmBackbone


def _preprocess(model: nn.Module) -> Preprocess:
    own = getattr(model, "preprocess", None)
    if isinstance(own, Preprocess):
        return own
    config = getattr(model, "pretrained_cfg", None)
    return Preprocess.from_timm(config) if isinstance(config, dict) else Preprocess()
