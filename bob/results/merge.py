"""Results folders of several machines joined into one: new runs are copied, equal ones kept once, others refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bob import places
from bob.errors import UserError
from bob.results.processes import each
from bob.results.reading import read_record
from bob.results.record import RECORD_FILE, RUNS, TRAINING, Record
from bob.results.schema import SINCE
from bob.results.verify import bootstrap_seed, check_predictions, differences, integrity, run_folders

# What two runs of one request may differ in: when, where and how dearly they were made.
ASIDE = ("cost", "created", "environment", "command", "content_sha256")
_SHOWN = 4  # keys named of a conflict


@dataclass(frozen=True)
class Copy:
    """A run as it lies in one of the folders.

    Attributes:
        folder: Of the run.
        run_id: At the end of its name.
        schema: Version of the record; 0 where it cannot be read.
        digest: Hash of all that equal runs have in common.
        problem: Why it must not be copied; empty if it may.
    """

    folder: Path
    run_id: str
    schema: int = 0
    digest: str = ""
    problem: str = ""


@dataclass
class Plan:
    """What a merge would do.

    Attributes:
        new: Folders of the runs that the target lacks.
        present: How many runs the target has already.
        repeated: How many more copies there are of runs that are new.
        refused: Lines on conflicts and damaged records; if there is any, nothing may be written.
    """

    new: list[Path] = field(default_factory=list)
    present: int = 0
    repeated: int = 0
    refused: list[str] = field(default_factory=list)


def plan(sources: Sequence[Path], target: Path, jobs: int, advance: Callable[[int], None]) -> Plan:
    """Find out which runs of the sources the target lacks, and which cannot be joined.

    Args:
        sources: Results folders.
        target: Results folder that the runs are to go to; it need not exist.
        jobs: Processes.
        advance: Told how many more runs were looked at, of all that the sources have.

    Raises:
        UserError: If a source has no runs, or is the target.
    """
    given = [folder for source in _distinct(sources, target) for folder in run_folders(source)]
    there = {_id_of(folder): folder for folder in (target / RUNS).glob("[!.]*") if folder.is_dir()}
    groups: dict[str, list[Copy]] = {}
    for copy in each(look, given, jobs, advance):
        groups.setdefault(copy.run_id, []).append(copy)
    held = [there[run_id] for run_id in groups if run_id in there]
    for copy in each(look, held, jobs, lambda count: None):
        groups[copy.run_id].insert(0, copy)
    found = Plan()
    for run_id, copies in sorted(groups.items(), key=lambda group: group[1][0].folder.name):
        _join(copies, run_id in there, found)
    return found


def carry_out(found: Plan, target: Path, advance: Callable[[int], None]) -> None:
    """Copy the new runs, each whole or not at all, together with what their training left.

    Raises:
        OSError: If the disk refuses.
    """
    for folder in found.new:
        # The record last: where it is, the rest is too, however often a merge was interrupted.
        for kind in (TRAINING, RUNS):
            source, goal = folder.parents[1] / kind / folder.name, target / kind / folder.name
            if source.is_dir() and not goal.exists():
                with places.atomic_folder(goal) as temporary:
                    shutil.copytree(source, temporary, dirs_exist_ok=True)
        advance(1)


def look(folder: Path) -> Copy:
    """Read a run's record and check it against its checksums, without computing scores."""
    record, problems = integrity(folder)
    if record is not None:
        try:
            check_predictions(record, folder)
        except UserError as error:
            problems.append(error.problem)
    if record is None or problems:
        return Copy(folder, _id_of(folder), problem="; ".join(problems))
    text = json.dumps(_content(record, record.schema_version), sort_keys=True)
    return Copy(folder, _id_of(folder), record.schema_version, hashlib.sha256(text.encode()).hexdigest())


def _join(copies: Sequence[Copy], is_there: bool, found: Plan) -> None:
    """Enter the copies of one run, that of the target first if it has one, into the plan."""
    damaged = [copy for copy in copies if copy.problem]
    found.refused += [f"{copy.folder} is damaged: {copy.problem}" for copy in damaged]
    sound = [copy for copy in copies if not copy.problem]
    for copy in sound[1:]:
        if keys := conflict(sound[0], copy):
            found.refused.append(f"{sound[0].folder} and {copy.folder} differ in {_listed(keys)}")
    if is_there:
        found.present += 1
    elif sound:
        found.new.append(max(sound, key=lambda copy: copy.schema).folder)  # the newest schema says most
        found.repeated += len(sound) - 1


def conflict(one: Copy, other: Copy) -> list[str]:
    """What two copies of a run differ in that equal runs have in common: keys with both values."""
    if one.digest == other.digest:
        return []
    records = [read_record(copy.folder / RECORD_FILE) for copy in (one, other)]
    version = min(record.schema_version for record in records)
    same_seed = len({bootstrap_seed(record) for record in records}) == 1
    ours, theirs = (_content(record, version, bounds=same_seed) for record in records)
    return [
        f"{found.key} ({_brief(found.stated)}, {_brief(found.found)})"
        for found in differences(ours, theirs, "")
        if not found.is_rounding
    ]


def _content(record: Record, version: int, bounds: bool = True) -> dict[str, Any]:
    """All that equal runs have in common, as far as a version of the schema holds it.

    Args:
        record: Of the run.
        version: Keys that are newer are left out.
        bounds: Keep the ends of intervals.
    """
    newer = {key for key, since in SINCE.items() if since > version}
    content = record.model_dump(mode="json", exclude={"schema_version", *ASIDE, *newer})
    scores = content.pop("metrics")
    if not bounds:
        for result in scores.values():
            del result["low"], result["high"]
    return {"metrics": scores, **content}  # what matters most is named first


def _distinct(sources: Iterable[Path], target: Path) -> Iterator[Path]:
    """The sources, each once.

    Raises:
        UserError: If one is the target.
    """
    seen = set()
    for source in sources:
        if source.resolve() == target.resolve():
            raise UserError(f"{source} is the folder to merge into.", "Name the others only, or another one by --into.")
        if source.resolve() not in seen:
            seen.add(source.resolve())
            yield source


def _id_of(folder: Path) -> str:
    return folder.name.rpartition("__")[2]


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:20]}..."
