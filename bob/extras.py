"""Libraries that bob can do without: imported when used, and missed in one line."""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType

from packaging.requirements import Requirement

from bob.errors import UserError

_DISTRIBUTION = "battle-of-backbones"


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: Its import name.
        extra: The extra of pyproject.toml that brings it.

    Raises:
        UserError: If it is not installed; gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # it is installed; something that it needs itself is not
        raise UserError(
            f"{error.name} is not installed.", f"Run `pip install {' '.join(_needed(extra)) or error.name}`."
        ) from error


def _needed(extra: str) -> list[str]:
    """What an extra asks for, quoted for a shell; by name, since bob itself may have been installed from anywhere."""
    every = [Requirement(line) for line in metadata.requires(_DISTRIBUTION) or ()]
    chosen = [found for found in every if found.marker and found.marker.evaluate({"extra": extra})]
    return [f"'{found.name}{found.specifier}'" for found in chosen]
