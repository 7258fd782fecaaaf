"""The immutable record that a run leaves: what was asked, what came out, what it took and where it ran."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bob import places
from bob.errors import UserError
from bob.results.judged import Judged, Row

# Raised when a record gains a key, which an older bob would call unknown; keys that are added have a default, so that
# older records still read. 2: per_group. 3: breakdown. 4: content_sha256, resampled, command; all runs are
# resampled with seed 0, where older ones took their own.
SCHEMA_VERSION = 4
RUNS = "runs"
TRAINING = "training"  # folder, beside the records, of what training runs keep
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
    """One metric on the test split, with its 95% interval.

    Attributes:
        value: On the test split itself.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Units of the test split that a resample draws.
        higher_is_better: Whether more is better.
    """

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
    """One run, complete. Two equal runs on one machine differ in `cost`, `created` and the checksum, in nothing else.

    Attributes:
        schema_version: Which keys there are.
        content_sha256: Of the file's text with this value left empty; empty in what is not yet written, and before
            schema 4.
        run_id: Hash of the request.
        request: What was asked.
        card: Of the backbone.
        task_card: Of the task.
        data_facts: What was found out about the data.
        feature_width: D of the features that the classifier reads.
        chosen: The hyperparameters that won on validation.
        grid: Every point tried, with its validation scores.
        notes: What a reader of the numbers should know.
        primary: Name of the metric that stands in the table.
        metrics: By name, with 95% intervals.
        resampled: Base64 of little-endian float32: the primary metric on the first 500 bootstrap resamples, which are
            the same for every backbone on a test split; empty before schema 4.
        per_class: A row for each class that the test split shows.
        per_group: A row for each group, where there are some.
        breakdown: Further tables by name, such as a row for each set of the test split.
        predictions_sha256: Of the file beside the record.
        environment: Versions, device, cores.
        command: The line that makes the run again; empty before schema 4.
        cost: What the run took.
        created: When it ended, in UTC.
    """

    schema_version: int = SCHEMA_VERSION
    content_sha256: str = ""
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
    resampled: str = ""
    per_class: list[dict[str, str | int | float]]
    per_group: list[dict[str, str | int | float]] = []
    breakdown: dict[str, list[Row]] = {}
    predictions_sha256: str = ""
    environment: dict[str, Any]
    command: str = ""
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
            (temporary / RECORD_FILE).write_text(sealed(complete), encoding="utf-8", newline="\n")
        return folder


_SEALED = 4  # the schema from which on a record has a checksum
_SEAL = re.compile(
    rb'"content_sha256": ?"([0-9a-f]*)"'
)  # its first match is the record's own: only a number is before it


def sealed(record: Record) -> str:
    """The text of a record's file, with its own checksum."""
    text = record.model_copy(update={"content_sha256": ""}).model_dump_json(indent=1) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.replace('"content_sha256": ""', f'"content_sha256": "{digest}"', 1)


def seal_of(content: bytes) -> tuple[str, str]:
    """The checksum that a record's file states, and the one that it has; equal if not a byte was changed.

    The first is empty in files older than schema 4.
    """
    found = _SEAL.search(content)
    if not found:
        return "", ""
    emptied = content[: found.start(1)] + content[found.end(1) :]
    return found.group(1).decode(), hashlib.sha256(emptied).hexdigest()


def record_folder(results: Path, request: Request) -> Path:
    """Where the record of a request lies, or would."""
    return results / RUNS / request.folder_name()


def has_record(results: Path, request: Request) -> bool:
    """Whether the request has been answered."""
    return (record_folder(results, request) / RECORD_FILE).is_file()


def is_sealed(record: Record) -> bool:
    """Whether a record has a checksum of its own, or must have one by its schema."""
    return record.schema_version >= _SEALED or bool(record.content_sha256)


def is_whole(content: bytes) -> bool:
    """Whether a record's file has a checksum and, to the byte, what it is of."""
    stated, own = seal_of(content)
    return bool(stated) and stated == own


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
