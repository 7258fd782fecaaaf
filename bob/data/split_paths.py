"""Paths with `{split}` in them, and what they stand for on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bob.data.manifest import SPLIT_NAMES
from bob.errors import UserError
from bob.task_cards import DataSpec

FIELD = "{split}"


@dataclass(frozen=True)
class SplitPath:
    """One path of a source, for one split.

    Attributes:
        base: The part of it that all splits share; names of files are told relative to it.
        path: The whole.
    """

    base: Path
    path: Path


def split_paths(patterns: Sequence[str], root: Path, spec: DataSpec) -> dict[str, tuple[SplitPath, ...]]:
    """Return split -> a path for each pattern, by the source's own names of the splits; `all` without `{split}`.

    The names are those of the card's `splits`; without them, whatever is on disk, where `training`, `train2017` and
    `validation` are `train` and `val`.

    Args:
        patterns: Paths, if relative below the root.
        root: The data root.
        spec: The task card's `[data]`.

    Raises:
        UserError: If only some patterns have `{split}`, or a path is not there.
    """
    having = [FIELD in pattern for pattern in patterns]
    if any(having) and not all(having):
        plain = patterns[having.index(False)]
        raise UserError(f"{spec.source}: '{plain}' has no {FIELD}, but another part has.", "Put it in all, or in none.")
    if not any(having):
        return {"all": tuple(_existing(pattern, "", root) for pattern in patterns)}
    names = origins(spec) or _on_disk(patterns, root, spec)
    known_as = {name: name if spec.splits else _our_name(name) for name in names}
    if twice := [name for name in names if list(known_as.values()).count(known_as[name]) > 1]:
        raise UserError(f"{spec.source} has {' and '.join(twice)} for one split.", "Name one in 'splits' on a card.")
    return {known_as[name]: tuple(_existing(pattern, name, root) for pattern in patterns) for name in names}


def origins(spec: DataSpec) -> tuple[str, ...]:
    """Return the source's own names of all splits that the card asks for."""
    return tuple(dict.fromkeys(origin.strip() for names in spec.splits.values() for origin in names.split("+")))


def _our_name(split: str) -> str:
    """`train2017` -> `train`; a name that is none of train, val and test stays as it is."""
    return SPLIT_NAMES.get(re.sub(r"[-_]?\d*$", "", split.lower()), split)


def _on_disk(patterns: Sequence[str], root: Path, spec: DataSpec) -> list[str]:
    """What `{split}` may stand for, sorted: names with which every pattern is there."""
    matches = [_matches(root / Path(pattern).expanduser()) for pattern in patterns]
    found = sorted(set.intersection(*matches))
    if not found:
        raise UserError(f"Nothing is where {spec.source} looks, whatever {FIELD} stands for.", "Correct the source.")
    return found


def _matches(pattern: Path) -> set[str]:
    """What `{split}` may stand for in one path."""
    number = next(number for number, part in enumerate(pattern.parts) if FIELD in part)
    folder, (start, _, end) = Path(*pattern.parts[:number]), pattern.parts[number].partition(FIELD)
    shape = re.compile(f"{re.escape(start)}([^.].*){re.escape(end)}")
    children = folder.iterdir() if folder.is_dir() else ()
    found = {match[1] for child in children if (match := shape.fullmatch(child.name))}
    return {name for name in found if Path(str(pattern).replace(FIELD, name)).exists()}


def _existing(pattern: str, name: str, root: Path) -> SplitPath:
    path = root / Path(pattern.replace(FIELD, name)).expanduser()
    if not path.exists():
        raise UserError(f"There is no {path}.", "Put it there, or correct the source.")
    parts = Path(pattern).expanduser().parts
    shared = next((number for number, part in enumerate(parts) if FIELD in part), len(parts))
    return SplitPath(root.joinpath(*parts[:shared]), path)
