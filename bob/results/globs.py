"""Names asked for one by one or by globs."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches_any(name: str, globs: Iterable[str]) -> bool:
    """Whether a name is one of these or matches one; a name may hold what a glob would read otherwise (`a[1]`)."""
    return any(name == glob or fnmatchcase(name, glob) for glob in globs)
