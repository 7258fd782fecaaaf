"""The questions: one function each, from what was seen of a data set to a finding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bob.check.base import Finding
from bob.data.annotations import Problem
from bob.data.base import counts
from bob.task_cards import DataSpec
from bob.verify.dense import check_dense
from bob.verify.duplicates import nearly_same, same_pixels
from bob.verify.look import Seen

TINY = 16
"""Images with an edge shorter than this, in pixels, are told."""

_IMBALANCE = 10  # times as many images in the largest class as in the smallest, from which on means hide small classes
_QUANTILES = {"smallest": 0.0, "median": 0.5, "largest": 1.0}
_BLANK = 2  # values apart, at most, in an image that shows nothing


def check_all(seen: Seen, spec: DataSpec, problems: Sequence[Problem] = ()) -> list[Finding]:
    """Ask every question, in order; `problems` are annotations that could not be used."""
    exact = same_pixels(seen)
    dense = check_dense(seen, problems, spec) if seen.tallies else []
    return [
        check_counts(seen, spec),
        check_classes(seen, spec),
        check_balance(seen),
        check_readable(seen),
        *dense,
        check_leaks(seen, exact),
        check_near(seen, exact),
        check_labels(seen, exact),
        check_sizes(seen),
    ]


def check_counts(seen: Seen, spec: DataSpec) -> Finding:
    """Compare the number of images of each split with the card's `expect`."""
    found = {split: len(seen.rows_of(split)) for split in seen.splits}
    values = {"found": found, "expected": dict(spec.expect)}
    told = ", ".join(f"{split} {count:,}" for split, count in found.items())
    wrong = [f"{s} {found.get(s, 0):,} instead of {n:,}" for s, n in spec.expect.items() if found.get(s, 0) != n]
    if wrong:
        remedy = spec.layout or "Get the missing images, remove what does not belong, or correct `expect` on the card."
        return Finding("counts", "fail", "; ".join(wrong), remedy, values)
    if empty := [split for split, count in found.items() if not count]:
        return Finding("counts", "fail", f"no images in {', '.join(empty)}", "Add images.", values)
    known = ", as on the card" if spec.expect else "; the card expects no number"
    return Finding("counts", "pass", told + known, values=values)


def check_classes(seen: Seen, spec: DataSpec) -> Finding:
    """Compare the number of classes with the card's, and look for those that cannot be learnt or are not tested."""
    present = {split: count_classes(seen, split) > 0 for split in seen.splits}
    trained = present["train"]
    tested = np.any([there for split, there in present.items() if split != "train"], axis=0)
    unseen, unasked = _named(seen, ~trained & tested), _named(seen, trained & ~tested)
    empty = _named(seen, ~trained & ~tested)
    values = {"found": len(seen.classes), "expected": spec.classes, "names": list(seen.classes)}
    values |= {"missing_in_train": unseen, "only_in_train": unasked, "without_images": empty}
    if spec.classes not in (None, len(seen.classes)):
        detail = f"{len(seen.classes):,} instead of {spec.classes:,}"
        return Finding("classes", "fail", detail, "Correct the folders, or `classes` on the card.", values)
    if unseen and not spec.unseen_classes:
        remedy = "Add training images of them, or remove them."
        return Finding("classes", "fail", f"not in train: {_few(unseen)}", remedy, values)
    if rest := [*unasked, *empty]:
        said = "only in train" if unasked else "without images"
        return Finding("classes", "warn", f"{said}: {_few(rest)}", "Scores say nothing of them.", values)
    where = f"{len(unseen):,} not in train, as the card allows" if unseen else "all of them in train and in val or test"
    return Finding("classes", "pass", f"{len(seen.classes):,}, {where}", values=values)


def check_balance(seen: Seen) -> Finding:
    """Tell the smallest and the largest class of each split."""
    values: dict[str, dict[str, dict[str, Any]]] = {}
    worst = 1.0
    for split in seen.splits:
        images = count_classes(seen, split)
        present = np.flatnonzero(images)
        if not len(present):
            continue
        ends = {"smallest": present[images[present].argmin()], "largest": present[images[present].argmax()]}
        values[split] = {end: {"class": seen.classes[c], "images": int(images[c])} for end, c in ends.items()}
        worst = max(worst, images[ends["largest"]] / images[ends["smallest"]])
    detail = "; ".join(f"{split} {_ends(ends)}" for split, ends in values.items())
    if worst < _IMBALANCE or seen.tallies:  # average precision and mean IoU weigh classes alike
        return Finding("balance", "pass", detail, values=values)
    return Finding("balance", "warn", detail, "Read a metric that weighs classes alike, as mean_per_class.", values)


def check_readable(seen: Seen) -> Finding:
    """List every image that cannot be decoded in full."""
    broken = [f"{seen.where(row)}: {reason}" for row, reason in sorted(seen.look.errors.items())]
    values = {"images": broken}
    if broken:
        detail = f"{len(broken):,} of {len(seen.names):,} images cannot be read"
        return Finding("readable", "fail", detail, "Get these files again, or remove them.", values)
    return Finding("readable", "pass", f"all {len(seen.names):,} images", values=values)


def check_leaks(seen: Seen, exact: list[np.ndarray]) -> Finding:
    """Look for images whose very pixels are in two splits."""
    across = [group for group in exact if len(set(seen.split[group])) > 1]
    values = {"images": [f"{_together(seen, group)}{_same_file(seen, group)}" for group in across]}
    if not across:
        return Finding("duplicates", "pass", "no image is in two splits", values=values)
    detail = f"{len(across):,} images are in more than one split"
    return Finding("duplicates", "fail", detail, "Remove them from one; the test must be unseen.", values)


def check_near(seen: Seen, exact: list[np.ndarray]) -> Finding:
    """Look for images that are nearly the same in two splits: compressed, resized or brightened again."""
    pairs = nearly_same(seen, exact)
    rows = [f"{_together(seen, (pair.first, pair.second))} (correlation {pair.correlation:.4f})" for pair in pairs]
    values = {"images": rows}
    if not pairs:
        return Finding("near_duplicates", "pass", "no thumbnails of two splits are alike", values=values)
    detail = f"{len({pair.second for pair in pairs}):,} images look like one of another split"
    return Finding("near_duplicates", "warn", detail, "Look at these pairs; scores on them may be too high.", values)


def check_labels(seen: Seen, exact: list[np.ndarray]) -> Finding:
    """Look for one image with two labels, and count repeats, within each split."""
    within = [members for group in exact for members in _by_split(seen, group) if len(members) > 1]
    torn = [members for members in within if len(np.unique(seen.labels[members], axis=0)) > 1]
    repeats = sum(len(members) - 1 for members in within)
    rows = [" = ".join(f"{seen.where(row)} ({_label(seen, row)})" for row in members) for members in torn]
    values = {"repeats": repeats, "images": rows}
    if torn:
        detail = f"{len(torn):,} images have different labels in one split"
        remedy = "Correct the annotations." if seen.tallies else "Correct the labels, or make the task multi-label."
        return Finding("labels", "warn", detail, remedy, values)
    return Finding(
        "labels", "pass", f"no image has two labels; {repeats:,} repeat another of their split", values=values
    )


def check_sizes(seen: Seen) -> Finding:
    """Tell the sizes of the images, and which are tiny or show nothing."""
    rows = np.flatnonzero(seen.readable)
    if not len(rows):
        return Finding("sizes", "skip", "no image can be read")
    sizes, spread = seen.look.sizes[rows], seen.look.spread[rows]
    tiny, blank = rows[sizes.min(axis=1) < TINY], rows[spread <= _BLANK]
    ends = {name: np.quantile(sizes, share, axis=0).astype(int).tolist() for name, share in _QUANTILES.items()}
    told = [f"{seen.where(row)}: {' x '.join(map(str, seen.look.sizes[row]))} pixels" for row in tiny]
    told += [f"{seen.where(row)}: blank" for row in blank]
    values = {"height_width": ends, "tiny": len(tiny), "blank": len(blank), "images": told}
    low, middle, high = (" x ".join(map(str, ends[name])) for name in ("smallest", "median", "largest"))
    detail = f"height x width from {low} to {high}, median {middle}; {len(tiny):,} tiny, {len(blank):,} blank"
    if told:
        return Finding("sizes", "warn", detail, "Look at these images.", values)
    return Finding("sizes", "pass", detail, values=values)


def count_classes(seen: Seen, split: str) -> np.ndarray:
    """(L,) int64, the number of a split's images in each class; of a multi-label set, those that have it."""
    return counts(seen.labels[seen.rows_of(split)], len(seen.classes))


def _named(seen: Seen, mask: np.ndarray) -> list[str]:
    return [seen.classes[label] for label in np.flatnonzero(mask)]


def _few(names: list[str], most: int = 10) -> str:
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _ends(ends: dict[str, dict[str, Any]]) -> str:
    return " to ".join(f"{ends[end]['images']:,} ({ends[end]['class']})" for end in ("smallest", "largest"))


def _together(seen: Seen, rows: Iterable[int]) -> str:
    return " = ".join(seen.where(row) for row in rows)


def _same_file(seen: Seen, rows: np.ndarray) -> str:
    files = seen.look.files[rows]
    return " (the same file)" if files.any() and len(np.unique(files, axis=0)) == 1 else ""


def _by_split(seen: Seen, rows: np.ndarray) -> list[np.ndarray]:
    return [rows[seen.split[rows] == split] for split in np.unique(seen.split[rows])]


def _label(seen: Seen, row: int) -> str:
    label = seen.labels[row]
    if np.ndim(label) == 0:
        return seen.classes[label]
    return "|".join(_named(seen, label == 1)) or "none"
