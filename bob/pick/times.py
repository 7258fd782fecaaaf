"""Predictions of time, corrected by what things really took on this machine."""

from __future__ import annotations

from statistics import median

# Seconds for features of 1,000 images and width 1,000, on two cores.
_GUESSES = {"few": 0.5, "folds": 6.0, "linear": 12.0}


class ProbeTimes:
    """How long things take: guesses and quick measurements at first, corrected by what they really took."""

    def __init__(self) -> None:
        self._factors: dict[str, float] = {}
        self._extraction: list[float] = []

    @property
    def extraction(self) -> float:
        """By what a time per image from one batch of noise is to be multiplied; 1 until something was extracted.

        The median: where the network is tiny, starting the processes that decode is nearly all that is measured.
        """
        return median(self._extraction or [1.0])

    def extracted(self, predicted: float, measured: float) -> None:
        """Remember what an image took, and what had been predicted."""
        self._extraction.append(measured / predicted)

    def predicted(self, kind: str, images: int) -> float:
        """Seconds for one candidate."""
        return self._factors.get(kind, 1.0) * _guess(kind, images)

    def measured(self, kind: str, images: int, seconds: float) -> None:
        """Remember the slowest, relative to the guess."""
        self._factors[kind] = max(self._factors.get(kind, 0.0), seconds / _guess(kind, images))


def _guess(kind: str, images: int) -> float:
    return _GUESSES[kind] * (0.05 + images / 1000)
