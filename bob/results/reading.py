"""Records read back from disk, and checked: whole, of a known schema, with the predictions that they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sized
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from bob.errors import UserError
from bob.results.judged import Judged
from bob.results.record import PREDICTIONS_FILE, RECORD_FILE, RUNS, SCHEMA_VERSION, Record, is_sealed, is_whole


def read_records(results: Path) -> Iterator[Record]:
    """Read every record below a results folder, in the order of folder names.

    Raises:
        UserError: If the folder has no records, or one of them cannot be read.
    """
    paths = sorted((results / RUNS).glob(f"[!.]*/{RECORD_FILE}"))
    require_some(results, paths)
    yield from map(read_record, paths)


def require_some(results: Path, found: Sized) -> None:
    """Refuse a results folder without records.

    Raises:
        UserError: If `found` is empty.
    """
    if not len(found):
        raise UserError(
            f"There are no records in {results / RUNS}.", "Make some with `bob run`, or give --results DIR."
        )


def find_record(results: Path, run: str) -> Path:
    """Return the path of the record that a folder, the name of one, a run's id or the beginning of one means.

    Raises:
        UserError: If there is none, or several.
    """
    for place in (Path(run), results / RUNS / run):
        if (place / RECORD_FILE).is_file():
            return place / RECORD_FILE
    paths = sorted((results / RUNS).glob(f"[!.]*/{RECORD_FILE}"))
    meant = [path for path in paths if run and path.parent.name.rpartition("__")[2].startswith(run)]
    if len(meant) != 1:
        what = f"{len(meant)} runs" if meant else "no run"
        raise UserError(f"There is {what} '{run}' in {results / RUNS}.", "Give a folder's name from there, or its id.")
    return meant[0]


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        UserError: If it is missing, damaged, changed after it was written, or of a newer schema.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    return whole_record(content, path)


def whole_record(content: bytes, path: Path) -> Record:
    """Take a record out of the content of its file, if that is what was written.

    Raises:
        UserError: If it is damaged, changed after it was written, or of a newer schema; names `path`.
    """
    record = parse_record(content, path)
    if is_sealed(record) and not is_whole(content):
        raise UserError(
            f"The record {path} was changed after it was written.", "`bob results verify` says more; run it again."
        )
    return record


def parse_record(content: bytes, path: Path) -> Record:
    """Take a record out of the content of its file, whatever its checksum.

    Raises:
        UserError: If it is damaged or of a newer schema; names `path`.
    """
    record, reason = None, ""
    try:
        record = Record.model_validate_json(content)
        version = record.schema_version
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
        version = _version_of(content)
    if version > SCHEMA_VERSION:
        raise UserError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}.", "Update bob.")
    if record is None:
        raise _unreadable(path, reason)
    return record


def _version_of(content: bytes) -> int:
    """The schema version of a record that does not read; 0 if it says none."""
    with suppress(ValueError):
        said = json.loads(content)
        version = said.get("schema_version") if isinstance(said, dict) else None
        return version if isinstance(version, int) else 0
    return 0


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"Cannot read the record {path}: {reason}.", "Delete its folder and run it again.")


def predictions_of(record_path: Path) -> Judged:
    """The per-sample predictions beside a record, of whichever kind its task has.

    Raises:
        UserError: If one of the two files is missing or damaged, or they do not belong together.
    """
    from bob.results.any import read_predictions  # all kinds; whoever reads records alone does not wait for them

    expected, path = read_record(record_path).predictions_sha256, record_path.with_name(PREDICTIONS_FILE)
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise UserError(f"{path} is not what its record was made from.", "Delete its folder and run it again.")
    return read_predictions(path)
