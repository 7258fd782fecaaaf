"""Names of protocols: a base, then modifiers after `@`, as in `linear@5shot`, `linear@10%`, `knn@block3`."""

from __future__ import annotations

from collections.abc import Sequence

from bob.results.globs import matches_any

_BLOCK = "block"


def base_of(name: str) -> str:
    """The protocol of a layer-wise run without its block: `linear@5shot` of `linear@5shot@block3`."""
    return "@".join(part for place, part in enumerate(name.split("@")) if not (place and part.startswith(_BLOCK)))


def is_layerwise(name: str) -> bool:
    """Whether the protocol looks at one block of the backbone instead of its declared feature."""
    return base_of(name) != name


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a protocol is asked for, by its name or by a glob.

    Layer-wise runs are a study of one backbone: they are asked for only by what has an `@` of its own (`knn@block3`,
    `*@block*`), not by `knn*` nor by asking for nothing.
    """
    if is_layerwise(name):
        patterns = [pattern for pattern in patterns if "@" in pattern]
        return matches_any(name, patterns)
    return not patterns or matches_any(name, patterns)
