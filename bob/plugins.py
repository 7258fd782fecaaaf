"""What installed packages add through the entry points `bob.backbones` and `bob.tasks`.

An entry point that names a package (`my_plugin.cards`) adds the TOML cards in its folder. One of `bob.backbones` that
names a callable (`my_plugin.models:make`) adds a backbone under the entry point's own name. Nothing is imported before
it is run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from bob.cards import BackboneCard, Weights
from bob.errors import UserError

BACKBONES, TASKS = "bob.backbones", "bob.tasks"


def card_folders(group: str) -> list[Path]:
    """Return the folders of cards that installed packages add to a group, by the packages' names.

    Raises:
        UserError: If an entry point names a package that is not there, or in `bob.tasks` something else.
    """
    return [_folder(point) for point in _points(group) if not point.attr]


def plugin_backbones() -> dict[str, BackboneCard]:
    """Return origin -> card for every callable that installed packages add."""
    return {describe(point): _card(point) for point in _points(BACKBONES) if point.attr}


def describe(point: EntryPoint) -> str:
    """Say which entry point of which package is meant."""
    package = point.dist.name if point.dist else "an unknown package"
    return f"entry point '{point.name} = {point.value}' of {package}"


def _points(group: str) -> Iterator[EntryPoint]:
    points = sorted(entry_points(group=group), key=lambda point: (point.dist.name if point.dist else "", point.name))
    for point in points:
        if point.attr and group == TASKS:
            raise _broken(point, "names a callable, but tasks are cards", "Name a package of TOML files.")
        yield point


def _card(point: EntryPoint) -> BackboneCard:
    package = point.dist.name if point.dist else point.module
    return BackboneCard(
        name=point.name,
        description=f"Added by {package}.",
        method="custom",
        weights=Weights(source="custom", model=f"{point.module}:{point.attr}"),
    )


def _folder(point: EntryPoint) -> Path:
    """The folder behind a dotted package name, found without importing it."""
    top, *inside = point.module.split(".")
    spec = importlib.util.find_spec(top)
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location).joinpath(*inside)
        if folder.is_dir():
            return folder
    raise _broken(point, "names no folder", "Correct it, or uninstall the package.")


def _broken(point: EntryPoint, what: str, remedy: str) -> UserError:
    return UserError(f"The {describe(point)} {what}.", remedy)
