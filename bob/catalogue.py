"""Cards found, read and checked: the built-in ones, and a user's in folders of their own."""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from bob import places, plugins
from bob.cards import BackboneCard, Card
from bob.errors import UserError, did_you_mean, first_problem
from bob.task_cards import DataSpec, TaskCard

C = TypeVar("C", bound=Card)


def load_backbone_cards(extra: Sequence[Path] = ()) -> dict[str, BackboneCard]:
    """Return name -> card of the built-in registry, of installed plug-ins and of the folders in `extra`.

    Raises:
        UserError: On an unreadable card, an unknown key, a wrong type, or one name in two places.
    """
    folders = [places.shipped("registry"), *plugins.card_folders(plugins.BACKBONES), *extra]
    return _named([*_cards_in(BackboneCard, folders), *plugins.plugin_backbones().items()])


def load_task_cards(extra: Sequence[Path] = ()) -> dict[str, TaskCard]:
    """Return name -> card of the built-in tasks, of plug-ins and of `extra`; raises as `load_backbone_cards`."""
    return _named(_cards_in(TaskCard, [places.shipped("tasks"), *plugins.card_folders(plugins.TASKS), *extra]))


def resolve_tasks(specs: Iterable[str], cards: Mapping[str, TaskCard]) -> list[TaskCard]:
    """Return the task cards meant by names, globs and sources such as `folder:PATH`, in order, without repeats.

    Sources that need no card are `folder:PATH`, `torchvision:NAME`, `hf:REPOSITORY`, `wilds:NAME`; with objects
    `coco:IMAGES:ANNOTATIONS.json`, `voc:FOLDER` and `cityscapes:FOLDER`; with a class of each pixel
    `masks:IMAGES:MASKS` and `panoptic:IMAGES:PNGS:ANNOTATIONS.json`; to search for images of the same class
    `retrieval:PATH`, a folder as of `folder:PATH`.

    Raises:
        UserError: If a name is unknown; suggests close ones.
    """
    return [_resolve_task(name, cards) for name in match_names(specs, cards)]


def read_card(path: Path, kind: type[C]) -> C:
    """Read one TOML card.

    Raises:
        UserError: Naming the file, the key and the mend.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the card {path}: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, kind)}") from error


def match_names(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Expand globs against known names, in the order given and without repeats; a plain name stays as it is.

    Raises:
        UserError: If a glob matches nothing.
    """
    known, found = list(names), []
    for pattern in patterns:
        if any(character in pattern for character in "*?[") and ":" not in pattern:
            matches = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
            if not matches:
                raise UserError(f"'{pattern}' matches no name.", "See `bob list backbones` and `bob list tasks`.")
            found.extend(matches)
        else:
            found.append(pattern)
    return list(dict.fromkeys(found))


def _resolve_task(name: str, cards: Mapping[str, TaskCard]) -> TaskCard:
    if name in cards:
        return cards[name]
    kind, _, what = name.partition(":")
    if kind in _ADAPTER_OF_PATHS and what:
        # Whole paths, so that two folders of one name are two tasks.
        paths = [what] if kind in ("folder", "retrieval") else what.split(":")
        places = [str(Path(os.path.expanduser(path)).absolute()) for path in paths]
        source, name = ":".join(["folder" if kind == "retrieval" else kind, *places]), ":".join([kind, *places])
    elif kind in ("torchvision", "hf", "wilds") and what:
        source = name
    else:
        hint = did_you_mean(name, cards) or "See `bob list tasks`."
        raise UserError(f"Unknown task '{name}'.", f"{hint} Your own images: folder:PATH.")
    card = TaskCard(name=kind, adapter=_ADAPTER_OF_PATHS.get(kind, "classification"), data=DataSpec(source=source))
    return card.model_copy(update={"name": name})


# Sources that are paths -> what their images are for.
_ADAPTER_OF_PATHS: dict[str, Literal["classification", "retrieval", "detection", "segmentation"]] = {
    "folder": "classification",
    "retrieval": "retrieval",
    **dict.fromkeys(("coco", "voc", "cityscapes"), "detection"),
    **dict.fromkeys(("masks", "panoptic"), "segmentation"),
}


def _cards_in(kind: type[C], folders: Iterable[Path]) -> list[tuple[str, C]]:
    """(file, card) of every TOML file in the folders.

    A file that is met again counts once: `--registry registry` in a checkout names the built-in folder.
    """
    cards: dict[str, C] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"The card folder {folder} does not exist.", "Give an existing folder of TOML cards.")
        for path in sorted(folder.rglob("*.toml")):
            cards.setdefault(os.fspath(path.resolve()), read_card(path, kind))
    return list(cards.items())


def _named(cards: Iterable[tuple[str, C]]) -> dict[str, C]:
    """Name -> card; no name may come from two places."""
    origins: dict[str, str] = {}
    named: dict[str, C] = {}
    for origin, card in cards:
        if card.name in named:
            raise UserError(
                f"{origin}: key 'name': '{card.name}' is already the name of {origins[card.name]}.",
                "Rename one of them.",
            )
        named[card.name], origins[card.name] = card, origin
    return named
