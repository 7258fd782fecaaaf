"""Whether what is estimated without training ranks backbones as their scores in the records do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bob.analysis.moments import Floats
from bob.results.protocols import is_layerwise
from bob.results.record import Record
from bob.results.runs import comparable, summary, tidy

LEAST = 3  # backbones of which a rank correlation says anything
_EVERY = 5040  # orders, those of 7 backbones, up to which all are looked at
_DRAWN = 9999  # orders drawn beyond
_COLUMNS = ["protocol", "metric", "measure", "n", "spearman", "kendall", "chance_low", "chance_high", "p"]


def scores_of(records: Iterable[Record], task: str, identities: dict[str, dict[str, Any]]) -> tuple[pd.DataFrame, int]:
    """The primary score of each backbone under each protocol, mean over seeds, from records of these very backbones.

    Args:
        records: Any.
        task: Only those of this task count, and no layer-wise ones.
        identities: Of each backbone that counts, by name; a record of other weights or preprocessing does not count.

    Returns:
        Columns backbone, protocol, metric, score, higher_is_better; and how many records of the task and the backbones
        are of other weights.
    """
    named = [record for record in records if record.request.task == task and record.request.backbone in identities]
    plain = [record for record in named if not is_layerwise(record.request.protocol["name"])]
    same = [record for record in plain if _image_side(record) == identities[record.request.backbone]]
    columns = ["backbone", "protocol", "metric", "score", "higher_is_better"]
    if not same:
        return pd.DataFrame(columns=columns), len(plain)
    runs = comparable(tidy(same))
    rows = []
    for (backbone, protocol), own in runs.groupby(["backbone", "protocol"]):
        found = {"backbone": backbone, "protocol": protocol, "metric": own["metric"].iloc[0], **summary(own)}
        rows.append({column: found[column] for column in columns})
    return pd.DataFrame(rows, columns=columns), len(plain) - len(same)


def agreement(measured: pd.DataFrame, scores: pd.DataFrame, measures: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Rank correlation of each measure with the scores under each protocol, over backbones that have both.

    Args:
        measured: Column `backbone` and one for each measure; NaN where it is not defined.
        scores: As `scores_of` gives them; a score of which less is better counts with its sign turned.
        measures: Columns of `measured`.
        seed: Of the orders that are drawn where there are too many to go through.

    Returns:
        One row for each protocol and measure with at least 3 backbones: n, Spearman's rho, Kendall's tau-b, the middle
        95% of rho if the order were chance (`chance_low`, `chance_high`), and the share of orders with a |rho| as large
        (`p`): exact up to 7 backbones, from 9,999 random orders beyond. With 3 backbones p is never below 1/3.

    Source: Spearman 1904; Kendall 1945 (tau-b); the permutation test is Fisher's and Pitman's.
    """
    rows = []
    for (protocol, metric), own in scores.groupby(["protocol", "metric"]):
        both = own.merge(measured, on="backbone")
        sign = np.where(both["higher_is_better"].astype(bool), 1.0, -1.0)
        score = both["score"].to_numpy(dtype=np.float64) * sign
        for measure in measures:
            values = both[measure].to_numpy(dtype=np.float64)
            known = ~np.isnan(values)
            if known.sum() >= LEAST and np.ptp(values[known]) > 0 and np.ptp(score[known]) > 0:
                found = _correlations(values[known], score[known], seed)
                rows.append({"protocol": protocol, "metric": metric, "measure": measure, **found})
    return pd.DataFrame(rows, columns=_COLUMNS)


def _correlations(values: Floats, scores: Floats, seed: int) -> dict[str, float | int]:
    one, other = (_standardised(stats.rankdata(each)) for each in (values, scores))
    rho = float(one @ other)
    chance = one[_orders(len(one), seed)] @ other
    # Outwards to values that occur, as an order cannot lie between.
    low, high = np.quantile(chance, 0.025, method="lower"), np.quantile(chance, 0.975, method="higher")
    extreme = np.abs(chance) >= abs(rho) - 1e-12
    drawn = math.factorial(len(one)) > _EVERY
    # Of drawn orders the one observed counts as another (Phipson & Smyth 2010), so that p is never 0.
    p = (extreme.sum() + 1) / (len(extreme) + 1) if drawn else extreme.mean()
    return {
        "n": len(one),
        "spearman": rho,
        "kendall": float(stats.kendalltau(values, scores).statistic),
        "chance_low": float(low),
        "chance_high": float(high),
        "p": float(p),
    }


def _orders(n: int, seed: int) -> np.ndarray:
    """Every order of n things, or many random ones: (orders, n)."""
    if math.factorial(n) <= _EVERY:
        return np.array(list(itertools.permutations(range(n))))
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(n), (_DRAWN, 1)), axis=1)


def _standardised(ranks: Floats) -> Floats:
    centred = ranks - ranks.mean()
    return centred / np.linalg.norm(centred)


def _image_side(record: Record) -> dict[str, Any]:
    """The backbone's identity without its text tower, which only zero-shot runs have."""
    return {key: value for key, value in record.request.backbone_identity.items() if key != "text"}
