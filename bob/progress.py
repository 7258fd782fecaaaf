"""What a person sees while bob works: lines on standard error and, in a terminal, a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


@dataclass(frozen=True)
class Update:
    """How a training stands after one of its updates.

    Attributes:
        step: Updates done.
        steps: Updates in all.
        epoch: The epoch that it is in, counted from 1.
        epochs: Epochs in all.
        loss: Mean over the images of this update.
        lr: Learning rate of the head.
        images_per_second: Mean so far.
        seconds_left: At that rate.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float


class _PerSecond(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {self._unit}/s" if task.speed else "")


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
    def images(self, what: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
        """Show a bar with images/s, or another unit, and time left; gives a function to be told of how many more."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _PerSecond(unit),
            TimeRemainingColumn(),
        )
        # Nothing is drawn where there is no terminal: a log file wants lines, not a bar.
        shown = self._console.is_terminal and not self._quiet
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as progress:
            bar = progress.add_task(what, total=total)
            yield lambda count: progress.advance(bar, count)

    @contextmanager
    def training(self, what: str) -> Iterator[Callable[[Update], None]]:
        """Show a bar with epoch, loss, images/s and time left; gives a function to be told of each update of `what`.

        Where there is no terminal, a line for each tenth of the updates.
        """
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        drawn = self._console.is_terminal and not self._quiet
        with Progress(*columns, console=self._console, transient=True, disable=not drawn) as progress:
            bar = progress.add_task(what, total=None)

            def tell(update: Update) -> None:
                line = f"{what}: {_described(update)}"
                progress.update(bar, description=line, completed=update.step, total=update.steps)
                if not drawn and update.step * 10 // update.steps > (update.step - 1) * 10 // update.steps:
                    self.say(f"{line}, {update.seconds_left:.0f} s left")

            yield tell


def _described(update: Update) -> str:
    return (
        f"epoch {update.epoch} of {update.epochs}, step {update.step} of {update.steps}, loss {update.loss:.3f}, "
        f"lr {update.lr:.2g}, {update.images_per_second:.1f} images/s"
    )
