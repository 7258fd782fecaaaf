"""The one exception for mistakes a user can mend, and the words that most often help to mend them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

# What pydantic calls by the names of Python's types, in the words of TOML and JSON.
_PLAIN_WORDS = {"tuple_type": "Expected an array", "model_type": "Expected a table"}


class UserError(Exception):
    """A mistake that the user can mend: shown as one line, exit code 2, no traceback.

    Args:
        problem: What is wrong and where, as a sentence.
        remedy: The command or edit that mends it, as a sentence.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return " ".join(f"{self.problem} {self.remedy}".split())


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """Return "Did you mean: a, b?" for the closest of the known names, or "" when none is close."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), list(by_folded), n=most, cutoff=0.6)
    return f"Did you mean: {', '.join(by_folded[c] for c in close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message, for errors of other libraries."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip().rstrip('.')}" if lines else type(error).__name__


def first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return one sentence for the first thing that pydantic found in a `kind`, with a hint for a misspelt key."""
    # A misspelt key shows up twice, as unknown and as missing; the unknown one tells more.
    problem = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    location = problem["loc"]
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(str(location[-1]), _keys_at(kind, location[:-1]))
        return f"unknown key '{key}'. {hint}".strip()
    if problem["type"] == "missing":
        return f"key '{key}' is missing."
    if problem["type"] == "value_error":
        where = f"key '{key}': " if key else ""  # a mistake of the whole card has no key
        return f"{where}{problem['ctx']['error']}."
    expected = _PLAIN_WORDS.get(problem["type"], problem["msg"])
    return f"key '{key}': {expected}, but got {problem['input']!r}."


def _keys_at(kind: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys that the table at `location` may have."""
    table: Any = kind
    for part in location:
        fields = getattr(table, "model_fields", {})
        if part in fields:
            table = _table_type(fields[part].annotation)
    return list(getattr(table, "model_fields", {}))


def _table_type(annotation: Any) -> Any:
    """The model class inside an annotation such as `tuple[Reference, ...]`."""
    arguments = getattr(annotation, "__args__", ())
    return next((a for a in arguments if hasattr(a, "model_fields")), annotation)
