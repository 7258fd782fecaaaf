"""Scores that somebody else published, as a table of one score a row: read, checked, and joined with our own."""

from __future__ import annotations

import csv
from collections.abc import Hashable
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bob.errors import UserError, did_you_mean, first_line
from bob.results.files import require_suffix
from bob.results.metrics import METRICS
from bob.standings.cells import COLUMNS, Cells, normal_draws

# A long table's columns -> those of cells. What we call task and protocol others call data set and setting.
NEEDED = {
    "backbone": "backbone",
    "task": "category",
    "dataset": "task",
    "setting": "protocol",
    "metric": "metric",
    "value": "score",
}
OPTIONAL = {
    "higher_is_better": "higher_is_better",
    "n": "n",
    "standard_error": "standard_error",
    "low": "low",
    "high": "high",
    "seeds": "seeds",
    "source": "source",
}
# What a long table may say of backbones; `card` is the name that they have here.
FACTS = ("paradigm", "architecture", "parameters", "pretraining_images", "card")
SUFFIXES = (".csv", ".parquet")

_NUMBERS = ("value", "n", "standard_error", "low", "high", "seeds", "parameters", "pretraining_images")
_AT_LEAST = {"n": 1.0, "standard_error": 0.0, "seeds": 1.0, "parameters": 0.0, "pretraining_images": 0.0}
_PROPORTIONS = ("top1", "top5", "accuracy")  # of n independent images, so that n says how sure they are
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_Z = NormalDist().inv_cdf(0.975)


def read_long_table(path: Path) -> tuple[Cells, list[str]]:
    """Read a table of one score a row.

    It needs the columns backbone, task (the kind: classification, retrieval, ...), dataset, setting (how it was
    adapted and tested), metric and value. It may have higher_is_better (else what we know of the metric counts, else
    true); n (test samples), standard_error, or low and high (95%), which say how sure a score is; seeds; source; and of
    the backbone paradigm, architecture, parameters, pretraining_images and card (its name here). A setting is called
    `DATASET/SETTING`, and `DATASET/SETTING (METRIC)` where there are several metrics of it.

    The standard error is that of the column; else (high - low) / 3.92; else, of a proportion (top1, top5, accuracy)
    between 0 and 1 with n, sqrt(p (1 - p) / n); else it is not known, and neither is any interval. Draws are normal and
    independent: published tables do not say what two backbones' scores have in common, so differences look less sure
    than they are.

    Args:
        path: NAME.csv (UTF-8, commas) or NAME.parquet.

    Returns:
        The cells, their table with the columns `FACTS` beside its own, and what a reader should know, a line each.

    Raises:
        UserError: Naming the file, the line and the column of what is wrong.
    """
    raw = _read(path)
    _require_columns(raw, path)
    frame = _numbers(raw, path)
    notes = _ignored(raw, path)
    frame["higher_is_better"], guessed = _directions(raw, path)
    notes += [f"{path.name}: nothing says which way `{name}` goes; taken as higher is better." for name in guessed]
    _require_alike(frame, path)
    table = _as_cells(frame, path, "source" in raw)
    draws = normal_draws(table)
    return Cells(table, draws, np.ones(len(table), dtype=bool)), notes


def to_long(cells: Cells) -> pd.DataFrame:
    """The table that `read_long_table` reads: one row a score, nothing but what is known.

    Written with all digits and read back, it gives the same scores and intervals; the draws are lost, since the file
    holds their standard error alone.
    """
    names = NEEDED | OPTIONAL
    known = [name for name in FACTS if name in cells.table]
    table = cells.table[[*names.values(), *known]]
    return table.rename(columns={ours: theirs for theirs, ours in names.items()})


def join(first: Cells, second: Cells) -> Cells:
    """Put two tables in one: backbones of the same name share a row, and settings of the same name and metric a column.

    Settings of the same name whose metrics differ are kept apart, as `NAME (METRIC)`.

    Raises:
        UserError: If both have the same score, or say otherwise what kind a setting is of or which way its metric goes.
    """
    metrics = pd.concat([first.table, second.table])[["setting", "metric"]].drop_duplicates()
    clashes = set(metrics.loc[metrics["setting"].duplicated(), "setting"])
    table = pd.concat([_renamed(first.table, clashes), _renamed(second.table, clashes)], ignore_index=True)
    for column, what in (("category", "kind of task"), ("higher_is_better", "higher_is_better")):
        several = table.groupby("setting")[column].nunique() > 1
        if several.any():
            name = several.idxmax()
            said = ", ".join(map(str, table.loc[table["setting"] == name, column].unique()))
            raise UserError(f"The tables disagree on {name}: {what} {said}.", "Mend one, or rename its setting.")
    again = table.duplicated(["backbone", "setting"])
    if again.any():
        row = table[again].iloc[0]
        raise UserError(
            f"Two tables have a score of {row['backbone']} on {row['setting']} ({row['metric']}).",
            "Leave out one (--without NAME), or rename its backbone or setting.",
        )
    size = min(first.draws.shape[1], second.draws.shape[1])
    draws = np.concatenate([first.draws[:, :size], second.draws[:, :size]])
    return Cells(table, draws, np.concatenate([first.independent, second.independent]))


def keep(cells: Cells, rows: NDArray[np.bool_]) -> Cells:
    """The cells of these rows, numbered anew."""
    return Cells(cells.table[rows].reset_index(drop=True), cells.draws[rows], cells.independent[rows])


def by_card(cells: Cells) -> Cells:
    """Call the backbones of a published table by the names they have here, where its column `card` says so."""
    card = cells.table["card"]
    table = cells.table.assign(backbone=cells.table["backbone"].where(card == "", card))
    again = table.duplicated(["backbone", "setting"])
    if again.any():
        name, setting = table.loc[again, ["backbone", "setting"]].iloc[0]
        raise UserError(
            f"Two rows of setting {setting} have the card {name}.", "Keep `card` empty in one, or leave it out."
        )
    return Cells(table, cells.draws, cells.independent)


def _read(path: Path) -> pd.DataFrame:
    """All of a file as text, "" where empty; the index is the line."""
    if require_suffix(path, SUFFIXES).suffix == ".parquet":
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise UserError(f"Cannot read {path}: {first_line(error)}.", "Give a table in Parquet or CSV.") from error
        return table.astype(object).where(table.notna(), "").astype(str).set_axis(range(1, len(table) + 1))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            head = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Cannot read {path}: {first_line(error)}.", "Give a table in CSV, UTF-8.") from error
    lines = {line: row for line, row in rows if any(row)}
    for line, row in lines.items():
        if len(row) != len(head):
            problem = f"{path}, line {line}: {len(row)} values, but the first line names {len(head)} columns."
            raise UserError(problem, 'Put a value that holds a comma in quotes: "a, b".')
    return pd.DataFrame(list(lines.values()), columns=head, index=list(lines), dtype=str)


def _require_columns(raw: pd.DataFrame, path: Path) -> None:
    """Refuse a table without rows, without a needed column, with one twice, or with a name left empty."""
    twice = raw.columns[raw.columns.duplicated()]
    if len(twice):
        raise UserError(f"{path} has the column '{twice[0]}' twice.", "Rename one.")
    for name in NEEDED:
        if name not in raw:
            others = [column for column in raw.columns if column not in NEEDED]
            hint = did_you_mean(name, others, most=1).replace("Did you mean", f"Is '{name}' what is called")
            form = f"The first line must name, separated by commas: {', '.join(NEEDED)}."
            raise UserError(f"{path} has no column '{name}'.", hint or form)
    if raw.empty:
        raise UserError(f"{path} has no rows.", "Give a line for each score.")
    for name in NEEDED:
        empty = raw.index[raw[name] == ""]
        if len(empty):
            raise UserError(f"{_place(path, empty[0])}: `{name}` is empty.", "Fill it in, or delete the line.")


def _numbers(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with numbers for text; NaN where an optional one is empty or its column is lacking."""
    frame = raw.reindex(columns=[*NEEDED, *OPTIONAL, *FACTS], fill_value="")
    for name in _NUMBERS:
        given = frame[name] != ""
        number = pd.to_numeric(frame[name].where(given), errors="coerce").astype(np.float64)
        least = _AT_LEAST.get(name, -np.inf)
        bad = frame.index[given & ~(np.isfinite(number) & (number >= least))]
        if len(bad):
            wanted = "a finite number" if np.isinf(least) else f"a number, {least:g} or more"
            problem = f"{_place(path, bad[0])}: expected `{name}` to be {wanted}, but got '{raw.loc[bad[0], name]}'."
            raise UserError(problem, "Correct it." if name in NEEDED else "Correct it, or leave it empty.")
        frame[name] = number
    half = frame.index[frame["low"].isna() != frame["high"].isna()]
    crossed = frame.index[frame["low"] > frame["high"]]
    for lines, problem in ((half, "one of `low` and `high` is empty"), (crossed, "`low` is above `high`")):
        if len(lines):
            raise UserError(f"{_place(path, lines[0])}: {problem}.", "Give both ends of the 95% interval, or none.")
    return frame


def _directions(raw: pd.DataFrame, path: Path) -> tuple[pd.Series[bool], list[str]]:
    """Whether more is better, of each row, and the metrics of which nobody says so."""
    said = raw["higher_is_better"].str.lower() if "higher_is_better" in raw else pd.Series("", index=raw.index)
    bad = raw.index[~said.isin([*_TRUTH, ""])]
    if len(bad):
        problem = f"{_place(path, bad[0])}: expected `higher_is_better` to be true or false, but got '{said[bad[0]]}'."
        raise UserError(problem, "Correct it, or leave it empty.")
    known = {name: metric for name in raw["metric"].unique() if (metric := METRICS.get(name.lower()))}
    default = raw["metric"].map({name: metric.higher_is_better for name, metric in known.items()})
    up = said.map(_TRUTH).astype(object).where(said != "", default.astype(object))
    guessed = sorted(raw.loc[up.isna(), "metric"].unique())
    return up.where(up.notna(), True).astype(bool), guessed


def _require_alike(frame: pd.DataFrame, path: Path) -> None:
    """Refuse a score that is there twice, and rows that contradict each other."""
    setting = ["dataset", "setting", "metric"]
    again = frame.index[frame.duplicated(["backbone", *setting])]
    if len(again):
        row = frame.loc[again[0]]
        first = frame.index[(frame[["backbone", *setting]] == row[["backbone", *setting]]).all(axis=1)][0]
        what = f"{row['backbone']} on {row['dataset']}/{row['setting']} ({row['metric']})"
        raise UserError(f"{_place(path, again[0])}: {what} is already in line {first}.", "Delete one of them.")
    same = [(setting, name) for name in ("task", "higher_is_better")] + [(["backbone"], name) for name in FACTS]
    for keys, name in same:
        own = frame.assign(said=frame[name])[frame[name].notna() & (frame[name] != "")]
        other = own["said"] != own.groupby(keys)["said"].transform("first")
        if other.any():
            line, row = next(own[other].iterrows())
            of = "/".join(str(row[key]) for key in keys)
            problem = f"{_place(path, line)}: `{name}` is '{row['said']}', but another line has it otherwise"
            raise UserError(f"{problem} for {of}.", "Make them agree.")


def _as_cells(frame: pd.DataFrame, path: Path, says_source: bool) -> pd.DataFrame:
    """The table of cells, its intervals completed."""
    table = frame.rename(columns=NEEDED | OPTIONAL).reset_index(drop=True)
    error = table["standard_error"].fillna((table["high"] - table["low"]) / (2 * _Z))
    share = table["metric"].str.lower().isin(_PROPORTIONS) & table["score"].between(0, 1)
    error = error.fillna(((table["score"] * (1 - table["score"])).where(share) / table["n"]) ** 0.5)
    low, high = table["score"] - _Z * error, table["score"] + _Z * error
    table["low"] = table["low"].fillna(low.where(~share, low.clip(lower=0)))
    table["high"] = table["high"].fillna(high.where(~share, high.clip(upper=1)))
    table["standard_error"], table["seeds"] = error, table["seeds"].fillna(1).astype(int)
    if not says_source:
        table["source"] = path.name
    table["setting"] = table["task"] + "/" + table["protocol"]
    several = table.groupby("setting")["metric"].transform("nunique") > 1
    table = _renamed(table, set(table.loc[several, "setting"]))
    for name in ("parameters", "pretraining_images"):
        table[name] = table.groupby("backbone")[name].transform("first")
    for name in ("paradigm", "architecture", "card"):
        table[name] = table[name].where(table[name] != "").groupby(table["backbone"]).transform("first").fillna("")
    return table[[*COLUMNS, *FACTS]]


def _renamed(table: pd.DataFrame, settings: set[str]) -> pd.DataFrame:
    """These settings with their metric behind the name, unless it is there already."""
    behind = table["setting"] + " (" + table["metric"] + ")"
    return table.assign(setting=table["setting"].where(~table["setting"].isin(settings), behind))


def _ignored(raw: pd.DataFrame, path: Path) -> list[str]:
    others = [name for name in raw.columns if name not in (*NEEDED, *OPTIONAL, *FACTS)]
    return [f"{path.name}: columns that are not read: {', '.join(others)}."] if others else []


def _place(path: Path, line: Hashable) -> str:
    return f"{path}, {'row' if path.suffix == '.parquet' else 'line'} {line}"
