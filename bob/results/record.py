"""The immutable record that a run leaves: what was asked, what came out, what it took and where it ran."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bob import places
from bob.errors import UserError
from bob.results.any import read_predictions
from bob.results.judged import Judged, Row

# Raised when a record gains a key, which an older bob would call unknown; keys that are added have a default, so that
# older records still read. 2: per_group. 3: breakdown.
SCHEMA_VERSION = 3
RUNS = "runs"
RECORD_FILE = "record.json"
PREDICTIONS_FILE = "predictions.parquet"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Request(_Part):
    """What was asked, in names and content hashes; its hash is the run's id.

    Attributes:
        backbone: Name of the backbone.
        backbone_identity: Weights, preprocessing, feature and code.
        task: Name of the task.
        task_version: Version on its card.
        data: Source, content hash of the images and checksum of each split.
        protocol: Name, version, probe and grid.
        metrics: Names of the metrics, the primary one first.
        seed: Of everything random in the run.
        precision: Of the forward pass.
    """

    backbone: str
    backbone_identity: dict[str, Any]
    task: str
    task_version: int
    data: dict[str, Any]
    protocol: dict[str, Any]
    metrics: tuple[str, ...]
    seed: int
    precision: str

    def run_id(self) -> str:
        """16 hex digits of the request's SHA-256: the same request, the same id."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def folder_name(self) -> str:
        """A folder name that a person can read; the id at its end makes it unique."""
        words = (self.backbone, self.task, self.protocol["name"], f"s{self.seed}")
        return "__".join(re.sub(r"[^\w.-]+", "-", word)[-60:].strip("-") for word in words) + f"__{self.run_id()}"


class MetricResult(_Part):
    """One metric on the test split, with its 95% interval."""

    value: float
    low: float
    high: float
    n: int
    higher_is_better: bool


class Cost(_Part):
    """What the run took: measurements, which differ from run to run, and the model's size, which does not.

    Attributes:
        seconds: Wall time of each stage; `extract` is what the features took when they were computed.
        images_per_second: Of the extraction, decoding included.
        waiting_fraction: Share of the extraction in which the device waited for decoded images.
        peak_memory_bytes: Of the process, or of the GPU if one was used.
        parameters: Of the feature extractor.
        flops: Of one image's forward pass; a multiply-add counts as two.
    """

    seconds: dict[str, float]
    images_per_second: float
    waiting_fraction: float
    peak_memory_bytes: int
    parameters: int
    flops: int


class Record(_Part):
    """One run, complete. Scores do not depend on `cost` or `created`, and two equal runs differ in nothing else."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    request: Request
    card: dict[str, Any]
    task_card: dict[str, Any]
    data_facts: dict[str, Any]
    feature_width: int
    chosen: dict[str, Any]
    grid: list[dict[str, Any]]
    notes: tuple[str, ...]
    primary: str
    metrics: dict[str, MetricResult]
    per_class: list[dict[str, str | int | float]]
    per_group: list[dict[str, str | int | float]] = []
    breakdown: dict[str, list[Row]] = {}
    predictions_sha256: str = ""
    environment: dict[str, Any]
    cost: Cost
    created: str

    def write(
        self, results: Path, predictions: Judged, write_files: Callable[[Path], None] = lambda folder: None
    ) -> Path:
        """Write the record with its predictions beside it, both or neither; return their folder.

        Args:
            results: Folder of all records.
            predictions: Of each sample of the test split.
            write_files: Writes more into the record's folder.

        Raises:
            OSError: If the disk refuses.
        """
        folder = record_folder(results, self.request)
        with places.atomic_folder(folder) as temporary:
            predictions.write(temporary / PREDICTIONS_FILE)
            write_files(temporary)
            content = (temporary / PREDICTIONS_FILE).read_bytes()
            complete = self.model_copy(update={"predictions_sha256": hashlib.sha256(content).hexdigest()})
            text = complete.model_dump_json(indent=1) + "\n"
            (temporary / RECORD_FILE).write_text(text, encoding="utf-8")
        return folder


def record_folder(results: Path, request: Request) -> Path:
    """Where the record of a request lies, or would."""
    return results / RUNS / request.folder_name()


def has_record(results: Path, request: Request) -> bool:
    """Whether the request has been answered."""
    return (record_folder(results, request) / RECORD_FILE).is_file()


def require_writable(results: Path) -> None:
    """Make the folder of the records, so that a run fails before it computes anything, not after.

    Raises:
        UserError: If it cannot be written to.
    """
    folder = results / RUNS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"Cannot write records to {folder}: {error.strerror}.", "Give another folder: --results DIR."
        ) from error


def read_records(results: Path) -> Iterator[Record]:
    """Read every record below a results folder, in the order of folder names.

    Raises:
        UserError: If the folder has no records, or one of them cannot be read.
    """
    paths = sorted((results / RUNS).glob(f"[!.]*/{RECORD_FILE}"))
    if not paths:
        raise UserError(
            f"There are no records in {results / RUNS}.", "Make some with `bob run`, or give --results DIR."
        )
    yield from map(read_record, paths)


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
        UserError: If it is missing, damaged or of a newer schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}.", "Update bob.")
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise UserError(f"Cannot read the record {path}: {reason}.", "Delete its folder and run it again.")


def predictions_of(record_path: Path) -> Judged:
    """The per-sample predictions beside a record, of whichever kind its task has.

    Raises:
        UserError: If one of the two files is missing or damaged, or they do not belong together.
    """
    expected, path = read_record(record_path).predictions_sha256, record_path.with_name(PREDICTIONS_FILE)
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise UserError(f"{path} is not what its record was made from.", "Delete its folder and run it again.")
    return read_predictions(path)
