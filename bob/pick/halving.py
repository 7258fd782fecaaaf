"""Successive halving as arithmetic: how many images each rung sees, who goes on, and what that would take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ETA = 3  # a rung has so many times the images of the one before, and a third of its candidates
_Z = 1.96  # of a 95% interval


@dataclass(frozen=True)
class Cost:
    """What a candidate takes, in seconds.

    Attributes:
        opening: To load its weights.
        per_image: To decode one image and compute its feature.
        lacking: How many images of each level, 0 for all, have no features stored yet.
    """

    opening: float
    per_image: float
    lacking: tuple[int, ...]


@dataclass(frozen=True)
class Rung:
    """A stage of successive halving.

    Attributes:
        level: Which of the nested sets of images; 0 for all of them.
        images: How many that are.
        keep: How many candidates come to it.
    """

    level: int
    images: int
    keep: int


@dataclass(frozen=True)
class Schedule:
    """The rungs, first to last; the last has all images.

    Attributes:
        rungs: In order.
        seconds: Predicted.
        affordable: Candidates that the first rung has time for, cheapest first; the others are not tried.
    """

    rungs: tuple[Rung, ...]
    seconds: float
    affordable: tuple[str, ...]


def level_sizes(images: int, least: int, eta: int = ETA) -> list[int]:
    """Numbers of images of the nested sets, all of them first, each a third of the one before, none below `least`.

    Args:
        images: N.
        least: Below which a score says too little.
        eta: The factor.
    """
    sizes = [images]
    while images / eta ** len(sizes) >= least:
        sizes.append(math.ceil(images / eta ** len(sizes)))
    return sizes


def plan_rungs(
    costs: Mapping[str, Cost],
    sizes: Sequence[int],
    probes: Sequence[float],
    seconds: float,
    top: int,
    eta: int = ETA,
) -> Schedule:
    """Choose on how few images to begin: the most that time allows, so that no candidate is dropped in a hurry.

    With time enough there is one rung, of all candidates on all images. Else the first rung has a third of the images,
    or a ninth, ...: the fewest rungs whose predicted time fits. Where even the smallest set takes too long, the
    cheapest candidates begin with it, and the others are not tried.

    Args:
        costs: Of each candidate.
        sizes: Images of each level, 0 for all.
        probes: Seconds for scoring one candidate's features at each level.
        seconds: Left.
        top: How many should reach the last rung.
        eta: Of each rung's candidates the best 1/eta go on.

    Source: Jamieson and Talwalkar 2016, arXiv 1502.07943 (successive halving); Li et al. 2018, arXiv 1603.06560
        (Hyperband, for rungs of a bounded resource).
    """
    if not costs:
        return Schedule((), 0.0, ())
    every = tuple(sorted(costs, key=lambda name: costs[name].per_image))
    for first in range(len(sizes)):
        rungs = _rungs(len(every), sizes, first, top, eta)
        needed = _predicted(rungs, list(costs.values()), probes)
        if needed <= seconds:
            return Schedule(rungs, needed, every)
    # Too little even so: half of what is left for the first rung, for as many as it has time for.
    smallest, affordable, used = len(sizes) - 1, [], 0.0
    for name in every:
        cost = stage_seconds(costs[name], smallest, probes[smallest])
        if used + cost > seconds * (0.5 if smallest else 1.0):
            break
        used += cost
        affordable.append(name)
    rungs = _rungs(len(affordable), sizes, smallest, top, eta)
    return Schedule(rungs, _predicted(rungs, [costs[name] for name in affordable], probes), tuple(affordable))


def stage_seconds(cost: Cost, level: int, probe: float, before: int | None = None) -> float:
    """Time of one candidate in one rung: opened, the features computed that are lacking, and scored.

    Args:
        cost: The candidate's.
        level: The rung's.
        probe: Seconds for scoring.
        before: The level of the rung before, whose features are no longer lacking; None if there was none.
    """
    had = 0 if before is None else cost.lacking[before]
    return cost.opening + cost.per_image * max(0, cost.lacking[level] - had) + probe


def standing(right: Mapping[str, np.ndarray], ties: Mapping[str, float]) -> list[str]:
    """Names by falling share of right answers; ties by falling `ties`, then by name.

    Args:
        right: (n,) whether each of the same n images was classified rightly, for each candidate.
        ties: What settles equal shares, such as LogME.
    """
    return sorted(right, key=lambda name: (-float(right[name].mean()), -ties[name], name))


def surely_worse(better: np.ndarray, worse: np.ndarray) -> bool:
    """Whether one classifier is known to be right more often than another on images such as these.

    The 95% interval of the mean paired difference, by the normal approximation, lies above 0.

    Args:
        better: (n,) whether each image was classified rightly.
        worse: (n,) the same, by the other.
    """
    difference = better.astype(np.float64) - worse
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else math.inf
    return bool(difference.mean() - _Z * error > 0)


def survivors(ranked: Sequence[str], right: Mapping[str, np.ndarray], keep: int) -> tuple[list[str], list[str]]:
    """Who goes on: the best `keep`, and everyone who is not known to be worse than the last of these.

    A score of few images says little, so halving alone would throw good candidates away. Whether time allows for all
    is asked later, best first.

    Args:
        ranked: As `standing` gives them.
        right: As for `standing`.
        keep: At least so many.

    Returns:
        Those that go on and those that do not, best first.
    """
    last = ranked[min(keep, len(ranked)) - 1]
    on = [name for place, name in enumerate(ranked) if place < keep or not surely_worse(right[last], right[name])]
    return on, [name for name in ranked if name not in on]


def promoted(
    ranked: Sequence[str], seconds: Mapping[str, float], share: float, everything: float
) -> tuple[list[str], list[str]]:
    """Of those that may go on, the ones that the next rung has time for, best first.

    Args:
        ranked: Best first.
        seconds: Predicted of each in the next rung.
        share: Of the time left, for this rung.
        everything: The time left.

    Returns:
        Those that go on and those that do not. The best may have all that is left; a cheaper candidate may still fit
        where a better one did not.
    """
    on: list[str] = []
    used = 0.0
    for name in ranked:
        if used + seconds[name] <= (share if on else everything):
            on.append(name)
            used += seconds[name]
    return on, [name for name in ranked if name not in on]


def _rungs(candidates: int, sizes: Sequence[int], first: int, top: int, eta: int) -> tuple[Rung, ...]:
    levels = range(first, -1, -1)
    keeps = [min(candidates, max(top, math.ceil(candidates / eta**place))) for place in range(len(levels))]
    return tuple(Rung(level, sizes[level], keep) for level, keep in zip(levels, keeps, strict=True))


def _predicted(rungs: Sequence[Rung], costs: Sequence[Cost], probes: Sequence[float]) -> float:
    """Of all rungs: who will survive is not known, so each survivor is reckoned as dear as the average."""
    if not costs:
        return 0.0
    total, before = 0.0, None
    for rung in rungs:
        each = [stage_seconds(cost, rung.level, probes[rung.level], before) for cost in costs]
        total += rung.keep * sum(each) / len(each)
        before = rung.level
    return total
