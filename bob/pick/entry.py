"""What a choice knows of each candidate, and what comes of it all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bob.cards import BackboneCard
from bob.errors import UserError
from bob.pick.halving import Cost
from bob.pick.scores import Score
from bob.results.record import Record


@dataclass(frozen=True)
class Tested:
    """A run that left a record: on all images, scored on the test split.

    Attributes:
        folder: Of the record.
        record: It.
    """

    folder: Path
    record: Record

    @property
    def top1(self) -> float:
        """The primary metric's value."""
        return self.record.metrics[self.record.primary].value


@dataclass(eq=False)
class Entry:
    """A candidate, and how far it has come.

    Attributes:
        card: Which.
        cost: Measured, or predicted until it is; None if it could not be.
        scores: Of the rungs before the last, with how many images they saw.
        level: Of the last of these rungs; None before the first.
        linear: The last rung's run.
        finetune: The run of fine-tuning.
        seconds: Wall time spent on it.
        ended: Why it went no further; empty if it did all.
        broken: Whether that was a mistake in it.
        beaten: Whether that was that others are known to be better.
        timed: Whether `cost` is what extraction really took.
    """

    card: BackboneCard
    cost: Cost | None = None
    scores: list[Score] = field(default_factory=list)
    level: int | None = None
    linear: Tested | None = None
    finetune: Tested | None = None
    seconds: float = 0.0
    ended: str = ""
    broken: bool = False
    beaten: bool = False
    timed: bool = False

    @property
    def name(self) -> str:
        """The backbone's."""
        return self.card.name

    @property
    def tried(self) -> bool:
        """Whether there is any score."""
        return bool(self.scores) or self.linear is not None

    @property
    def images_per_second(self) -> float:
        """Of extraction, decoding included."""
        return 1 / self.cost.per_image if self.cost and self.cost.per_image else 0.0

    @property
    def waits(self) -> bool:
        """Whether time alone keeps it from being tested on all images."""
        return self.cost is not None and not (self.broken or self.beaten or self.linear)

    def fail(self, error: UserError) -> None:
        """Note that it cannot go on."""
        self.ended, self.broken = str(error), True

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the block's wall time as this candidate's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started


@dataclass(frozen=True)
class Pick:
    """The answer.

    Attributes:
        task: Name of the task, as `bob run --task` takes it.
        results: Folder of the records.
        ranked: Candidates that have a score, best first: those of a later rung before those of an earlier one.
        tied: Names of the candidates that are not known to be worse than the first, itself among them.
        untried: Name -> why, of the candidates without a score.
        notes: What else was not done, and why.
        seconds: Wall time in all.
        budget: Seconds that were allowed.
    """

    task: str
    results: Path
    ranked: tuple[Entry, ...]
    tied: frozenset[str]
    untried: Mapping[str, str]
    notes: tuple[str, ...]
    seconds: float
    budget: float

    @property
    def best(self) -> Entry:
        """The first."""
        return self.ranked[0]
