"""How much better a backbone does on a shifted set than its clean accuracy lets expect, over a table of backbones."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import linregress

from bob.errors import UserError
from bob.results.record import Record

_FEWEST = 3  # backbones: a line through two has no residuals
_COLUMNS = ("backbone", "set", "clean_top1", "shifted_top1", "clean_n", "n")


def shift_table(records: Iterable[Record]) -> pd.DataFrame:
    """Return what records say of shifted sets: a row for each record and set.

    Columns: task, protocol, backbone, seed, set, clean_top1, shifted_top1, clean_n, n. Records of tasks without shifted
    sets are left out.
    """
    rows = [
        {
            "task": record.request.task,
            "protocol": record.request.protocol["name"],
            "backbone": record.request.backbone,
            "seed": record.request.seed,
            "set": row["set"],
            "clean_top1": row["clean_top1"],
            "shifted_top1": row["top1"],
            "clean_n": row["clean_n"],
            "n": row["n"],
        }
        for record in records
        for row in record.breakdown.get("per_set", [])
        if "clean_top1" in row
    ]
    return pd.DataFrame(rows, columns=["task", "protocol", "seed", *_COLUMNS])


def effective_robustness(table: pd.DataFrame, baseline: Collection[str] = ()) -> pd.DataFrame:
    """Return for each backbone and set how far its shifted accuracy lies above the line of the others.

    For each set, logit(shifted) = slope x logit(clean) + intercept is fitted by least squares over the baseline, and
    what the line says of a backbone's clean accuracy is taken from its shifted one. An accuracy of 0 or 1, whose logit
    is infinite, counts as half an image. Where the table is its own baseline, the residuals average about zero: they
    tell backbones of the table apart, and nothing about all of them together.

    Args:
        table: Columns `backbone`, `set`, `clean_top1` and `shifted_top1` (0 to 1), `clean_n` and `n` (images). A
            backbone with several rows for a set (seeds) counts with their mean.
        baseline: The backbones that the line is fitted on, such as those trained on the task's data alone; empty for
            all.

    Returns:
        A row for each backbone and set, in the table's order, with `expected` (0 to 1), `effective_robustness` (points
        of a hundred), `slope`, `intercept` and `fitted_on` (number of backbones). Sets with fewer than three backbones
        of the baseline, or without spread in their clean accuracy, have NaN.

    Raises:
        UserError: If a column is missing, an accuracy is not between 0 and 1, a baseline is not in the table, or no set
            has enough backbones.

    Source: Taori et al. 2020, arXiv 2007.00644, section 2.
    """
    _require_table(table, baseline)
    means = table.groupby(["set", "backbone"], sort=False)[list(_COLUMNS[2:])].mean().reset_index()
    fitted = pd.concat([_of_set(rows, baseline) for _, rows in means.groupby("set", sort=False)], ignore_index=True)
    if fitted["slope"].isna().all():
        most = int(fitted["fitted_on"].max())
        raise UserError(
            f"Effective robustness needs {_FEWEST} backbones of different clean accuracy on a set, but there are "
            f"{most}.",
            "Run more backbones on the task.",
        )
    return fitted


def _of_set(rows: pd.DataFrame, baseline: Collection[str]) -> pd.DataFrame:
    """The rows of one set with the line and the distance from it."""
    clean = _logit(rows["clean_top1"].to_numpy(np.float64), rows["clean_n"].to_numpy(np.float64))
    shifted = _logit(rows["shifted_top1"].to_numpy(np.float64), rows["n"].to_numpy(np.float64))
    used = rows["backbone"].isin(baseline).to_numpy() if baseline else np.ones(len(rows), dtype=bool)
    slope = intercept = np.nan
    if used.sum() >= _FEWEST and np.ptp(clean[used]) > 0:
        line = linregress(clean[used], shifted[used])
        slope, intercept = float(line.slope), float(line.intercept)
    expected = expit(slope * clean + intercept)
    return rows[["backbone", "set", "clean_top1", "shifted_top1"]].assign(
        expected=expected,
        effective_robustness=100 * (rows["shifted_top1"].to_numpy() - expected),
        slope=slope,
        intercept=intercept,
        fitted_on=int(used.sum()),
    )


def _logit(accuracy: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    half = 0.5 / count
    values: NDArray[np.float64] = logit(np.clip(accuracy, half, 1 - half))
    return values


def _require_table(table: pd.DataFrame, baseline: Collection[str]) -> None:
    if lacking := [column for column in _COLUMNS if column not in table.columns]:
        raise UserError(f"The table has no column '{lacking[0]}'.", f"It needs {', '.join(_COLUMNS)}.")
    if table.empty:
        raise UserError("The table has no rows.", "Run a task with shifted sets, such as shapes_shift, first.")
    for column in ("clean_top1", "shifted_top1"):
        values = table[column].to_numpy(np.float64)
        if not ((values >= 0) & (values <= 1)).all():
            raise UserError(f"The column '{column}' has values that are not between 0 and 1.", "Give shares, not %.")
    known = set(table["backbone"])
    if unknown := [name for name in baseline if name not in known]:
        raise UserError(f"The baseline '{unknown[0]}' is not in the table.", f"It has {', '.join(sorted(known))}.")
