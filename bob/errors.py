"""The one exception for mistakes a user can mend, and the hint that most often mends them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
