"""Which of a task's classes the classes of another data set stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bob.data.base import Split
from bob.errors import UserError, did_you_mean

Members = tuple[int, ...]
"""Positions of the task's classes that one class of another set stands for; empty where it stands for none."""

_SHOWN = 5  # names of classes in an error
_IMAGENET = 1000
_OBJECTNET_FILES = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "pytorch_to_imagenet_2012_id.json",
    "imagenet_to_label_2012_v2",
)
# ImageNet-1k's classes of each category, as FOCUS's authors count them (focus/src/experiments/evaluate_model.py).
_FOCUS: dict[str, Members] = {
    "truck": (407, 555, 569, 654, 675, 717, 757, 779, 864, 867),
    "car": (436, 468, 511, 609, 627, 656, 705, 734, 751, 817),
    "plane": (404, 895),
    "ship": (403, 472, 510, 554, 625, 628, 693, 724, 780, 814, 914),
    "cat": tuple(range(281, 286)),
    "dog": (*range(151, 269), 273, 274, 275),
    "horse": (339, 340),
    "deer": (351, 352, 353),
    "frog": (30, 31, 32),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
}


class OwnClasses:
    """The classes of a task, found by name or by the folder that holds their images, such as ImageNet's WordNet ids.

    Args:
        names: C names, in the order of the labels.
        train: Images by whose names the folders are known.
    """

    def __init__(self, names: Sequence[str], train: Split) -> None:
        self.names = tuple(names)
        self._positions = {**_folders(train), **{name: label for label, name in enumerate(names)}}

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: str) -> int | None:
        """The position of a class; None if there is none of that name."""
        return self._positions.get(name)

    def hint(self, name: str) -> str:
        """The closest names, or "" where none is close."""
        return did_you_mean(name, self._positions)


def match_classes(given: str, classes: Sequence[str], own: OwnClasses, root: Path, name: str) -> list[Members]:
    """Return which of the task's classes each class of another set stands for.

    Args:
        given: `class_map` of the card: empty for classes of the same name; `index` where they are called by the
            positions of the task's; `focus` for the ten categories of FOCUS as ImageNet's; a JSON file below the data
            root, `{"their class": "ours" or ["ours", ...]}`, with `[]` for a class that is left out; or the folder
            `mappings` of ObjectNet, whose classes without a counterpart are left out.
        classes: Names of the other set's classes.
        own: The task's classes.
        root: The data root.
        name: The set's, for errors.

    Returns:
        For each of `classes` the positions of the task's, rising.

    Raises:
        UserError: If a class has no counterpart, two classes share one without being the same, fewer than two are left,
            or the file is not such a map.
    """
    found = _lookup(given, classes, own, root, name)
    _require_apart(found, classes, own, name)
    if len(set(found) - {()}) < 2:
        raise UserError(
            f"The set '{name}' shows fewer than two of the task's classes, so there is nothing to tell apart.",
            "Correct its class_map.",
        )
    return found


def _lookup(given: str, classes: Sequence[str], own: OwnClasses, root: Path, name: str) -> list[Members]:
    if given == "focus":
        _require_imagenet(own, "FOCUS", name)
        return _all_of(classes, _FOCUS, name, "FOCUS has {}.")
    if given == "index":
        positions = {each: int(each) for each in classes if each.isdecimal() and int(each) < len(own)}
        found = {each: (position,) for each, position in positions.items()}
        return _all_of(classes, found, name, f"With class_map = 'index' they are called 0 to {len(own) - 1}.")
    if given:
        return _from_file(root / Path(given).expanduser(), classes, own, name)
    same = {each: (position,) for each in classes if (position := own.find(each)) is not None}
    lacking = next((each for each in classes if each not in same), "")
    return _all_of(classes, same, name, own.hint(lacking) or "Give the set a class_map on the task card.")


def _from_file(path: Path, classes: Sequence[str], own: OwnClasses, name: str) -> list[Members]:
    if path.is_dir():
        _require_imagenet(own, "ObjectNet", name)
        return _objectnet(path, classes, name)
    given = _read_json(path)
    if not isinstance(given, dict):
        raise UserError(f"{path} is no class map.", 'It should say {"their class": ["ours", ...], ...}.')
    for key in given:
        if key not in classes:
            hint = did_you_mean(key, classes) or "Remove it from the map."
            raise UserError(f"{path} maps the class '{key}', which the set '{name}' does not have.", hint)
    found = {key: _as_members(key, value, own, path) for key, value in given.items()}
    return _all_of(classes, found, name, f"Add them to {path}, with [] for those to leave out.")


def _as_members(key: str, value: Any, own: OwnClasses, path: Path) -> Members:
    members = []
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, bool) or not isinstance(each, (str, int)):
            raise UserError(f"{path} maps '{key}' to {each!r}.", "Map it to names of classes, or to their positions.")
        position = own.find(each) if isinstance(each, str) else each if 0 <= each < len(own) else None
        if position is None:
            hint = own.hint(str(each)) or f"The task has {len(own)} classes."
            raise UserError(f"{path} maps '{key}' to '{each}', which is no class of the task.", hint)
        members.append(position)
    return tuple(sorted(set(members)))


def _objectnet(folder: Path, classes: Sequence[str], name: str) -> list[Members]:
    """Which of ImageNet's classes ObjectNet's folders show, by the four files of its zip.

    Source: https://objectnet.dev (mappings/), read as in mlfoundations/wise-ft, src/datasets/objectnet.py.
    """
    if lacking := [file for file in _OBJECTNET_FILES if not (folder / file).is_file()]:
        raise UserError(f"There is no {folder / lacking[0]}.", "Unpack mappings/ of ObjectNet's zip there.")
    labels, words, order = (_read_json(folder / file) for file in _OBJECTNET_FILES[:3])
    position = {int(number): int(index) for index, number in order.items()}
    lines = (folder / _OBJECTNET_FILES[3]).read_text(encoding="utf-8").splitlines()
    if sorted(position) != list(range(len(lines))) or len(lines) != _IMAGENET:
        raise UserError(f"{folder / _OBJECTNET_FILES[2]} does not order {_IMAGENET} classes.", "Unpack it again.")
    by_words = {line.strip(): position[number] for number, line in enumerate(lines)}
    shown = {label: [each.strip() for each in text.split(";")] for label, text in words.items()}
    if unknown := [each for several in shown.values() for each in several if each not in by_words]:
        raise UserError(
            f"{folder / _OBJECTNET_FILES[1]} names '{unknown[0]}', which is no class of ImageNet.", "Unpack it again."
        )
    by_label = {label: tuple(sorted({by_words[each] for each in several})) for label, several in shown.items()}
    found = {key: by_label.get(label, ()) for key, label in labels.items()}
    return _all_of(classes, found, name, f"{folder / _OBJECTNET_FILES[0]} does not have them.")


def _all_of(classes: Sequence[str], found: Mapping[str, Members], name: str, remedy: str) -> list[Members]:
    if unknown := [each for each in classes if each not in found]:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise UserError(
            f"The set '{name}' has classes without a counterpart in the task: {', '.join(unknown[:_SHOWN])}{more}.",
            remedy.format(", ".join(found)),
        )
    return [found[each] for each in classes]


def _require_apart(found: Sequence[Members], classes: Sequence[str], own: OwnClasses, name: str) -> None:
    """Fail if a class of the task would count for two different classes of the set."""
    first: dict[int, int] = {}
    for number, members in enumerate(found):
        for position in members:
            other = first.setdefault(position, number)
            if found[other] != members:
                raise UserError(
                    f"In the set '{name}' the classes '{classes[other]}' and '{classes[number]}' both stand for "
                    f"'{own.names[position]}'.",
                    "Correct its class_map.",
                )


def _require_imagenet(own: OwnClasses, whose: str, name: str) -> None:
    if len(own) != _IMAGENET:
        raise UserError(
            f"The classes of the set '{name}' are mapped to ImageNet-1k's as {whose} says, but the task has "
            f"{len(own)} classes.",
            "Give it another class_map.",
        )


def _folders(split: Split) -> dict[str, int]:
    """Folder -> label, if each class has all its images in one folder of its own; empty otherwise."""
    if split.labels.ndim != 1:
        return {}
    folders = np.array([name.rpartition("/")[0].rpartition("/")[2] for name in split.names])
    pairs = sorted(set(zip(folders.tolist(), split.labels.tolist(), strict=True)))
    found = {folder: label for folder, label in pairs if folder}
    return found if len(found) == len(pairs) == len(set(found.values())) else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read the class map {path}: {error.strerror}.", "Put it there.") from error
    except ValueError as error:
        raise UserError(f"The class map {path} is no JSON: {error}.", "Correct it.") from error
