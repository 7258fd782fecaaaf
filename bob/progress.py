"""What a person sees while bob works: lines on standard error and, in a terminal, a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} images/s" if task.speed else "")


class Reporter:
    """Says what is going on, on standard error, so that standard output stays clean for results.

    Args:
        quiet: Say nothing but errors.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self._quiet = quiet

    def say(self, line: str) -> None:
        """Print one line."""
        if not self._quiet:
            self._console.print(line, markup=False)

    @contextmanager
    def images(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar with images/s and time left; gives a function to be told how many more are done."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _ImagesPerSecond(),
            TimeRemainingColumn(),
        )
        # Nothing is drawn where there is no terminal: a log file wants lines, not a bar.
        shown = self._console.is_terminal and not self._quiet
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as progress:
            bar = progress.add_task(what, total=total)
            yield lambda count: progress.advance(bar, count)
