"""The table that people know: one row a backbone, one group of columns a setting (task and protocol)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bob.standings.aggregate import BY, z_of_scores
from bob.standings.grid import Grid
from bob.standings.pareto import pareto_front

# Columns that are measured times, rates or memory; all others are the same whenever the runs are repeated.
MEASURED = ("images_per_second", "peak_memory_bytes", "gpu_hours", "cpu_hours")
COSTS = ("parameters", "flops", *MEASURED)
# What a front is drawn against -> whether more of it is better.
PARETO = {"parameters": False, "flops": False, "images_per_second": True}

_TOLD = ("paradigm", "architecture", "pretraining_images", "parameters", "flops")
_PLACE = ("rank", "rank_low", "rank_high", "group", "backbone", "paradigm")
_OVERALL = ("mean_z", "mean_z_low", "mean_z_high", "mean_rank", "borda", "win_rate", "settings")


def facts_of(runs: pd.DataFrame, settings: Collection[str] | None = None) -> pd.DataFrame:
    """What backbones are and cost, from their runs.

    Args:
        runs: As `bob.results.runs.comparable` sifts them.
        settings: Only the runs of these (`TASK/PROTOCOL`) count; None for all.

    Returns:
        Index: backbones. Columns: paradigm, architecture, pretraining_images, parameters and flops (of one image's
        forward pass) of the newest run; images_per_second (the median over runs), peak_memory_bytes (the highest),
        gpu_hours and cpu_hours (the sum over runs of all stages, on whatever is not the CPU, and on it). A run counts
        as if it stood alone: features that several runs read are counted in each.
    """
    own = runs if settings is None else runs[(runs["task"] + "/" + runs["protocol"]).isin(settings)]
    on_cpu = own["device"] == "cpu"
    on_gpu = ~on_cpu & (own["device"] != "unknown")
    hours = own["seconds"] / 3600
    facts = _newest(own)
    facts["images_per_second"] = own.groupby("backbone")["images_per_second"].median()
    facts["peak_memory_bytes"] = own.groupby("backbone")["peak_memory_bytes"].max()
    facts["gpu_hours"] = hours.where(on_gpu, 0.0).groupby(own["backbone"]).sum()
    facts["cpu_hours"] = hours.where(on_cpu, 0.0).groupby(own["backbone"]).sum()
    return facts


def wide_table(
    cells: pd.DataFrame, grid: Grid, ranking: pd.DataFrame, facts: pd.DataFrame, ddof: int = 1
) -> pd.DataFrame:
    """One row for each backbone, in the order of the ranking.

    Columns: rank, rank_low, rank_high, group (see `standings`), backbone, paradigm; for each setting `TASK/PROTOCOL`
    its score (the mean over seeds), `... low` and `... high` (95%), `... seeds` (how many, if some backbone has more
    than one), and `... z`; mean_z with its bounds, mean_rank, borda, win_rate, settings (how many it has); the costs.
    What is measured comes last, so that the tables of two repetitions differ at the ends of their lines.

    A cell that was not run stays empty and is never filled in.

    Args:
        cells: Table of `Cells`, with at least those of the grid.
        grid: The backbones and settings that are shown, and that z is among.
        ranking: Of the grid, as `standings` gives it.
        facts: As `facts_of` gives them.
        ddof: Of the standard deviation behind z; 1 is the sample's, 0 the population's.
    """
    order = pd.Index(grid.backbones).get_indexer(pd.Index(ranking["backbone"]))
    ranking = ranking.reset_index(drop=True)
    known = facts.reindex(ranking["backbone"]).reset_index(drop=True)
    columns: dict[str, object] = {name: ranking[name] for name in _PLACE if name != "paradigm"}
    columns["paradigm"] = known["paradigm"]
    columns |= {name: values[order] for name, values in _setting_columns(cells, grid, ddof).items()}
    columns |= {name: ranking[name] for name in _OVERALL}
    return pd.DataFrame(columns | {name: known[name] for name in COSTS})


def with_pareto(table: pd.DataFrame, by: str, cost: str) -> pd.DataFrame:
    """The wide table with a column `pareto`: no other is at least as good in both `by` and `cost`, and better in one.

    Args:
        table: As `wide_table` makes it; a backbone without rank is not marked.
        by: A key of `aggregate.BY`.
        cost: A key of `PARETO`.
    """
    score, price = (table[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in (by, cost))
    score, price = score if BY[by] else -score, -price if PARETO[cost] else price
    return table.assign(pareto=pareto_front(np.where(table["rank"].isna(), np.nan, score), price))


def _newest(runs: pd.DataFrame) -> pd.DataFrame:
    """What the newest run of each backbone says of it; a row a backbone, by name."""
    told = runs.drop_duplicates(["backbone", *_TOLD])
    if not told["backbone"].is_unique:  # to order all runs by time takes longer, and is seldom needed
        told = runs.sort_values(["created", "run_id"]).drop_duplicates("backbone", keep="last")
    return told.set_index("backbone")[list(_TOLD)].sort_index()


def settings_of(table: pd.DataFrame) -> list[str]:
    """The settings of a wide table, in its order."""
    return [column.removesuffix(" z") for column in table.columns if column.endswith(" z")]


def _setting_columns(cells: pd.DataFrame, grid: Grid, ddof: int) -> dict[str, NDArray[np.float64]]:
    """The columns of all settings, in the grid's order of backbones."""
    names = list(grid.settings.index)
    parts = {part: _matrix(cells, grid, part) for part in ("low", "high", "seeds")}
    several = np.nanmax(parts["seeds"], axis=0, initial=1) > 1
    z = z_of_scores(grid, ddof)
    columns = {}
    for place, name in enumerate(names):
        columns[name] = grid.scores[:, place]
        for part in ("low", "high", *(["seeds"] if several[place] else [])):
            columns[f"{name} {part}"] = parts[part][:, place]
        columns[f"{name} z"] = z[:, place]
    return columns


def _matrix(cells: pd.DataFrame, grid: Grid, column: str) -> NDArray[np.float64]:
    """A column of the cells as (n, S), NaN where there is none."""
    row = pd.Index(grid.backbones).get_indexer(pd.Index(cells["backbone"]))
    place = grid.settings.index.get_indexer(pd.Index(cells["setting"]))
    shown = (row >= 0) & (place >= 0)
    matrix = np.full(grid.scores.shape, np.nan)
    matrix[row[shown], place[shown]] = cells.loc[shown, column].to_numpy(dtype=np.float64)
    return matrix
