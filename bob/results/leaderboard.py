"""The table made from records: one row a backbone, one column group a setting (task and protocol)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bob.errors import UserError
from bob.results import protocols as protocol_names
from bob.results.files import require_suffix, write_csv, write_text
from bob.results.metrics import METRICS
from bob.results.record import Record
from bob.results.statistics import over_seeds, ranks, z_scores

FORMATS = (".csv", ".md")  # that a table can be written in
# Columns of the wide table that are measured times or rates; all others are the same whenever the runs are repeated.
MEASURED = ("images_per_second",)


def tidy(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each run's primary metric.

    Where the same backbone name, setting and seed were run on other weights or data, only the newest run counts.
    """
    rows = [_row(record) for record in records]
    table = pd.DataFrame(rows).sort_values(["created", "run_id"])
    keys = ["backbone", "task", "protocol", "seed"]
    return table.drop_duplicates(keys, keep="last").sort_values(keys).reset_index(drop=True)


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Keep the runs that may stand in one table.

    In a row: those of the backbone's newest weights, preprocessing and code. In a column: those of the setting's newest
    data, protocol version and metric. What is left out has to be run again; a mixture would compare nothing.

    Args:
        runs: As `tidy` makes them.
    """
    kept = runs.sort_values(["created", "run_id"])
    for keys, identity in ((["backbone"], "backbone_identity"), (["task", "protocol"], "setting_identity")):
        kept = kept[kept[identity] == kept.groupby(keys)[identity].transform("last")]
    return kept.sort_index().reset_index(drop=True)


def leaderboard(runs: pd.DataFrame, ddof: int = 1) -> pd.DataFrame:
    """One row for each backbone, best first.

    Columns: rank, backbone, paradigm; for each setting `TASK/PROTOCOL` its score (the mean over seeds), `... low` and
    `... high` (95%, over test samples and seeds, see `over_seeds`), `... seeds` (how many, if some backbone has more
    than one), and `... z`; mean_z, mean_rank, settings (how many it has), parameters, images_per_second.

    A cell that was not run stays empty and is never filled in: such a backbone has no mean_z, mean_rank or rank, and
    stands below those that have every setting.

    Args:
        runs: As `tidy` makes them and `comparable` sifts them.
        ddof: Of the standard deviation behind z; 1 is the sample's, 0 the population's.
    """
    cells = _cells(runs)
    scores = cells.pivot(index="backbone", columns="setting", values="score")
    better = cells.groupby("setting")["higher_is_better"].first()
    z = scores.apply(lambda column: z_scores(column, ddof) * (1 if better[column.name] else -1))
    place = scores.apply(lambda column: ranks(column, higher_is_better=bool(better[column.name])))
    table = runs.groupby("backbone")[["paradigm", "parameters"]].last()
    for setting in scores.columns:
        own = cells[cells["setting"] == setting].set_index("backbone")
        table[setting] = scores[setting]
        for part in ("low", "high", *(["seeds"] if own["seeds"].max() > 1 else [])):
            table[f"{setting} {part}"] = own[part]
        table[f"{setting} z"] = z[setting]
    table["mean_z"] = z.mean(axis=1, skipna=False)
    table["mean_rank"] = place.mean(axis=1, skipna=False)
    table["settings"] = scores.notna().sum(axis=1)
    table["images_per_second"] = runs.groupby("backbone")["images_per_second"].median()
    table["rank"] = ranks(table["mean_rank"], higher_is_better=False)
    return _ordered(table.reset_index())


def compact(table: pd.DataFrame) -> pd.DataFrame:
    """The wide table as people read it: each setting in one column `score [low, high]`, everything as text."""
    shown = pd.DataFrame({"rank": table["rank"].map(lambda v: _number(v, "g")), "backbone": table["backbone"]})
    for setting in settings_of(table):
        bounds = zip(table[setting], table[f"{setting} low"], table[f"{setting} high"], strict=True)
        shown[setting] = [_interval(*cell) for cell in bounds]
        if f"{setting} seeds" in table:
            shown[f"{setting} seeds"] = table[f"{setting} seeds"].map(lambda v: _number(v, "g"))
    shown["mean z"] = table["mean_z"].map(lambda v: _number(v, "+.2f"))
    shown["mean rank"] = table["mean_rank"].map(lambda v: _number(v, ".2f"))
    shown["params (M)"] = table["parameters"].map(lambda v: _number(v / 1e6, ".2f"))
    shown["images/s"] = table["images_per_second"].map(lambda v: _number(v, ".1f"))
    return shown


def settings_of(table: pd.DataFrame) -> list[str]:
    """The settings of a wide table, in its order."""
    return [column.removesuffix(" z") for column in table.columns if column.endswith(" z")]


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table of `compact`."""
    shown = compact(table)
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write CSV or, if the name ends in .md, Markdown; atomically.

    Raises:
        UserError: If the name ends otherwise.
    """
    if require_suffix(path, FORMATS).suffix == ".md":
        write_text(to_markdown(table), path)
    else:
        write_csv(table, path)


def select(
    records: Iterable[Record], backbones: Sequence[str], tasks: Sequence[str], protocols: Sequence[str]
) -> list[Record]:
    """Keep the records whose names match one of the globs of each kind; an empty list of globs keeps all.

    Layer-wise runs (`knn@block3`) are kept only where `protocols` names them with an `@`; see `protocols.matches`.

    Raises:
        UserError: If nothing is left.
    """

    def matches(name: str, patterns: Sequence[str]) -> bool:
        return not patterns or any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)

    every = list(records)
    kept = [
        record
        for record in every
        if matches(record.request.backbone, backbones)
        and matches(record.request.task, tasks)
        and protocol_names.matches(record.request.protocol["name"], protocols)
    ]
    if not kept:
        hint = "Loosen --backbone, --task or --protocol."
        if any(protocol_names.is_layerwise(record.request.protocol["name"]) for record in every):
            hint += " Layer-wise runs are shown by `bob depth`, or here with --protocol '*@block*'."
        raise UserError("No record matches.", hint)
    return kept


def _row(record: Record) -> dict[str, object]:
    score, request = record.metrics[record.primary], record.request
    # Which few images were drawn belongs to the seed, not to the setting.
    data = {key: value for key, value in request.data.items() if key != "drawn"}
    setting = [request.task_version, data, _recipe(request.protocol), record.primary]
    return {
        "backbone": request.backbone,
        "paradigm": record.card["paradigm"],
        "task": request.task,
        "protocol": request.protocol["name"],
        "seed": request.seed,
        "metric": record.primary,
        "score": score.value,
        "low": score.low,
        "high": score.high,
        "n": score.n,
        "higher_is_better": score.higher_is_better,
        "parameters": record.cost.parameters,
        "images_per_second": record.cost.images_per_second,
        "created": record.created,
        "run_id": record.run_id,
        "backbone_identity": _digest(_image_side(request.backbone_identity)),
        "setting_identity": _digest(setting),
    }


def _image_side(identity: dict[str, Any]) -> dict[str, Any]:
    """A backbone's identity without its text tower, which only zero-shot runs have: they share the row of others."""
    return {key: value for key, value in identity.items() if key != "text"}


def _recipe(protocol: dict[str, Any]) -> dict[str, Any]:
    """A protocol without what it says of the backbone: how many blocks there are besides the one that is looked at."""
    skipped = "blocks" if protocol_names.is_layerwise(protocol["name"]) else None
    return {key: value for key, value in protocol.items() if key != skipped}


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _cells(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each backbone and setting: over seeds, the mean score, its bounds, and how many there are."""
    setting = runs["task"] + "/" + runs["protocol"]
    keys = ["backbone", "setting"]
    rows = [
        dict(zip(keys, names, strict=True)) | summary(own) for names, own in runs.assign(setting=setting).groupby(keys)
    ]
    return pd.DataFrame(rows)


def summary(runs: pd.DataFrame) -> dict[str, object]:
    """One cell of the table, from the runs of several seeds: score, low, high, seeds and higher_is_better."""
    scores, lows, highs = (runs[column].to_numpy(dtype=np.float64) for column in ("score", "low", "high"))
    low, high = over_seeds(scores, lows, highs)
    if len(runs) > 1 and (metric := METRICS.get(runs["metric"].iloc[0])):
        low, high = max(low, 0.0), min(high, metric.largest)  # Student's t knows no bounds, the metric does
    better = runs["higher_is_better"].iloc[0]
    return {"score": scores.mean(), "low": low, "high": high, "seeds": len(runs), "higher_is_better": better}


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Best first, those without a rank last; by name among equals."""
    table = table.sort_values(["rank", "mean_z", "backbone"], ascending=[True, False, True], na_position="last")
    first, last = ["rank", "backbone", "paradigm"], ["mean_z", "mean_rank", "settings", "parameters", *MEASURED]
    middle = [column for column in table.columns if column not in (*first, *last)]
    return table[[*first, *middle, *last]].reset_index(drop=True)


def _interval(score: float, low: float, high: float) -> str:
    return "not run" if np.isnan(score) else f"{score:.3f} [{low:.3f}, {high:.3f}]"


def _number(value: float, form: str) -> str:
    return "" if np.isnan(value) else format(value, form)
