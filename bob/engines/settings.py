"""A user's settings, as text, put into a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from bob.engines.recipe import Augmentation, Recipe
from bob.errors import UserError, did_you_mean

_NONE = ("none", "null")
_FIXED = {"name", "loss"}  # these make another protocol


def overridden(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """Return the recipe with some of its fields, or of its augmentation's, set from text such as `epochs` = `10`.

    `none` stands for None, and several numbers are parted by `/`. With fewer epochs than the warm-up has there is none;
    with a prior, which is what regularises then, there is no weight decay. Either can be set, too.

    Raises:
        UserError: If the recipe has no such field, or it does not take the value.
    """
    own, augmentation = _names(Recipe) - _FIXED, _names(Augmentation)
    for key in settings:
        if key not in own | augmentation:
            hint = did_you_mean(key, [*own, *augmentation]) or f"Use one of {', '.join(sorted(own | augmentation))}."
            raise UserError(f"A training recipe has no setting '{key}'.", hint)
    changes: dict[str, Any] = {key: _value(key, text) for key, text in settings.items() if key in own}
    augmented = {key: _value(key, text) for key, text in settings.items() if key in augmentation}
    if augmented:
        changes["augmentation"] = replace(recipe.augmentation or Augmentation(), **augmented)
    epochs = changes.get("epochs", recipe.epochs)
    if isinstance(epochs, int) and 0 < epochs <= recipe.warmup_epochs:
        changes.setdefault("warmup_epochs", 0)
    if changes.get("prior"):
        changes.setdefault("weight_decay", 0.0)
    return replace(recipe, **changes)


def number(key: str, text: str) -> float:
    """Read a number.

    Raises:
        UserError: If it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--set {key}={text}: '{text}' is no number.", f"Give a number, as {key}=0.1.") from None


def _names(kind: type[Recipe] | type[Augmentation]) -> set[str]:
    return {one.name for one in fields(kind)}


def _value(key: str, text: str) -> Any:
    """The text as what the field wants; the recipe's own rules check the range."""
    if text.lower() in _NONE:
        return None
    kinds = {one.name: str(one.type) for kind in (Recipe, Augmentation) for one in fields(kind)}
    if "tuple" in kinds[key]:
        return tuple(number(key, part) for part in text.split("/"))
    if "int" in kinds[key]:
        value = number(key, text)
        return int(value) if value.is_integer() else value
    return number(key, text) if "float" in kinds[key] else text
