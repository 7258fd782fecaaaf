"""A user's settings, as text, put into a recipe."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from bob.engines.dense_recipe import View
from bob.engines.recipe import Augmentation, Recipe
from bob.errors import UserError, did_you_mean

_NONE = ("none", "null")
_FIXED = {"name", "loss"}  # these make another protocol


R = TypeVar("R", bound=Recipe)


def overridden(recipe: R, settings: Mapping[str, str]) -> R:
    """Return the recipe with some of its fields set from text such as `epochs` = `10`.

    Fields of a classifier's augmentation, or of a dense network's view, count as the recipe's. `none` stands for None,
    and several numbers are parted by `/`. With fewer epochs than the warm-up has there is none; with a prior, which is
    what regularises then, there is no weight decay. Either can be set, too.

    Raises:
        UserError: If the recipe has no such field, or it does not take the value.
    """
    part, kind = _part(recipe)
    own, parts = _kinds(type(recipe)), _kinds(kind)
    for key in settings:
        require_setting(key, setting_names(recipe))
    changes: dict[str, Any] = {key: _value(key, text, own[key]) for key, text in settings.items() if key in own}
    of_part = {key: _value(key, text, parts[key]) for key, text in settings.items() if key in parts}
    if of_part:
        changes[part] = replace(getattr(recipe, part) or kind(), **of_part)
    epochs = changes.get("epochs", recipe.epochs)
    if isinstance(epochs, int) and 0 < epochs <= recipe.warmup_epochs:
        changes.setdefault("warmup_epochs", 0)
    if changes.get("prior"):
        changes.setdefault("weight_decay", 0.0)
    return replace(recipe, **changes)


def setting_names(recipe: Recipe) -> frozenset[str]:
    """Names of the fields that can be set."""
    part, kind = _part(recipe)
    fixed = _FIXED if part == "augmentation" else {*_FIXED, "view", "augmentation"}
    return frozenset((_kinds(type(recipe)).keys() | _kinds(kind).keys()) - fixed)


def require_setting(key: str, names: Collection[str]) -> None:
    """Make sure that a setting is one of those that are taken.

    Raises:
        UserError: If not; suggests close ones.
    """
    if key not in names:
        hint = did_you_mean(key, names) or f"Use one of {', '.join(sorted(names))}."
        raise UserError(f"A training recipe has no setting '{key}'.", hint)


def number(key: str, text: str) -> float:
    """Read a number.

    Raises:
        UserError: If it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--set {key}={text}: '{text}' is no number.", f"Give a number, as {key}=0.1.") from None


def _part(recipe: Recipe) -> tuple[str, type[Any]]:
    """The field of the recipe that has fields of its own, and its type."""
    return ("view", View) if hasattr(recipe, "view") else ("augmentation", Augmentation)


def _kinds(kind: type[Any]) -> dict[str, str]:
    """Name -> annotated type of each field."""
    return {one.name: str(one.type) for one in fields(kind)}


def _value(key: str, text: str, kind: str) -> Any:
    """The text as what the field wants; the recipe's own rules check the range."""
    if text.lower() in _NONE:
        return None
    if "tuple" in kind:
        numbers = tuple(number(key, part) for part in text.split("/"))
        return tuple(map(_whole, numbers)) if "int" in kind else numbers
    if "int" in kind:
        return _whole(number(key, text))
    return number(key, text) if "float" in kind else text


def _whole(value: float) -> float:
    """An int if it is one, else what it is, for the recipe's rules to refuse."""
    return int(value) if value.is_integer() else value
