"""Everything that one `bob data verify` found out: facts, findings, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bob import places
from bob.check.base import Finding
from bob.data.annotations import Problem
from bob.data.base import Dataset, Split
from bob.data.other_sets import PartedDataset
from bob.errors import UserError
from bob.progress import Reporter
from bob.task_cards import DataSpec, TaskCard
from bob.verify.checks import check_all, check_counts, check_leaks, check_readable
from bob.verify.duplicates import same_pixels
from bob.verify.look import Seen, look_at

_MOST_LISTED = 20  # images named below a finding; ...
_LISTED_WHOLE = ("readable", "annotations", "sets_readable")  # ... but for these


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Attributes:
        facts: The task, its source and how it was split, JSON-ready.
        findings: In the order of the checks.
    """

    facts: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(finding.status != "fail" for finding in self.findings)

    def lines(self) -> list[str]:
        """For people: the facts, each finding with the images that it is about, the verdict."""
        facts = [f"{key}: {value}" for key, value in self.facts.items()]
        return [*facts, "", *(line for finding in self.findings for line in _lines(finding)), "", self.verdict()]

    def __add__(self, other: Report) -> Report:
        return Report({**self.facts, **other.facts}, (*self.findings, *other.findings))

    def verdict(self) -> str:
        """One sentence: what to make of it."""
        named = {status: [f.name for f in self.findings if f.status == status] for status in ("fail", "warn")}
        if named["fail"]:
            return f"FAIL: {', '.join(named['fail'])}. Mend the data before trusting scores on them."
        if named["warn"]:
            return f"WARN: {', '.join(named['warn'])}. Nothing failed; read these lines before trusting scores."
        return f"PASS: all {len(self.findings)} checks."

    def to_json(self) -> str:
        """One JSON document."""
        findings = [finding.as_dict() for finding in self.findings]
        content = {"facts": self.facts, "findings": findings, "passed": self.passed, "verdict": self.verdict()}
        return json.dumps(content, indent=1)

    def save(self, path: Path) -> None:
        """Write the JSON document to a file.

        Raises:
            UserError: If it cannot be written.
        """
        try:
            with places.atomic_file(path) as temporary:
                temporary.write_text(self.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror}.", "Give another place with --out.") from error


def verify(card: TaskCard, dataset: Dataset, reporter: Reporter, workers: int | None = None) -> Report:
    """Read every image of an opened data set and ask every question.

    Args:
        card: The task's; its `[data]` says what is expected.
        dataset: Opened without checks of its own, and with annotations that cannot be used left out.
        reporter: Told what happens.
        workers: Worker processes; None for one a granted core, 0 to read in this process.

    Raises:
        UserError: If a worker process dies.
    """
    seen = _look(card, dataset, reporter, workers)
    facts = {"task": card.name, "source": dataset.source, "images": len(seen.names), **dataset.facts}
    return Report(facts, tuple(check_all(seen, card.data, _problems(dataset))))


def verify_sets(card: TaskCard, dataset: PartedDataset, reporter: Reporter, workers: int | None = None) -> Report:
    """Read every image of the sets behind a task's own test images: whether they are there, readable, and apart.

    Args:
        card: The task's.
        dataset: Opened, so that classes match and no outlier is known.
        reporter: Told what happens.
        workers: Worker processes; None for one a granted core, 0 to read in this process.

    Raises:
        UserError: If a worker process dies.
    """
    test, others = dataset.splits["test"], dataset.parts[1:]
    splits = {part.name: Split(test.images, test.indices[part.rows]) for part in others}
    seen = _look(card, Dataset(dataset.source, dataset.classes, splits), reporter, workers)
    findings = (
        check_counts(seen, DataSpec(source=card.data.source)),
        check_readable(seen),
        check_leaks(seen, same_pixels(seen)),
    )
    return Report({}, tuple(replace(finding, name=f"sets_{finding.name}") for finding in findings))


def _look(card: TaskCard, dataset: Dataset, reporter: Reporter, workers: int | None) -> Seen:
    with reporter.images(f"{card.name}: reading", sum(map(len, dataset.splits.values()))) as advance:
        seen = look_at(dataset, advance, workers)
    reporter.say(f"{card.name}: {len(seen.names):,} images read; comparing them")
    return seen


def _problems(dataset: Dataset) -> list[Problem]:
    """All annotations that the readers left out."""
    return [problem for images in dataset.image_sets() for problem in getattr(images, "problems", ())]


def _lines(finding: Finding) -> Iterator[str]:
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    yield f"{finding.status.upper()} {finding.name}: {finding.detail}{remedy}"
    images = finding.values.get("images", [])
    most = len(images) if finding.name in _LISTED_WHOLE else _MOST_LISTED
    yield from (f"  {image}" for image in images[:most])
    if len(images) > most:
        yield f"  and {len(images) - most:,} more; --json has them all"
