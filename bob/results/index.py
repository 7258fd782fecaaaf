"""The runs of a results folder, read once: what is unchanged since comes out of one file instead of all records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic_core import from_json

from bob import places
from bob.cores import granted_cores
from bob.results.processes import each
from bob.results.reading import read_record, require_some, whole_record
from bob.results.record import RECORD_FILE, RUNS, SCHEMA_VERSION, Record, is_whole
from bob.results.runs import SCHEMA, runs_of, table_of

FORMAT = b"1"  # raised when a column's meaning changes
_CHUNK = 500  # records that a process reads at a time
_THREADS = 16  # that wait for the disk: of files that are not in memory, one after another takes twice as long
_PIECE = 64  # files that a thread takes at a time; handing over one by one would take longer than reading
# What tells a file that was not touched since: time of its last change in ns, size in bytes, inode.
_STAMP = ("modified", "size", "inode")
Stamp: TypeAlias = tuple[int, int, int]
Result = TypeVar("Result")


def read_runs(results: Path) -> pd.DataFrame:
    """The frame of all records below a results folder; see `runs.runs_of`.

    A copy of what was read is kept in `places.home()`, and only records that are new or changed (by the file's time,
    size and inode) are read again. Where the copy cannot be written, everything is read each time.

    Raises:
        UserError: If the folder has no records, or one of them cannot be read.
    """
    return runs_of(_read_table(results).select(SCHEMA.names))


def records_of(results: Path, runs: pd.DataFrame) -> Iterator[Record]:
    """Read the records of some runs, in their order.

    Args:
        results: Folder of all records.
        runs: Some rows of what `read_runs` gave.

    Raises:
        UserError: If one of them cannot be read.
    """
    for folder in runs["folder"]:
        yield read_record(results / RUNS / folder / RECORD_FILE)


def _read_table(results: Path) -> pa.Table:
    runs = results / RUNS
    path = places.home() / "indexes" / f"{hashlib.sha256(os.fsencode(results.absolute())).hexdigest()[:16]}.arrow"
    known = _stored(path)
    stamps = list(zip(*(known[column].to_pylist() for column in _STAMP), strict=True))
    there = _folders(runs)
    found = [_stamp(os.fspath(runs), name) if name in there else None for name in known["folder"].to_pylist()]
    same = [now == before for now, before in zip(found, stamps, strict=True)]
    table = known if all(same) else known.filter(pa.array(same))
    unread = sorted(there - set(table["folder"].to_pylist()))
    if unread:
        table = pa.concat_tables([table, _read(runs, unread)]).sort_by("folder")
    require_some(results, table["folder"])
    if not all(same) or len(table) > len(known):
        _store(table, path)
    return table


def _folders(runs: Path) -> set[str]:
    """The names of folders that may hold a record; half-written ones begin with a dot."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return {name for name in os.listdir(runs) if not name.startswith(".")}
    return set()


def _together(function: Callable[[str], Result], names: Sequence[str]) -> Iterator[Result]:
    """Apply a function that waits for the disk to each name, in order, many waiting at once."""
    pieces = [names[start : start + _PIECE] for start in range(0, len(names), _PIECE)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for piece in pool.map(lambda part: [function(name) for name in part], pieces):
            yield from piece


def _stamp(runs: str, name: str) -> Stamp | None:
    """The stamp of the record in a folder; None if there is none."""
    try:
        return _stamp_of(os.stat(f"{runs}/{name}/{RECORD_FILE}"))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _load(runs: str, name: str) -> tuple[Stamp, bytes] | None:
    """A record's stamp and then its content, so that a change in between shows the next time; None if there is none."""
    try:
        with open(f"{runs}/{name}/{RECORD_FILE}", "rb", buffering=0) as file:
            return _stamp_of(os.fstat(file.fileno())), file.readall()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stamp_of(said: os.stat_result) -> Stamp:
    return said.st_mtime_ns, said.st_size, said.st_ino


def _stored(path: Path) -> pa.Table:
    """What was kept of an earlier reading, mapped into memory; no rows if there is none that can be used."""
    with suppress(OSError, pa.ArrowException):
        table = pa.ipc.open_file(pa.memory_map(os.fspath(path))).read_all()
        if table.schema.equals(_kept_schema(), check_metadata=True):
            return table
    return _kept_schema().empty_table()


def _store(table: pa.Table, path: Path) -> None:
    with suppress(OSError):  # it is a copy: whoever cannot keep it reads the records again
        path.parent.mkdir(parents=True, exist_ok=True)
        with places.atomic_file(path) as temporary, pa.ipc.new_file(os.fspath(temporary), table.schema) as file:
            file.write_table(table)


def _read(runs: Path, names: Sequence[str]) -> pa.Table:
    """The rows, with stamps, of the records in these folders; a folder may have none."""
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    return pa.concat_tables(each(partial(_read_chunk, os.fspath(runs)), chunks, granted_cores(), lambda _: None))


def _read_chunk(runs: str, names: Sequence[str]) -> pa.Table:
    loaded = {name: read for name, read in zip(names, _together(partial(_load, runs), names), strict=True) if read}
    contents = (_content(content, Path(runs, name, RECORD_FILE)) for name, (_, content) in loaded.items())
    table = table_of(contents)
    # Where a record was found, its content does not say.
    table = table.set_column(table.schema.get_field_index("folder"), "folder", pa.array([*loaded], pa.string()))
    stamps = np.array([stamp for stamp, _ in loaded.values()], dtype=np.int64).reshape(-1, len(_STAMP))
    for place, column in enumerate(_STAMP):
        table = table.append_column(column, pa.array(stamps[:, place]))
    return table.cast(_kept_schema())


def _content(content: bytes, path: Path) -> dict[str, Any]:
    """The JSON of a valid record; one that is to the byte what bob wrote is valid, and is not looked at closely.

    Raises:
        UserError: If it cannot be read, or was changed.
    """
    if is_whole(content):
        record: dict[str, Any] = from_json(content)
        if record["schema_version"] <= SCHEMA_VERSION:
            return record
    return whole_record(content, path).model_dump(mode="json")


def _kept_schema() -> pa.Schema:
    stamps = [(column, pa.int64()) for column in _STAMP]
    return pa.schema([*SCHEMA, *stamps], metadata={b"bob_index": FORMAT})
