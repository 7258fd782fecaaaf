"""A budget of wall time: read from words, asked whether something still fits, and enforced."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bob.errors import UserError

_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_SAFETY = 1.25  # predictions are of a machine that others may use too
_LONGEST_START = 60.0  # seconds
_MARGIN, _LEAST_MARGIN, _MOST_MARGIN = 0.03, 1.0, 30.0  # kept for ending: a share of the budget, within seconds


class BudgetSpent(BaseException):
    """The time is up; no `Exception`, so that no library takes it for a failure of its own work."""


def parse_budget(text: str) -> float:
    """Seconds that a budget such as `30s`, `10m`, `1.5h` or `1h30m` stands for.

    Raises:
        UserError: If it is not a positive time with units.
    """
    words = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", words)
    units = [_UNITS.get(unit) for _, unit in parts]
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?\s*[a-z]+\s*)+", words) or None in units or len(set(units)) < len(units):
        raise UserError(f"'{text}' is no budget of time.", "Write it with units, as --budget 30s, 10m, 1h or 1h30m.")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not seconds > 0:
        raise UserError(f"A budget of {text} leaves no time at all.", "Give a few minutes, such as --budget 10m.")
    return seconds


def spoken(seconds: float) -> str:
    """A time in words, no finer than people need it: `0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if (whole := round(seconds)) < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


class Deadline:
    """When a budget ends, and what still fits before it.

    Args:
        seconds: The budget.
        clock: Gives the time in seconds; another for tests.
        started: When the budget began; None for now.

    Attributes:
        seconds: The budget.
    """

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, started: float | None = None
    ) -> None:
        self.seconds = seconds
        self._clock = clock
        self._started = clock() if started is None else started

    @property
    def margin(self) -> float:
        """Seconds at the end in which nothing is computed any more: an answer takes time too."""
        return min(max(_MARGIN * self.seconds, _LEAST_MARGIN), _MOST_MARGIN)

    def spent(self) -> float:
        """Seconds since the budget began."""
        return self._clock() - self._started

    def left(self) -> float:
        """Seconds in which something may still be computed; 0 if none are left."""
        return max(0.0, self.seconds - self.margin - self.spent())

    def fits(self, seconds: float, of: float | None = None) -> bool:
        """Whether work that is predicted to take so long may begin.

        Args:
            seconds: Predicted; a quarter is added, since predictions may be too low.
            of: How much of the time left the work may have; None for all.
        """
        return _SAFETY * seconds <= (self.left() if of is None else min(of, self.left()))

    @contextmanager
    def enforced(self, seconds: float | None = None) -> Iterator[None]:
        """Stop the block when the time is up, or after fewer seconds if they are given, wherever it is.

        Whatever bob writes is whole or absent, so that this is as safe as Ctrl-C. Only the main thread of a system with
        alarms can be stopped so; elsewhere predictions alone keep the budget.

        Raises:
            BudgetSpent: When the time is up.
        """
        allowed = self.left() if seconds is None else min(seconds, self.left())
        if allowed <= 0:
            raise BudgetSpent
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
            yield
            return
        before = signal.signal(signal.SIGALRM, _ring)
        signal.setitimer(signal.ITIMER_REAL, allowed)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def startup_seconds() -> float:
    """How long ago this process began, if it was started for the command: what Python loads takes the user's time too.

    0 where the system does not say, or says more than a minute: then the process had been doing something else.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0
    return age if 0 <= age <= _LONGEST_START else 0.0


def _ring(number: int, frame: FrameType | None) -> None:
    raise BudgetSpent
