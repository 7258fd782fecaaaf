"""Libraries that bob can do without: imported when used, and missed in one line."""

from __future__ import annotations

import importlib
from types import ModuleType

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
        raise UserError(f"{error.name} is not installed.", f"Run `pip install '{_DISTRIBUTION}[{extra}]'`.") from error
