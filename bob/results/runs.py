"""Runs as a frame: a row for each record's primary metric, which of them may stand in one table, and how seeds join."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic_core import to_json

from bob.errors import UserError
from bob.results import protocols as protocol_names
from bob.results.draws import unpack
from bob.results.globs import matches_any
from bob.results.statistics import over_seeds

if TYPE_CHECKING:
    from bob.results.record import Record

# What a frame of runs has; a change of a column's meaning is a new `index.FORMAT`.
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("backbone", "paradigm", "method", "architecture", "pretraining_data")),
        ("pretraining_images", pa.float64()),
        *((name, pa.string()) for name in ("category", "task", "protocol")),
        ("block", pa.float64()),
        ("blocks", pa.float64()),
        ("seed", pa.int64()),
        ("metric", pa.string()),
        ("higher_is_better", pa.bool_()),
        *((name, pa.float64()) for name in ("score", "low", "high")),
        *((name, pa.int64()) for name in ("n", "parameters", "flops")),
        ("images_per_second", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("seconds", pa.float64()),
        *((name, pa.string()) for name in ("device", "precision", "created", "run_id", "folder", "bob")),
        *((name, pa.string()) for name in ("environment", "command", "notes", "backbone_identity", "setting_identity")),
        ("resampled", pa.large_binary()),
    ]
)


def table_of(contents: Iterable[dict[str, Any]]) -> pa.Table:
    """The rows of records as they are stored; see `runs_of`.

    Args:
        contents: The JSON of whole records, which are known to be valid; some with `folder` beside.

    Raises:
        UserError: If the resampled scores of one are damaged.
    """
    return pa.Table.from_pylist([_row(content) for content in contents], schema=SCHEMA)


def runs_of(table: pa.Table) -> pd.DataFrame:
    """The frame of stored rows: one for each run's primary metric, in the order of backbone, task, protocol and seed.

    Columns: of the backbone `backbone`, `paradigm`, `method`, `architecture`, `pretraining_data`, `pretraining_images`;
    of the setting `category` (the task's adapter), `task`, `protocol`, `block` and `blocks` (of layer-wise runs),
    `seed`; `metric`, `higher_is_better`, `score`, `low`, `high` (95%), `n`; the cost `parameters`, `flops`,
    `images_per_second`, `peak_memory_bytes`, `seconds` (all stages), `device`; `precision`, `created`, `run_id`,
    `folder` (its name), `bob` (version), `environment` (JSON), `command`, `notes`; `backbone_identity` and
    `setting_identity` (hashes); `resampled` (bytes of float32, see `Record`).

    Where the same backbone name, setting and seed were run on other weights or data, only the newest run counts.
    """
    # The resampled scores of many thousand runs stay where they are, which may be a file that is mapped into memory.
    runs = table.to_pandas(types_mapper={pa.large_binary(): pd.ArrowDtype(pa.large_binary())}.get)
    keys = ["backbone", "task", "protocol", "seed"]
    newest = runs[[*keys, "created", "run_id"]].sort_values(["created", "run_id"]).drop_duplicates(keys, keep="last")
    return _taken(runs, newest.sort_values(keys).index)


def tidy(records: Iterable[Record]) -> pd.DataFrame:
    """The frame of records; see `runs_of`."""
    contents = (record.model_dump(mode="json") | {"folder": record.request.folder_name()} for record in records)
    return runs_of(table_of(contents))


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Keep the runs that may stand in one table.

    In a row: those of the backbone's newest weights, preprocessing and code. In a column: those of the setting's newest
    data, protocol version and metric. What is left out has to be run again; a mixture would compare nothing.

    Args:
        runs: As `runs_of` makes them.
    """
    columns = ["backbone", "task", "protocol", "backbone_identity", "setting_identity", "created", "run_id"]
    kept = runs[columns].sort_values(["created", "run_id"])
    for keys, identity in ((["backbone"], "backbone_identity"), (["task", "protocol"], "setting_identity")):
        kept = kept[kept[identity] == kept.groupby(keys)[identity].transform("last")]
    return _taken(runs, kept.index.sort_values())


def select(
    runs: pd.DataFrame, backbones: Sequence[str], tasks: Sequence[str], protocols: Sequence[str]
) -> pd.DataFrame:
    """Keep the runs whose names match one of the globs of each kind; an empty list of globs keeps all.

    Layer-wise runs (`knn@block3`) are kept only where `protocols` names them with an `@`; see `protocols.matches`.

    Raises:
        UserError: If nothing is left.
    """
    named = _matching(runs["backbone"], backbones) & _matching(runs["task"], tasks)
    wanted = [name for name in runs["protocol"].unique() if protocol_names.matches(name, protocols)]
    kept = runs[named & runs["protocol"].isin(wanted)].reset_index(drop=True)
    if kept.empty:
        hint = "Loosen --backbone, --task or --protocol."
        if any(map(protocol_names.is_layerwise, runs["protocol"].unique())):
            hint += " Layer-wise runs are shown by `bob depth`, or here with --protocol '*@block*'."
        raise UserError("No record matches.", hint)
    return kept


def _taken(runs: pd.DataFrame, order: pd.Index[Any]) -> pd.DataFrame:
    """Some rows in an order, numbered anew; the frame itself where it is in order, for it may be large."""
    return runs if order.equals(runs.index) else runs.loc[order].reset_index(drop=True)


def summary(runs: pd.DataFrame) -> dict[str, Any]:
    """One cell of the table, from the runs of several seeds: score, low, high, seeds and higher_is_better.

    What test samples do to the mean over seeds is read off its own resamples, where all runs have kept theirs: less
    than to one run, for seeds do not all fail on the same samples.
    """
    scores, lows, highs = (runs[column].to_numpy(dtype=np.float64) for column in ("score", "low", "high"))
    if len(runs) > 1 and (runs["resampled"].map(len) > 0).all():
        means = np.mean([np.frombuffer(value, "<f4") for value in runs["resampled"]], axis=0)
        lows, highs = (np.full(len(runs), end) for end in np.nanquantile(means, [0.025, 0.975]))
    low, high = over_seeds(scores, lows, highs)
    from bob.results.metrics import (
        METRICS,  # here, for a table of many thousand runs of one seed need not wait for them
    )

    if len(runs) > 1 and (metric := METRICS.get(runs["metric"].iloc[0])):
        low, high = max(low, 0.0), min(high, metric.largest)  # Student's t knows no bounds, the metric does
    better = runs["higher_is_better"].iloc[0]
    return {"score": scores.mean(), "low": low, "high": high, "seeds": len(runs), "higher_is_better": better}


def _matching(names: pd.Series[str], patterns: Sequence[str]) -> pd.Series[bool]:
    if not patterns:
        return pd.Series(True, index=names.index)
    return names.isin([name for name in names.unique() if matches_any(name, patterns)])


def _row(record: dict[str, Any]) -> dict[str, object]:
    request, cost = record["request"], record["cost"]
    score, protocol = record["metrics"][record["primary"]], request["protocol"]
    return {
        **{key: request[key] for key in ("backbone", "task", "seed", "precision")},
        "protocol": protocol["name"],
        **{key: _whole(protocol.get(key)) for key in ("block", "blocks")},
        "metric": record["primary"],
        "score": score["value"],
        **{key: score[key] for key in ("low", "high", "n", "higher_is_better")},
        **{key: cost[key] for key in ("parameters", "flops", "images_per_second", "peak_memory_bytes")},
        "seconds": sum(cost["seconds"].values()),
        **{key: record[key] for key in ("created", "run_id")},
        "folder": record.get("folder", ""),  # the content does not say where it was found
        "environment": _canonical(to_json(record["environment"])),
        "notes": "; ".join(record["notes"]),
        "command": record.get("command") or _command_of(request),
        "resampled": unpack(record.get("resampled", "")).tobytes(),
        **_said(record),
        **_identities(request, record["primary"]),
    }


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _said(record: dict[str, Any]) -> dict[str, object]:
    """What cards and environment say, where they do."""
    card, environment = record["card"], record["environment"]
    return {
        "paradigm": card.get("paradigm", "unknown"),
        **{key: card.get(key, "") for key in ("method", "architecture", "pretraining_data")},
        "pretraining_images": card.get("pretraining_images"),
        "category": record["task_card"].get("adapter", "classification"),
        "device": environment.get("device", "unknown"),
        "bob": environment.get("bob", "unknown"),
    }


def _identities(request: dict[str, Any], primary: str) -> dict[str, str]:
    # A backbone's identity without its text tower, which only zero-shot runs have: they share the row of others.
    image_side = {key: value for key, value in request["backbone_identity"].items() if key != "text"}
    # Which few images were drawn belongs to the seed, not to the setting.
    data = {key: value for key, value in request["data"].items() if key != "drawn"}
    # How many blocks there are besides the one that is looked at is said of the backbone.
    skipped = "blocks" if protocol_names.is_layerwise(request["protocol"]["name"]) else None
    recipe = {key: value for key, value in request["protocol"].items() if key != skipped}
    return {
        "backbone_identity": _digest(to_json(image_side)),
        "setting_identity": _digest(to_json([request["task_version"], data, recipe, primary])),
    }


def _command_of(request: dict[str, Any]) -> str:
    """The command of a run that does not say it, as far as its request tells; settings of a recipe are not told."""
    asked = ["--backbone", request["backbone"], "--task", request["task"], "--protocol", request["protocol"]["name"]]
    return shlex.join(["bob", "run", *asked, "--seed", str(request["seed"]), "--precision", request["precision"]])


# Of many thousand records, few differ in these: the same bytes are worked on once.
@lru_cache(maxsize=4096)
def _canonical(content: bytes) -> str:
    return json.dumps(json.loads(content), sort_keys=True)


@lru_cache(maxsize=4096)
def _digest(content: bytes) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
