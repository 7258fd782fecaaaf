"""Whether records are what was written: checksums, ids, and every score computed again from the predictions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bob.errors import UserError
from bob.results.any import read_predictions
from bob.results.draws import unpack
from bob.results.globs import matches_any
from bob.results.judged import Judged
from bob.results.judging import judge
from bob.results.processes import each
from bob.results.reading import parse_record
from bob.results.record import PREDICTIONS_FILE, RECORD_FILE, RUNS, Record, seal_of
from bob.results.schema import SINCE

# Sums come out differently in their last digits where another version of a library, or another processor, adds up in
# another order. The first is relative, the second for values that are 0 but for such noise.
TOLERANCE = (1e-9, 1e-12)
_FLOAT32_TOLERANCE = 3e-7  # the same of `resampled`: two steps of a float32
_TABLES = ("per_class", "per_group", "breakdown")
_SEALED_SINCE = SINCE["content_sha256"]


@dataclass(frozen=True)
class Finding:
    """What was found out about one record.

    Attributes:
        name: Of its folder.
        schema: Its version; 0 where it cannot be read.
        problems: What differs, or why it cannot be read; empty if it matches.
        rounded: Whether a score agrees within `TOLERANCE` only, not to the last digit.
    """

    name: str
    schema: int
    problems: tuple[str, ...]
    rounded: bool = False

    @property
    def is_sealed(self) -> bool:
        """Whether the record has a checksum of its own."""
        return self.schema >= _SEALED_SINCE


def run_folders(results: Path) -> list[Path]:
    """The folders of all runs, by name; half-written ones begin with a dot and are left out.

    Raises:
        UserError: If there are none.
    """
    folders = sorted(path for path in (results / RUNS).glob("[!.]*") if path.is_dir())
    if not folders:
        raise UserError(f"There are no records in {results / RUNS}.", "Give the folder that holds `runs`.")
    return folders


def verify_all(
    folders: Sequence[Path],
    jobs: int,
    advance: Callable[[int], None],
    backbones: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> list[Finding]:
    """Verify records in several processes; those whose names match no glob are left out, an empty list keeps all.

    A record that cannot be read may be anybody's, and is kept.
    """
    found = each(partial(verify, backbones=tuple(backbones), tasks=tuple(tasks)), folders, jobs, advance)
    return [finding for finding in found if finding is not None]


def verify(folder: Path, backbones: Sequence[str] = (), tasks: Sequence[str] = ()) -> Finding | None:
    """Verify one record: its files, and every score computed again; None if its names match no glob."""
    record, problems = integrity(folder)
    if record is None:
        return Finding(folder.name, 0, tuple(problems))
    asked = ((record.request.backbone, backbones), (record.request.task, tasks))
    if any(globs and not matches_any(name, globs) for name, globs in asked):
        return None
    rounded = False
    try:
        check_predictions(record, folder)
        found = list(compare_scores(record, read_predictions(folder / PREDICTIONS_FILE)))
        rounded = any(difference.is_rounding for difference in found)
        problems += [str(difference) for difference in found if not difference.is_rounding]
    except UserError as error:
        problems.append(error.problem.rstrip("."))
    return Finding(folder.name, record.schema_version, tuple(problems), rounded)


def integrity(folder: Path) -> tuple[Record | None, list[str]]:
    """Look at a record's own file: the record if it can be read, and what is wrong with it.

    A record that was changed is read all the same, so that it can be said what is wrong.
    """
    path = folder / RECORD_FILE
    try:
        content = path.read_bytes()
        record = parse_record(content, path)
    except (UserError, OSError) as error:
        return None, [error.problem.rstrip(".") if isinstance(error, UserError) else str(error)]
    stated, own = seal_of(content)
    problems = []
    if record.schema_version >= _SEALED_SINCE and not stated:
        problems.append("content_sha256 is missing or is no checksum")
    elif stated != own or record.content_sha256 != stated:
        problems.append(f"content_sha256: stated {stated[:12] or 'nothing'}, the file has {own[:12]}")
    newer = [key for key, since in SINCE.items() if since > record.schema_version and key in record.model_fields_set]
    if newer:
        problems.append(f"schema {record.schema_version} has no {', '.join(newer)}")
    if record.run_id != (own_id := record.request.run_id()):
        problems.append(f"run_id: stated {record.run_id}, the request's is {own_id}")
    if not folder.name.endswith(f"__{own_id}"):
        problems.append(f"the folder's name does not end in __{own_id}")
    return record, problems


def check_predictions(record: Record, folder: Path) -> None:
    """Make sure that the predictions beside a record are those that it was made from.

    Raises:
        UserError: If the file is missing, or is another.
    """
    path = folder / PREDICTIONS_FILE
    if not path.is_file():
        raise UserError(f"{PREDICTIONS_FILE} is missing")
    with path.open("rb") as file:
        own = hashlib.file_digest(file, "sha256").hexdigest()
    if own != record.predictions_sha256:
        stated = record.predictions_sha256[:12] or "nothing"
        raise UserError(f"predictions_sha256: stated {stated}, the file has {own[:12]}")


@dataclass(frozen=True)
class Difference:
    """A value of a record that is not what it should be."""

    key: str
    stated: object
    found: object

    @property
    def is_rounding(self) -> bool:
        """Whether the two are numbers that differ by rounding alone."""
        if not (isinstance(self.stated, float) and isinstance(self.found, float)):
            return False
        relative, absolute = TOLERANCE
        return math.isclose(self.stated, self.found, rel_tol=relative, abs_tol=absolute)

    def __str__(self) -> str:
        return f"{self.key}: stated {_short(self.stated)}, recomputed {_short(self.found)}"


def compare_scores(record: Record, predictions: Judged) -> Iterator[Difference]:
    """Compute everything again that follows from the predictions, and give what differs in any digit.

    Raises:
        UserError: If a metric does not fit the predictions, or is not known.
    """
    judgement = judge(predictions, record.request.metrics, record.primary, bootstrap_seed(record))
    tables = [key for key in _TABLES if SINCE.get(key, 1) <= record.schema_version]
    again = {"metrics": judgement.metrics} | {key: getattr(predictions, key)() for key in tables}
    # By way of JSON, as it was written: a NaN is null there, a tuple a list.
    complete = Record.model_validate({**dict(record), **again})
    stated, found = (json.loads(each.model_dump_json(include=set(again))) for each in (record, complete))
    for key in again:
        yield from differences(stated[key], found[key], key)
    if record.schema_version >= SINCE["resampled"] and not _same_draws(record.resampled, judgement.resampled):
        yield Difference("resampled", record.resampled[:12], judgement.resampled[:12])


def bootstrap_seed(record: Record) -> int:
    """With which seed the resamples of a run were drawn: before schema 4 with its own."""
    return record.request.seed if record.schema_version < SINCE["resampled"] else 0


def differences(stated: Any, found: Any, key: str) -> Iterator[Difference]:
    """What differs between two values of JSON, place by place."""
    if isinstance(stated, dict) and isinstance(found, dict):
        for name in dict.fromkeys([*stated, *found]):
            yield from differences(stated.get(name), found.get(name), f"{key}.{name}" if key else name)
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for number, (one, other) in enumerate(zip(stated, found, strict=True)):
            yield from differences(one, other, f"{key}[{number}]")
    elif type(stated) is not type(found) or stated != found:
        yield Difference(key, stated, found)


def _same_draws(stated: str, found: str) -> bool:
    if stated == found:
        return True
    try:
        ours, theirs = unpack(stated), unpack(found)
    except UserError:
        return False
    return ours.shape == theirs.shape and np.allclose(ours, theirs, _FLOAT32_TOLERANCE, TOLERANCE[1], equal_nan=True)


def _short(value: object) -> str:
    text = json.dumps(value) if not isinstance(value, list) else f"{len(value)} rows"
    return "nothing" if value is None else text if len(text) <= 60 else f"{text[:57]}..."
