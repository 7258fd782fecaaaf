"""The questions about boxes and masks: whether all can be used, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bob.check.base import Finding
from bob.data.annotations import Problem
from bob.task_cards import DataSpec
from bob.verify.tally import Tally

if TYPE_CHECKING:
    from bob.verify.look import Seen

_MOST_IGNORED = 0.5  # share of a split's pixels from which on scores are of the lesser part
_SIZES = ("small", "medium", "large")


def check_dense(seen: Seen, problems: Sequence[Problem], spec: DataSpec) -> list[Finding]:
    """Ask every question about annotations that say what is where."""
    held = check_objects(seen) if seen.kind == "detection" else check_pixels(seen)
    return [check_annotations(seen, problems, spec), held]


def check_annotations(seen: Seen, problems: Sequence[Problem], spec: DataSpec) -> Finding:
    """List every annotation that cannot be used, by file and number."""
    torn = [f"{seen.where(row)}: {reason}" for row, reason in sorted(seen.look.torn.items())]
    rows = [*map(str, problems), *torn]
    values = {"images": rows, "dropped": len(problems) if spec.drop_invalid else 0}
    if torn or (problems and not spec.drop_invalid):
        detail = f"{len(rows):,} cannot be used"
        remedy = "Mend them, or leave them out with drop_invalid = true in [data] of a task card."
        return Finding("annotations", "fail", detail, "Mend these files." if torn else remedy, values)
    if problems:
        detail = f"{len(rows):,} are left out, as the card says"
        return Finding("annotations", "warn", detail, "Scores are of the others.", values)
    return Finding("annotations", "pass", f"of all {int(seen.readable.sum()):,} readable images", values=values)


def check_objects(seen: Seen) -> Finding:
    """Tell how many objects there are, of which size, and what is left out of the score."""
    values = {split: _objects(seen, split, tally) for split, tally in seen.tallies.items()}
    told = [
        f"{split} {held['objects']:,} ({', '.join(f'{held[size]:,} {size}' for size in _SIZES)}), "
        f"{held['crowd_regions']:,} crowd regions, {held['images_without']:,} images without"
        for split, held in values.items()
    ]
    if none := [split for split, held in values.items() if not held["objects"]]:
        return Finding("objects", "fail", f"none in {', '.join(none)}", "Annotate some.", values)
    return Finding("objects", "pass", "; ".join(told), values=values)


def check_pixels(seen: Seen) -> Finding:
    """Tell how many pixels each class has, and how many count for nothing."""
    values = {split: _pixels(seen, tally) for split, tally in seen.tallies.items()}
    told = [
        f"{split} {held['pixels']:,}, {held['ignored_share']:.1%} ignored, {held['images_without']:,} images wholly"
        for split, held in values.items()
    ]
    if none := [split for split, held in values.items() if held["ignored_share"] == 1]:
        return Finding("pixels", "fail", f"nothing but ignored in {', '.join(none)}", "Correct 'ignore'.", values)
    if most := [split for split, held in values.items() if held["ignored_share"] > _MOST_IGNORED]:
        remedy = f"Make sure that 'ignore' is right: scores are of the lesser part of {', '.join(most)}."
        return Finding("pixels", "warn", "; ".join(told), remedy, values)
    return Finding("pixels", "pass", "; ".join(told), values=values)


def _objects(seen: Seen, split: str, tally: Tally) -> dict[str, Any]:
    return {
        "images": len(seen.rows_of(split)),
        "objects": int(tally.objects.sum()),
        **dict(zip(_SIZES, tally.areas.tolist(), strict=True)),
        "crowd_regions": int(tally.crowds.sum()),
        "images_without": int(tally.empty[0]),
        "by_class": _by_class(seen, tally.objects),
    }


def _pixels(seen: Seen, tally: Tally) -> dict[str, Any]:
    ignored, counted = int(tally.ignored[0]), int(tally.pixels.sum())
    return {
        "pixels": ignored + counted,
        "ignored_share": ignored / max(ignored + counted, 1),
        "images_without": int(tally.empty[0]),
        "by_class": _by_class(seen, tally.pixels),
    }


def _by_class(seen: Seen, counted: np.ndarray) -> dict[str, int]:
    return dict(zip(seen.classes, counted.tolist(), strict=True))
