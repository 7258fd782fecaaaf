"""From a name on the command line to a card, and from a card to a backbone with its weights."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from bob.cards import TWIN_SUFFIX, BackboneCard, Weights
from bob.catalogue import match_names
from bob.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from bob.backbones.base import Backbone

# Source -> module and function that open it; imported only when used.
_LOADERS = {
    "timm": ("bob.backbones.timm", "load_timm"),
    "open_clip": ("bob.backbones.open_clip", "load_open_clip"),
    "torchvision": ("bob.backbones.torchvision", "load_torchvision"),
    "transformers": ("bob.backbones.transformers", "load_transformers"),
    "diffusers": ("bob.backbones.diffusers", "load_diffusers"),
    "checkpoint": ("bob.backbones.checkpoint", "load_checkpoint"),
    "custom": ("bob.backbones.custom", "load_custom"),
    "pixels": ("bob.backbones.baselines", "load_pixels"),
    "constant": ("bob.backbones.baselines", "load_constant"),
}
# Prefix of a name without card -> module whose `card_for` makes one of what follows the colon.
_PREFIXES = {
    "timm": "bob.backbones.timm",
    "open_clip": "bob.backbones.open_clip",
    "torchvision": "bob.backbones.torchvision",
    "hf": "bob.backbones.transformers",
}


def open_backbone(card: BackboneCard) -> Backbone:
    """Load a card's weights and give them the interface; the caller's random stream stays where it is.

    Raises:
        UserError: If the weights cannot be had or do not fit.
    """
    import torch

    module, function = _LOADERS[card.weights.source]
    load = getattr(importlib.import_module(module), function)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(card.weights.seed)
        return load(card)


def resolve_backbones(specs: Iterable[str], cards: Mapping[str, BackboneCard]) -> list[BackboneCard]:
    """Return the cards meant by names, globs and specs, in order and without repeats.

    A glob matches a random twin only if it says so (`*.random`), as a shell's `*` matches no dotfile.

    Raises:
        UserError: If a name is unknown; suggests close ones.
    """
    twins = [f"{name}{TWIN_SUFFIX}" for name, card in cards.items() if card.has_random_twin]
    names = []
    for spec in specs:
        names += match_names([spec], [*cards, *twins] if TWIN_SUFFIX in spec else cards)
    return [resolve_backbone(name, cards) for name in dict.fromkeys(names)]


def resolve_backbone(spec: str, cards: Mapping[str, BackboneCard]) -> BackboneCard:
    """Return the card for one name: a card, its random twin, a bare timm name, or a spec.

    Specs are `timm:NAME[@FILE]`, `open_clip:ARCH[/TAG][@FILE]`, `torchvision:NAME[/WEIGHTS]`,
    `hf:REPOSITORY[@REVISION]`, `file.py:make` and `package.module:make`.

    Raises:
        UserError: If the name is unknown; suggests close ones.
    """
    if spec in cards:
        return cards[spec]
    if spec.endswith(TWIN_SUFFIX):
        return _twinned(spec, cards).random_twin()
    prefix, _, rest = spec.partition(":")
    if prefix in _PREFIXES and rest:
        card = importlib.import_module(_PREFIXES[prefix]).card_for(rest)
        # A card may have the name of another checkpoint.
        return card.model_copy(update={"name": spec}) if card.name in cards else card
    from bob.backbones.custom import is_custom

    if is_custom(spec):
        card = BackboneCard(name="custom", weights=Weights(source="custom", model=spec), method="custom")
        return card.model_copy(update={"name": spec})  # a path may hold characters that a card's name may not
    if spec.endswith(".py"):
        raise UserError(f"'{spec}' names a file but no function.", f"Name its function too, as in `{spec}:make`.")
    from bob.backbones.timm import card_for, is_timm_name, timm_names

    if is_timm_name(spec):
        return card_for(spec)
    hint = did_you_mean(spec, [*cards, *timm_names()])
    raise UserError(f"Unknown backbone '{spec}'.", hint or "See `bob list backbones` and `bob run --help`.")


def _twinned(spec: str, cards: Mapping[str, BackboneCard]) -> BackboneCard:
    card = resolve_backbone(spec.removesuffix(TWIN_SUFFIX), cards)
    if not card.has_random_twin:
        raise UserError(f"'{card.name}' has no architecture to initialise at random.", f"Use '{card.name}' itself.")
    return card


def weights_status(card: BackboneCard) -> str:
    """Say in words whether the weights are on this machine, and if not how they get here."""
    if card.weights.source in ("custom", "pixels", "constant") or not card.weights.pretrained:
        return "none needed"
    module, _ = _LOADERS[card.weights.source]
    return importlib.import_module(module).weights_status(card.weights)
