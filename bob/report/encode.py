"""Values as the page's JSON has them: short, safe inside HTML, and every text that repeats kept once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd


class Numbered:
    """Texts, each kept once and known by its number from then on."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """The number of a text, a new one if it was not seen before."""
        return self._numbers.setdefault(text, len(self._numbers))

    def numbers(self, values: Iterable[Any]) -> list[int]:
        """The number of each text; what is missing counts as empty."""
        return [self.number("" if pd.isna(value) else str(value)) for value in values]

    @property
    def texts(self) -> list[str]:
        """All of them, in the order of their numbers."""
        return list(self._numbers)


def as_json(content: object) -> str:
    """JSON that may stand inside a <script> element: nothing in it can end the element or open a comment."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def compact(values: Iterable[float]) -> list[float | int | None]:
    """Numbers with six digits, whole ones without a point; what is not known is null."""
    return [_compact(value) for value in np.asarray(list(values), dtype=np.float64).tolist()]


def _compact(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.6g}")
