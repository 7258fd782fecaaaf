"""Ctrl-C, held back until an update is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Inside the block the first Ctrl-C is only noted; the second is what it always is.

    Attributes:
        noted: Whether there was one.
    """

    noted: bool = False
    _before: Any = None

    def __enter__(self) -> Interrupts:
        # Only the main thread may say what a signal does; in others there is none to hold back.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True
