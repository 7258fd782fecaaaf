"""The wide table as people read it: for the terminal, Markdown and LaTeX, and files of every kind by their suffix."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bob.results.files import require_suffix, write_csv, write_parquet, write_text
from bob.standings.grid import Grid
from bob.standings.rank_intervals import tied_groups
from bob.standings.wide import settings_of

FORMATS = (".csv", ".md", ".tex", ".parquet")  # that a wide table can be written in
TIDY_FORMATS = (".csv", ".parquet")  # that a long table can

# A cost -> what it is called, in units of what, in which format.
COST_COLUMNS = {
    "parameters": ("params (M)", 1e6, ".2f"),
    "flops": ("GFLOPs", 1e9, ".2f"),
    "images_per_second": ("images/s", 1.0, ".1f"),
    "peak_memory_bytes": ("peak memory (GB)", 1e9, ".2f"),
    "gpu_hours": ("GPU hours", 1.0, ".3g"),
    "cpu_hours": ("CPU hours", 1.0, ".3g"),
}

_OVERALL = {
    "mean_z": ("mean z", "+.2f"),
    "mean_rank": ("mean rank", ".2f"),
    "borda": ("Borda", ".2f"),
    "win_rate": ("win rate", ".2f"),
}
_NOT_RUN = "not run"
_TEXTS = ("backbone",)  # columns set flush left
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


@dataclass(frozen=True)
class Show:
    """What of a wide table is shown beside rank, backbone and overall score.

    Attributes:
        by: What ranks, a key of `aggregate.BY`; shown whatever it is.
        categories: Setting -> category; if given, one mean z for each category stands for its settings.
        costs: Which costs, keys of `COST_COLUMNS`; one that is known of nobody is not shown.
    """

    by: str = "mean_z"
    categories: Mapping[str, str] = field(default_factory=dict)
    costs: Collection[str] = ("parameters", "images_per_second")


def compact(table: pd.DataFrame, show: Show | None = None) -> pd.DataFrame:
    """The wide table as text: each setting in one column `score [low, high]`, each rank with its interval beside it.

    Args:
        table: As `wide_table` makes it.
        show: What is shown; by default all settings, parameters and images/s.
    """
    show = show or Show()
    columns: dict[Hashable, list[str]] = {
        "rank": _texts(table["rank"], "g"),
        "95%": [_span(*bounds) for bounds in zip(table["rank_low"], table["rank_high"], strict=True)],
        "group": _texts(table["group"], "g"),
        "backbone": list(table["backbone"]),
    }
    columns |= _category_columns(table, show.categories) if show.categories else _cell_columns(table)
    overall = [name for name in _OVERALL if name in ("mean_z", "mean_rank", show.by)]
    columns |= {_OVERALL[name][0]: _texts(table[name], _OVERALL[name][1]) for name in overall}
    for name, (head, unit, form) in COST_COLUMNS.items():
        if name in show.costs and table[name].notna().any():
            columns[head] = _texts(pd.to_numeric(table[name]) / unit, form)
    if "pareto" in table:
        columns["Pareto"] = ["*" if on_front else "" for on_front in table["pareto"]]
    return pd.DataFrame(columns)


def compact_versus(table: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """The comparison of two backbones, as `versus` makes it, as text."""
    shown = table[["setting", "metric", "n", "seeds"]].astype(str)
    shown["a"], shown["b"] = _texts(table["a"], ".3f"), _texts(table["b"], ".3f")
    shown["difference"] = _texts(table["difference"], "+.3f")
    shown["95%"] = [_signed(*bounds) for bounds in zip(table["low"], table["high"], strict=True)]
    shown["p (Holm)"] = _texts(table["p_holm"], ".2g")
    shown["better"] = table["better"]
    return shown.set_axis([{"a": a, "b": b}.get(column, column) for column in shown.columns], axis=1)


def compact_same_architecture(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison of like architectures, as `same_architecture` makes it, as text."""
    shown = table[["setting", "architecture", "paradigm"]].copy()
    for name, score, count in (
        ("backbone", "score", "backbones"),
        ("supervised", "supervised_score", "supervised_backbones"),
    ):
        chosen = zip(table[name], table[count], table[score], strict=True)
        shown[name] = [f"{own} (of {many}) {value:.3f}" for own, many, value in chosen]
    shown["difference"] = _texts(table["difference"], "+.3f")
    shown["95%"] = [_signed(*bounds) for bounds in zip(table["low"], table["high"], strict=True)]
    return shown.assign(ahead=table["ahead"], sure=np.where(table["sure"], "yes", "no"))


def to_markdown(table: pd.DataFrame, show: Show | None = None) -> str:
    """A Markdown table of `compact`."""
    shown = compact(table, show)
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def best_cells(grid: Grid) -> pd.DataFrame:
    """Which scores are the best of their setting, and which are not surely worse.

    Returns:
        Index backbones, columns settings; 2 where the score is the best, 1 where it is not told apart from the best
        (as the first of the `tied_groups` of that setting alone), else 0.
    """
    better = grid.settings["higher_is_better"].to_numpy(dtype=bool)
    marks = np.zeros(grid.scores.shape, dtype=np.int64)
    for place, sign in enumerate(np.where(better, 1.0, -1.0)):
        values = grid.scores[:, place] * sign
        marks[:, place] = tied_groups(values, grid.draws[:, :, place] * np.float32(sign)) == 1
        marks[values == np.nanmax(values), place] = 2
    return pd.DataFrame(marks, index=pd.Index(grid.backbones), columns=grid.settings.index)


def to_latex(
    table: pd.DataFrame, show: Show | None = None, marks: pd.DataFrame | None = None, caption: str = ""
) -> str:
    r"""A `tabular` of `compact` with booktabs' rules, to be `\input` in a document.

    Args:
        table: As `wide_table` makes it.
        show: What is shown.
        marks: Of the cells, as `best_cells` gives them: the best are bold, those not told apart from it underlined.
            Only where every setting is shown.
        caption: Of the table, written as a comment.
    """
    shown = compact(table, show)
    cells = shown.map(_in_latex)
    if marks is not None:
        for setting in settings_of(table):
            own = marks[setting].reindex(table["backbone"], fill_value=0)
            cells[setting] = [_marked(cell, mark) for cell, mark in zip(cells[setting], own, strict=True)]
    head = [f"\\textbf{{{_escaped(str(column))}}}" for column in shown.columns]
    spec = "".join("l" if column in _TEXTS else "r" for column in shown.columns)
    said = "Bold: the best of its setting; underlined: not told apart from it."
    comments = ["Needs \\usepackage{booktabs}.", *([] if marks is None else [said]), " ".join(caption.split())]
    lines = [
        *(f"% {comment}" for comment in comments if comment),
        f"\\begin{{tabular}}{{@{{}}{spec}@{{}}}}",
        "\\toprule",
        *_latex_rows([head]),
        "\\midrule",
        *_latex_rows(cells.to_numpy().tolist()),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def parts_of_names(names: Sequence[str]) -> list[str]:
    """What to add to a file's name for each of several tables: `-NAME`, fit for every disk, no two alike."""
    plain = [re.sub(r"[^\w.-]+", "-", f"-{name}").rstrip("-") for name in names]
    return [f"{part}-{place}" if part in plain[:place] else part for place, part in enumerate(plain)]


def write_table(
    table: pd.DataFrame, path: Path, show: Show | None = None, marks: pd.DataFrame | None = None, caption: str = ""
) -> None:
    """Write the wide table as CSV, Parquet (both complete), Markdown or LaTeX (as shown), by the name; atomically.

    Raises:
        UserError: If the name ends otherwise.
    """
    kind = require_suffix(path, FORMATS).suffix
    if kind == ".md":
        write_text(to_markdown(table, show), path)
    elif kind == ".tex":
        write_text(to_latex(table, show, marks, caption), path)
    else:
        write_frame(table, path)


def write_frame(table: pd.DataFrame, path: Path) -> None:
    """Write any table as CSV or Parquet, by the name; atomically.

    Raises:
        UserError: If the name ends otherwise.
    """
    if require_suffix(path, TIDY_FORMATS).suffix == ".parquet":
        write_parquet(table, path)
    else:
        write_csv(table, path)


def _cell_columns(table: pd.DataFrame) -> dict[Hashable, list[str]]:
    columns: dict[Hashable, list[str]] = {}
    for setting in settings_of(table):
        bounds = zip(table[setting], table[f"{setting} low"], table[f"{setting} high"], strict=True)
        columns[setting] = [_interval(*cell) for cell in bounds]
        if f"{setting} seeds" in table:
            columns[f"{setting} seeds"] = _texts(table[f"{setting} seeds"], "g")
    return columns


def _category_columns(table: pd.DataFrame, categories: Mapping[str, str]) -> dict[Hashable, list[str]]:
    """The mean z over the settings of each category, empty where a backbone lacks one of them; how many it has."""
    columns: dict[Hashable, list[str]] = {}
    for category in sorted(set(categories.values())):
        own = [f"{setting} z" for setting in settings_of(table) if categories[setting] == category]
        columns[f"{category} z"] = _texts(table[own].mean(axis=1, skipna=False), "+.2f")
    columns["settings"] = _texts(table["settings"], "g")
    return columns


def _texts(values: pd.Series[Any], form: str) -> list[str]:
    return [_number(value, form) for value in values.to_numpy(dtype=np.float64, na_value=np.nan)]


def _number(value: float, form: str) -> str:
    return "" if np.isnan(value) else format(value, form)


def _interval(score: float, low: float, high: float) -> str:
    if np.isnan(score):
        return _NOT_RUN
    return f"{score:.3f}" if np.isnan(low) or np.isnan(high) else f"{score:.3f} [{low:.3f}, {high:.3f}]"


def _signed(low: float, high: float) -> str:
    return "" if np.isnan(low) or np.isnan(high) else f"[{low:+.3f}, {high:+.3f}]"


def _span(low: float, high: float) -> str:
    return "" if pd.isna(low) or pd.isna(high) else f"{low:g}-{high:g}"


def _in_latex(cell: str) -> str:
    """A cell escaped, the minus of a number and the dash of a range as they are printed."""
    if re.match(r"[+-]\d", cell):
        return f"${cell}$"
    return re.sub(r"^(\d+)-(\d+)$", r"\1--\2", _escaped(cell))


def _escaped(text: str) -> str:
    return _LATEX_SPECIAL.sub(lambda found: _LATEX[found.group()], text)


def _marked(cell: str, mark: int) -> str:
    """The score of a cell bold or underlined; its interval stays as it is."""
    score, space, interval = cell.partition(" ")
    macro = {2: "textbf", 1: "underline"}.get(mark)
    return f"\\{macro}{{{score}}}{space}{interval}" if macro else cell


def _latex_rows(rows: Iterable[Sequence[str]]) -> list[str]:
    # A row that begins with a bracket would be read as an argument of the line break before it.
    return [" & ".join(f"{{}}{cell}" if cell.startswith("[") else cell for cell in row) + r" \\" for row in rows]
