"""The answer in words: a ranked table, what was not tried and why, and the commands to go on with."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pandas as pd

from bob.pick.budget import Deadline, spoken
from bob.pick.entry import Entry, Pick
from bob.pick.halving import surely_worse
from bob.requested import Settings
from bob.results.metrics import get_metric
from bob.results.reading import predictions_of
from bob.results.record import RECORD_FILE
from bob.results.statistics import paired_bootstrap
from bob.task_cards import TaskCard

COLUMNS = (
    "rank",
    "backbone",
    "score",
    "95%",
    "scored by",
    "fine-tuned",
    "images",
    "images/s",
    "seconds",
    "went no further because",
)
_NAMED = 5  # names of those that share a reason, before "and so many more"


def answer(
    task: TaskCard,
    settings: Settings,
    entries: Sequence[Entry],
    others: Mapping[str, str],
    notes: tuple[str, ...],
    deadline: Deadline,
) -> Pick:
    """Rank what was found.

    Scores of different stages cannot be compared: who came further stands higher.
    """
    ranked = sorted((entry for entry in entries if entry.tried), key=_place)
    untried = {entry.name: entry.ended for entry in entries if not entry.tried} | dict(others)
    tied = frozenset(entry.name for entry in ranked if entry is ranked[0] or _tied(ranked[0], entry))
    return Pick(task.name, settings.results, tuple(ranked), tied, untried, notes, deadline.spent(), deadline.seconds)


def table(found: Pick) -> pd.DataFrame:
    """One row for each candidate that has a score, best first; columns are `COLUMNS`, `low` and `high`, and `tied`."""
    rows = []
    for place, entry in enumerate(found.ranked, start=1):
        score, low, high, how, images = _score(entry)
        rows.append(
            {
                "rank": place,
                "backbone": entry.name,
                "tied": entry.name in found.tied,
                "score": score,
                "low": low,
                "high": high,
                "scored by": how,
                "fine-tuned": entry.finetune.top1 if entry.finetune else None,
                "images": images,
                "images/s": entry.images_per_second,
                "seconds": entry.seconds,
                "went no further because": entry.ended,
            }
        )
    return pd.DataFrame(rows)


def printed(found: Pick) -> list[list[str]]:
    """The rows of `table` as people read them, under `COLUMNS`; `=` marks those tied with the first."""
    return [
        [
            f"{row['rank']}{'=' if row['tied'] and len(found.tied) > 1 else ''}",
            row["backbone"],
            f"{row['score']:.3f}",
            f"[{row['low']:.3f}, {row['high']:.3f}]",
            row["scored by"],
            "" if pd.isna(row["fine-tuned"]) else f"{row['fine-tuned']:.3f}",
            f"{row['images']:,}",
            f"{row['images/s']:.1f}",
            f"{row['seconds']:.1f}",
            row["went no further because"],
        ]
        for row in table(found).to_dict("records")
    ]


def closing_lines(found: Pick) -> list[str]:
    """What the table does not say: ties, what was not tried, what it took, and how to go on."""
    lines = [_verdict(found), *found.notes]
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in found.untried.items():
        by_reason[reason].append(name)
    for reason, names in by_reason.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(f"Not tried: {', '.join(names[:_NAMED])}{more}: {reason.rstrip('.')}.")
    lines.append(f"{spoken(found.seconds)} of {spoken(found.budget)} spent.")
    return [*lines, "To go on:", *(f"  {command}" for command in commands(found))]


def commands(found: Pick) -> list[str]:
    """The commands that a user may want next."""
    best, task, results = found.best, shlex.quote(found.task), shlex.quote(str(found.results))
    common = f"--task {task} --results {results}"
    tested = [entry for entry in found.ranked if entry.linear]
    lines = []
    if best.finetune is None:
        lines.append(f"bob run --backbone {shlex.quote(best.name)} {common} --protocol finetune")
    if len(tested) > 1:
        pair = " ".join(shlex.quote(entry.name) for entry in tested[:2])
        lines.append(f"bob compare {pair} {common} --protocol linear")
    rest = [entry.name for entry in found.ranked if not entry.linear]
    if rest:
        lines.append(f"bob run --backbone {shlex.quote(','.join(rest))} {common} --protocol linear")
    return [*lines, f"bob leaderboard {common}"]


def _verdict(found: Pick) -> str:
    best, others = found.best, [entry.name for entry in found.ranked[1:] if entry.name in found.tied]
    if others:
        return f"{best.name} is first, but not known to be better than {', '.join(others)} (marked =)."
    if len(found.ranked) == 1:
        return f"{best.name} is the only one that has a score."
    further = [entry.name for entry in found.ranked[1:] if _stage(entry) == _stage(best)]
    known = f", known to be better than {', '.join(further)} on these images" if further else ""
    return f"{best.name} is first{known}."


def _stage(entry: Entry) -> int:
    """How far it came: the higher, the further."""
    return 999 if entry.linear else len(entry.scores)


def _place(entry: Entry) -> tuple[int, bool, float, str]:
    """What to sort by. Those fine-tuned were the best before it, so they stay ahead, in the order that it gives."""
    score = entry.finetune.top1 if entry.finetune else _score(entry)[0]
    return -_stage(entry), entry.finetune is None, -score, entry.name


def _score(entry: Entry) -> tuple[float, float, float, str, int]:
    """Score, interval, how it was found and from how many images learnt, at the last rung that it came to."""
    last = entry.linear
    if last is not None:
        found, data = last.record.metrics[last.record.primary], last.record.request.data["splits"]
        how = f"{last.record.request.protocol['name']}, {found.n} test images"
        return found.value, found.low, found.high, how, sum(data[name]["n"] for name in ("train", "val"))
    score = entry.scores[-1]
    return score.top1, *score.interval(), score.method, len(score.right)


def _tied(best: Entry, other: Entry) -> bool:
    """Whether one that came as far as the best is not known to be worse."""
    if _stage(best) != _stage(other):
        return False
    alike = best.finetune and other.finetune
    first, second = (best.finetune, other.finetune) if alike else (best.linear, other.linear)
    if first and second:
        metric = get_metric(first.record.primary)
        found = paired_bootstrap(metric, *(predictions_of(run.folder / RECORD_FILE) for run in (first, second)))
        return found.low <= 0 <= found.high
    return not surely_worse(best.scores[-1].right, other.scores[-1].right)
