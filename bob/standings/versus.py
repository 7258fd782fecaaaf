"""Whether one backbone beats another: where, by how much, and how sure, from all settings in which both were run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bob.errors import UserError, did_you_mean
from bob.results.compare import require_same_samples
from bob.results.judged import Judged
from bob.results.metric import Metric
from bob.results.metrics import get_metric
from bob.results.paired import holm, mcnemar, over_seeds_too, paired_p_value
from bob.results.predictions import Predictions
from bob.results.reading import predictions_of
from bob.results.record import RECORD_FILE, RUNS
from bob.results.statistics import Floats, replicates

TIE = "tie"  # in the column `better`, where neither is known to be
COLUMNS = (
    *("setting", "category", "metric", "n", "seeds", "a", "b", "difference"),
    *("low", "high", "p_value", "p_mcnemar", "p_holm", "better"),
)
_KEYS = ["task", "protocol", "category", "metric", "setting_identity"]
_ALPHA = 0.05
# Holm multiplies the smallest p-value by the number of settings, and B replicates claim no less than 2 / (B + 1).
_LEAST_RESAMPLES, _RESAMPLES_A_SETTING = 2000, 100

# The predictions of both backbones for one seed.
_Pair = tuple[Judged, Judged]


def versus(runs: pd.DataFrame, results: Path, a: str, b: str) -> pd.DataFrame:
    """Compare two backbones in every setting that both were run in, on the same test samples and seeds.

    Columns: setting (`TASK/PROTOCOL`), category, metric (the primary one), n (test samples), seeds (in common; others
    are left out), a and b (mean over these seeds), difference (b - a), low and high (its 95% interval, for this setting
    alone), p_value (that there is no difference, by the same replicates), p_mcnemar (McNemar's, of the lowest seed;
    NaN where the metric is not top-1 of one label an image), p_holm (p_value adjusted for all settings), and better:
    the name of the one that is better with p_holm below 0.05, or `tie`.

    The seeds' differences are averaged on the same resamples of the test samples, and then vary with the seeds drawn
    too (`over_seeds_too`).

    Args:
        runs: As `comparable` sifts them.
        results: Folder of their records, whose predictions are read.
        a: Name of the backbone compared with.
        b: Name of the one compared.

    Returns:
        A row a setting, by setting.

    Raises:
        UserError: If a backbone has no run, both are the same, they share no setting and seed, predictions are missing
            or damaged, or they are about different samples.
    """
    _check_names(runs, a, b)
    shared = _shared(runs, a, b)
    resamples = max(_LEAST_RESAMPLES, _RESAMPLES_A_SETTING * len(shared))
    rows = [_row(own, results, (a, b), resamples) for own in shared]
    table = pd.DataFrame(rows).sort_values("setting", ignore_index=True)
    table["p_holm"] = holm(table["p_value"])
    ahead = np.where(table.pop("b_is_ahead"), b, a)
    table["better"] = np.where(table["p_holm"] < _ALPHA, ahead, TIE)
    return table[list(COLUMNS)]


def verdict(table: pd.DataFrame, a: str, b: str) -> list[str]:
    """Say in plain sentences what `versus` found: how often each is better, what follows, and how sure that is."""
    counts = {name: int((table["better"] == name).sum()) for name in (a, b, TIE)}
    size = len(table)
    corrected = f", adjusted for {size} settings by Holm" if size > 1 else ""
    sure = "no difference called better or worse is chance" if counts[TIE] < size else "nothing is told apart"
    return [
        f"{b} is better than {a} in {counts[b]} of {_settings(size)}, "
        f"worse in {counts[a]}, undecided in {counts[TIE]}.",
        _conclusion(table, a, b),
        f"With 95% confidence, {sure} (paired bootstrap{corrected}).",
        *_remarks(table),
    ]


def _conclusion(table: pd.DataFrame, a: str, b: str) -> str:
    wins = {name: table.loc[table["better"] == name, "setting"].to_list() for name in (a, b)}
    if not wins[a] and not wins[b]:
        return "So neither is known to be better; that does not show that they are equal."
    if wins[a] and wins[b]:
        return f"So it depends: {b} is better in {_listed(wins[b])}; {a} in {_listed(wins[a])}."
    winner, loser = (b, a) if wins[b] else (a, b)
    return f"So {winner} beats {loser} where they differ: {_listed(wins[winner])}."


def _remarks(table: pd.DataFrame) -> list[str]:
    """What a reader may ask: why an interval without 0 is no win, and which seed McNemar's p is of."""
    lines = []
    outside = (table["low"] > 0) | (table["high"] < 0)
    lost = int((outside & (table["better"] == TIE)).sum())
    if lost:
        what = "its interval is" if lost == 1 else "their intervals are"
        lines.append(
            f"{_settings(lost)} undecided although {what} without 0: of {_settings(len(table))}, some are so by chance."
        )
    doubted = table.loc[(table["better"] != TIE) & (table["p_mcnemar"] > _ALPHA), "setting"].to_list()
    if doubted:
        lines.append(f"{_listed(doubted)}: too few samples differ for the exact test (McNemar) to be sure.")
    if ((table["seeds"] > 1) & table["p_mcnemar"].notna()).any():
        lines.append("McNemar's p is of the lowest seed alone; the rest is about the mean over seeds.")
    return lines


def _settings(count: int) -> str:
    return f"{count} setting{'' if count == 1 else 's'}"


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _check_names(runs: pd.DataFrame, a: str, b: str) -> None:
    if a == b:
        raise UserError(f"Expected two backbones, but got {a} twice.", "Name another to compare it with.")
    known = set(runs["backbone"])
    for name in (a, b):
        if name not in known:
            make = f"Make one: `bob run -b {name} -t TASK -p PROTOCOL`."
            raise UserError(f"There is no run of {name}.", did_you_mean(name, sorted(known)) or make)


def _shared(runs: pd.DataFrame, a: str, b: str) -> list[pd.DataFrame]:
    """The runs of both, side by side: for each setting a frame with a row a seed, the lowest first."""
    first, second = (runs[runs["backbone"] == name] for name in (a, b))
    keys = [*_KEYS, "seed"]
    pairs = first[[*keys, "higher_is_better", "folder"]].merge(second[[*keys, "folder"]], on=keys)
    if pairs.empty:
        problem = f"{a} and {b} were not run on the same task, data, protocol version and seed."
        raise UserError(problem, f"Run both alike: `bob run -b {a},{b} -t TASK -p PROTOCOL`.")
    return [own for _, own in pairs.sort_values("seed").groupby(_KEYS)]


def _row(own: pd.DataFrame, results: Path, names: tuple[str, str], resamples: int) -> dict[str, object]:
    """One setting: `own` has a row a seed."""
    told = own.iloc[0]
    pairs = _read(own, results, names)
    metric = get_metric(told["metric"])
    before, after = (np.array([metric.compute(pair[side]) for pair in pairs]) for side in (0, 1))
    draws = _differences(metric, pairs, after - before, resamples)
    low, high = np.nanquantile(draws, [_ALPHA / 2, 1 - _ALPHA / 2])
    difference = float((after - before).mean())
    return {
        "setting": f"{told['task']}/{told['protocol']}",
        "category": told["category"],
        "metric": metric.name,
        "n": len(pairs[0][0]),
        "seeds": len(pairs),
        "a": float(before.mean()),
        "b": float(after.mean()),
        "difference": difference,
        "low": float(low),
        "high": float(high),
        "p_value": paired_p_value(draws),
        "p_mcnemar": _p_mcnemar(metric, *pairs[0]),
        "b_is_ahead": (difference > 0) == bool(told["higher_is_better"]),
    }


def _read(own: pd.DataFrame, results: Path, names: tuple[str, str]) -> list[_Pair]:
    """The predictions of both for each seed, all on the same samples."""
    pairs: list[_Pair] = []
    for seed, *folders in own[["seed", "folder_x", "folder_y"]].itertuples(index=False):
        first, second = (predictions_of(results / RUNS / folder / RECORD_FILE) for folder in folders)
        require_same_samples(first, second, names)
        if pairs:
            seeds = (f"{names[0]} with seed {own['seed'].iloc[0]}", f"{names[0]} with seed {seed}")
            require_same_samples(pairs[0][0], first, seeds)
        pairs.append((first, second))
    return pairs


def _differences(metric: Metric, pairs: Sequence[_Pair], differences: Floats, resamples: int) -> Floats:
    """What the mean difference over seeds would have been on other test samples and seeds: (resamples,)."""
    weighted = [(metric.weighted(before), metric.weighted(after)) for before, after in pairs]

    def mean(weights: Floats) -> Floats:
        return np.asarray(np.mean([after(weights) - before(weights) for before, after in weighted], axis=0))

    [draws] = replicates([mean], len(pairs[0][0]), resamples, seed=0)
    # Student's t knows no bounds, the metric does.
    return np.clip(over_seeds_too(draws, differences), -metric.largest, metric.largest)


def _p_mcnemar(metric: Metric, before: Judged, after: Judged) -> float:
    if metric.name != "top1" or not (isinstance(before, Predictions) and isinstance(after, Predictions)):
        return float("nan")
    return mcnemar(before.predicted == before.labels, after.predicted == after.labels).p_value
