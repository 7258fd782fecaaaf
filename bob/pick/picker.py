"""Successive halving over backbones, within a budget of time: meet, few shots, probes, all images, fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from bob.cards import BackboneCard
from bob.data.sources import load_task
from bob.errors import UserError
from bob.pick import finetuning
from bob.pick.budget import BudgetSpent, Deadline, spoken
from bob.pick.candidates import Candidates, cheap_first
from bob.pick.entry import Entry, Pick
from bob.pick.halving import Rung, plan_rungs, promoted, stage_seconds, standing, survivors
from bob.pick.meeting import meet
from bob.pick.pool import Pool
from bob.pick.report import answer
from bob.pick.stages import Ground, score_some, test_on_all
from bob.pick.times import ProbeTimes
from bob.progress import Reporter
from bob.requested import Settings
from bob.task_cards import TaskCard

_SAFETY = 1.25  # as `Deadline.fits` adds
_LONGER = "Give a longer --budget; features that were computed are kept."


def pick(
    task: TaskCard,
    candidates: Candidates | Sequence[BackboneCard],
    settings: Settings,
    deadline: Deadline,
    reporter: Reporter,
    *,
    top: int = 3,
    seed: int = 0,
    finetune: bool = True,
) -> Pick:
    """Find which backbone suits a classification task, within a budget of wall time.

    Every candidate is scored on few images, the best and those not known to be worse on three times as many, and so
    on; the last rung runs the linear protocol on all images and leaves records. With time enough, that is the only
    rung. The scores before it come from train and val alone.

    Args:
        task: Its card.
        candidates: Cards to try, met in order of size; or those with reasons why others are left out.
        settings: How to run; its protocols and seeds are not used.
        deadline: The budget, already begun.
        reporter: Told what happens.
        top: How many candidates the last rung should have.
        seed: Of which images the first rungs see.
        finetune: Whether to fine-tune the best if time allows.

    Raises:
        UserError: If the data do not allow it, no candidate can be opened, or time is too short for any score.

    Source: Jamieson and Talwalkar 2016, arXiv 1502.07943.
    """
    asked = candidates if isinstance(candidates, Candidates) else Candidates(tuple(cheap_first(candidates)), {})
    entries = [Entry(card) for card in asked.cards]
    notes: list[str] = []
    try:
        ground = _open(task, settings, deadline, reporter, seed)
        reporter.say(f"{task.name}: {_sizes(ground)}; candidates: {', '.join(entry.name for entry in entries)}")
        meet(entries, ground.pool, settings.how, deadline)
        _Climb(ground, entries, top).run()
        if finetune:
            notes += _fine_tune(ground, entries, top)
    except BudgetSpent:
        notes.append("The time was up before all that was planned was done.")
    _require_an_answer(entries, deadline)
    return answer(task, settings, entries, asked.others, tuple(notes), deadline)


def _open(task: TaskCard, settings: Settings, deadline: Deadline, reporter: Reporter, seed: int) -> Ground:
    """Open the data and draw the nested sets.

    Raises:
        UserError: If the data do not allow it.
    """
    with deadline.enforced():
        dataset = load_task(task, settings.data_root)
        pool = Pool(dataset, seed)
        _ = pool.parts  # hashes their files, which takes time too
    return Ground(task, dataset, pool, settings, deadline, ProbeTimes(), reporter, seed)


class _Climb:
    """The rungs, and who climbs them.

    Args:
        ground: What all stages share.
        entries: Candidates that have been met.
        top: How many the last rung should have.
    """

    def __init__(self, ground: Ground, entries: Sequence[Entry], top: int) -> None:
        self._ground, self._entries, self._top = ground, entries, top

    @cached_property
    def _sizes(self) -> list[int]:
        return self._ground.pool.sizes

    def run(self) -> None:
        """Plan the rungs for the time that is left, and go through them.

        Raises:
            BudgetSpent: If it is up before the end.
        """
        left, smallest = self._ground.deadline.left(), len(self._sizes) - 1
        met = {entry.name: entry.cost for entry in self._entries if entry.cost}
        probes = [self._ground.probe_seconds(level, first=level == smallest) for level in range(len(self._sizes))]
        schedule = plan_rungs(met, self._sizes, probes, left / _SAFETY, self._top)
        going = [entry for entry in self._entries if entry.name in schedule.affordable]
        for entry in self._entries:
            if entry.cost and entry not in going:
                entry.ended = self._too_long(entry, schedule.rungs[0].level if schedule.rungs else smallest)
        for number, rung in enumerate(schedule.rungs):
            images = f"{rung.images} images" if rung.level else f"all {rung.images} images"
            names = ", ".join(entry.name for entry in going)
            self._ground.reporter.say(f"Rung {number + 1} of {len(schedule.rungs)}, {images}: {names or 'nobody'}")
            if rung.level == 0:
                self._last(going)
            else:
                going = self._rung(going, rung, schedule.rungs[number + 1], first=number == 0)

    def _rung(self, going: Sequence[Entry], rung: Rung, following: Rung, first: bool) -> list[Entry]:
        """Score candidates on some images; return those that go on to the following rung, best first."""
        scored: dict[str, Entry] = {}
        until = self._ground.deadline.spent() + self._ground.deadline.left() / (rung.level + 1)
        # Where the first was quicker than predicted, others still have a chance.
        others = [entry for entry in self._entries if entry.waits and entry not in going] if first else []
        for entry in [*going, *others]:
            share = None if entry in going else until - self._ground.deadline.spent()
            with self._stage(entry, rung.level, first, share) as begun:
                if begun:
                    score_some(self._ground, entry, rung.level, first)
                    scored[entry.name] = entry
        if not scored:
            return []
        right = {name: entry.scores[-1].right for name, entry in scored.items()}
        ranked = standing(right, {name: entry.scores[-1].log_me for name, entry in scored.items()})
        on, off = survivors(ranked, right, following.keep)
        best = f"the best {following.keep}" if following.keep > 1 else "the best"
        for name in off:
            scored[name].ended = f"known to be worse than {best} on {len(right[name])} images"
            scored[name].beaten = True
        return self._with_time([scored[name] for name in on], following.level)

    def _with_time(self, ranked: Sequence[Entry], level: int) -> list[Entry]:
        """Of those that may go on, best first, the ones that the rung of a level has time for."""
        seconds = {entry.name: _SAFETY * self._seconds(entry, level, first=False) for entry in ranked}
        left = self._ground.deadline.left()
        # Equal shares for the rungs that are left, as successive halving has it.
        going, _ = promoted([entry.name for entry in ranked], seconds, left / (level + 1), left)
        for entry in ranked:
            if entry.name not in going:
                entry.ended = self._too_long(entry, level)
        return [entry for entry in ranked if entry.name in going]

    def _last(self, going: Sequence[Entry]) -> None:
        """Test candidates on all images; and then those that time alone kept back, if there is some left."""
        others = [entry for entry in self._entries if entry.waits and entry not in going]
        others.sort(key=lambda entry: (-len(entry.scores), -entry.scores[-1].top1 if entry.scores else 0.0))
        for entry in [*going, *others]:
            with self._stage(entry, level=0, first=False) as begun:
                if begun:
                    test_on_all(self._ground, entry)

    @contextmanager
    def _stage(self, entry: Entry, level: int, first: bool, share: float | None = None) -> Iterator[bool]:
        """Begin a candidate's stage only if it is predicted to fit; gives whether it is."""
        if not self._ground.deadline.fits(self._seconds(entry, level, first), share):
            entry.ended = self._too_long(entry, level)
            yield False
            return
        entry.ended = ""
        with _guarded(self._ground, entry):
            yield True

    def _seconds(self, entry: Entry, level: int, first: bool) -> float:
        """Predicted for a candidate in the rung of a level."""
        if entry.cost is None:
            raise RuntimeError(f"{entry.name} was not met.")
        factor = 1.0 if entry.timed else self._ground.times.extraction
        cost = replace(entry.cost, per_image=factor * entry.cost.per_image)
        return stage_seconds(cost, level, self._ground.probe_seconds(level, first), entry.level)

    def _too_long(self, entry: Entry, level: int) -> str:
        seconds, left = self._seconds(entry, level, first=entry.level is None), self._ground.deadline.left()
        return f"{self._sizes[level]} images would take about {spoken(seconds)}, with {spoken(left)} left"


def _fine_tune(ground: Ground, entries: Sequence[Entry], top: int) -> list[str]:
    """Fine-tune the best, as far as time allows; return why it went no further.

    A candidate is fine-tuned only after all that are better: else a worse one would win for being cheap.
    """
    ranked = [entry for entry in entries if entry.linear]
    ranked.sort(key=lambda entry: -entry.linear.top1 if entry.linear else 0.0)
    for entry in ranked[:top]:
        chosen = finetuning.what_fits(entry, ground.dataset, ground.deadline)
        if isinstance(chosen, str):
            return [f"{entry.name} was not fine-tuned: {chosen}."]
        with _guarded(ground, entry):
            finetuning.run(ground, entry, chosen)
        if entry.finetune is None:
            return [f"{entry.name} could not be fine-tuned, so nor was anyone behind it."]
    return []


@contextmanager
def _guarded(ground: Ground, entry: Entry) -> Iterator[None]:
    """Stop the block when the time is up; a mistake in it ends this candidate alone."""
    try:
        with ground.deadline.enforced(), entry.spending():
            yield
    except UserError as error:
        entry.fail(error)
    except BudgetSpent:
        entry.ended = "the time was up in the midst of it; what it has computed is kept"
        raise


def _sizes(ground: Ground) -> str:
    sizes = ", ".join(f"{len(split)} {name}" for name, split in ground.dataset.splits.items())
    return f"{len(ground.dataset.classes)} classes, {sizes} images"


def _require_an_answer(entries: Sequence[Entry], deadline: Deadline) -> None:
    """Fail if no candidate has a score.

    Raises:
        UserError: Saying what the cheapest would have taken, or why none could be opened.
    """
    if any(entry.tried for entry in entries):
        return
    if entries and all(entry.broken for entry in entries):
        raise UserError(f"No candidate can be used. {entries[0].name}: {entries[0].ended}")
    budget = f"A budget of {spoken(deadline.seconds)} is too small for any score"
    late = [entry for entry in entries if entry.ended and not entry.broken]
    if not late:
        raise UserError(f"{budget}: it was up before a candidate was opened and timed.", _LONGER)
    quickest = min(late, key=lambda entry: entry.cost.per_image if entry.cost else math.inf)
    raise UserError(f"{budget}: with {quickest.name}, {quickest.ended.rstrip('.')}.", _LONGER)
