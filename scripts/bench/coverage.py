"""Whether bob's statistics are right as often as they say: `python scripts/bench/coverage.py [--simulations 2000]`.

Draws data whose truth is known, and counts: how often bootstrap intervals hold it (should be 95%); how often two
backbones that are equally good share a group, or ranks (at least 95%); and how often a difference of a point on paired
predictions is found, by tests that use the pairing and by one that does not, and where there is none (at most 5%).
`tests/results/test_coverage.py` runs the same with fewer simulations. Twice as many take twice as long.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from bob.results.metrics import METRICS
from bob.results.paired import mcnemar, over_seeds_too, paired_p_value
from bob.results.predictions import Predictions
from bob.results.runs import summary
from bob.results.statistics import Estimate, bootstrap, paired_bootstrap, replicates
from bob.standings.grid import Grid
from bob.standings.standings import standings

TOP1 = METRICS["top1"]
POOL = 50_000  # samples that stand for all there are
# Shares of right answers of the backbones of `ties`, in each setting: two equal leaders, two equal ones further down.
SHARES = {"a1": 0.75, "a2": 0.75, "b": 0.70, "c1": 0.62, "c2": 0.62, "d": 0.50, "e": 0.40}


def main() -> None:
    """Simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=400, help="in the test split of intervals, seeds and ties")
    parser.add_argument("--paired", type=int, default=10_000, help="predictions of each backbone of a pair")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    common = {"resamples": given.resamples, "seed": given.seed}
    many, size = given.simulations, given.samples
    show("interval holds the truth", many, partial(intervals, many, size, **common))
    for seeds in (2, 3, 5):
        show(f"interval over {seeds} seeds", many, partial(between_seeds, many, seeds, size, **common))
    show("equal backbones are tied", many, partial(ties, many, size, **common))
    show("a point of difference is found", many, partial(power, many, given.paired, 0.01, **common))
    show("no difference is called one", many, partial(power, many, given.paired, 0.0, **common))


def show(title: str, simulations: int, run: Callable[[], Mapping[str, float]]) -> None:
    """Print the rates of one kind of simulation, with the error that their number leaves."""
    start = time.perf_counter()
    rates = run()
    print(f"{title} ({simulations} simulations, {time.perf_counter() - start:.0f} s):")
    for name, rate in rates.items():
        error = 1.96 * np.sqrt(rate * (1 - rate) / simulations)
        print(f"  {name:45} {rate:6.1%} +- {error:.1%}")


def intervals(simulations: int, size: int = 400, resamples: int = 500, seed: int = 0) -> dict[str, float]:
    """How often the interval of each metric holds its value on all samples, where `size` of them were drawn."""
    rng, names = np.random.default_rng(seed), ("top1", "mean_per_class", "nll")
    metrics, pool = [METRICS[name] for name in names], _population(rng)
    truth = {metric.name: metric.compute(pool) for metric in metrics}
    held = dict.fromkeys(names, 0)
    for number in range(simulations):
        drawn = _subset(pool, rng.integers(POOL, size=size))
        for name, own in bootstrap(metrics, drawn, resamples=resamples, seed=number).items():
            held[name] += own.low <= truth[name] <= own.high
    return {name: count / simulations for name, count in held.items()}


def between_seeds(
    simulations: int, seeds: int, size: int = 400, resamples: int = 500, seed: int = 0
) -> dict[str, float]:
    """How often the interval of a mean over seeds holds the mean of all seeds on all samples.

    And how often two backbones that are equal over all seeds and samples are rightly not called different.
    """
    rng, covered, kept = np.random.default_rng(seed), 0, 0
    level = stats.norm.ppf(0.7) * np.sqrt(1 + 0.1**2)
    for number in range(simulations):
        shared = rng.normal(size=size)
        first, second = (_of_seeds(rng, shared, seeds, level) for _ in range(2))
        joined = summary(_runs([bootstrap([TOP1], each, resamples=resamples, seed=number)["top1"] for each in first]))
        covered += joined["low"] <= 0.7 <= joined["high"]
        pairs = [(TOP1.weighted(a), TOP1.weighted(b)) for a, b in zip(first, second, strict=True)]
        [draws] = replicates([lambda w, p=pairs: np.mean([b(w) - a(w) for a, b in p], axis=0)], size, resamples, number)
        differences = np.array([TOP1.compute(b) - TOP1.compute(a) for a, b in zip(first, second, strict=True)])
        kept += paired_p_value(over_seeds_too(draws, differences)) >= 0.05
    return {"holds the truth": covered / simulations, "two equal ones are not told apart": kept / simulations}


def _runs(estimates: list[Estimate]) -> pd.DataFrame:
    """What `summary` reads of the runs of several seeds."""
    rows = [
        each.as_dict() | {"score": each.value, "resampled": each.draws.astype("<f4").tobytes()} for each in estimates
    ]
    return pd.DataFrame(rows).assign(metric="top1", higher_is_better=True)


def ties(simulations: int, size: int = 400, settings: int = 4, resamples: int = 300, seed: int = 0) -> dict[str, float]:
    """How often backbones that are equal in every setting are called so, among others that are not.

    A sample is as hard for all: two backbones agree on more of them than their shares of right answers tell.
    """
    rng, names = np.random.default_rng(seed), tuple(SHARES)
    counts = dict.fromkeys(("leaders in one group", "leaders' ranks overlap", "others' ranks overlap"), 0)
    apart = {"first and last are told apart": 0}
    for number in range(simulations):
        table = standings(_grid(rng, size, settings, resamples, number)).set_index("backbone").loc[list(names)]
        group, low, high = table["group"], table["rank_low"], table["rank_high"]
        counts["leaders in one group"] += group["a1"] == group["a2"]
        for what, a, b in (("leaders' ranks overlap", "a1", "a2"), ("others' ranks overlap", "c1", "c2")):
            counts[what] += max(low[a], low[b]) <= min(high[a], high[b])
        apart["first and last are told apart"] += high["a1"] < low["e"] and group["a1"] < group["e"]
    return {what: count / simulations for what, count in (counts | apart).items()}


def power(
    simulations: int, size: int = 10_000, difference: float = 0.01, resamples: int = 200, seed: int = 0
) -> dict[str, float]:
    """How often two backbones that agree on 90% of the samples are told apart, at the 5% level.

    Both bootstrap and McNemar's test use that the samples are the same; the test of two proportions does not.
    """
    rng = np.random.default_rng(seed)
    found = dict.fromkeys(("paired bootstrap", "McNemar", "unpaired (two proportions)"), 0)
    names = [""] * size
    shares = [0.05 + difference / 2, 0.05 - difference / 2, 0.65, 0.25]  # b alone is right, a alone, both, neither
    for number in range(simulations):
        counts = rng.multinomial(size, shares)
        right_a, right_b = np.repeat([False, True, True, False], counts), np.repeat([True, False, True, False], counts)
        a, b = _right_or_wrong(right_a, names), _right_or_wrong(right_b, names)
        paired = paired_bootstrap(TOP1, a, b, resamples=resamples, seed=number)
        found["paired bootstrap"] += paired_p_value(paired.draws) < 0.05
        found["McNemar"] += mcnemar(right_a, right_b).p_value < 0.05
        found["unpaired (two proportions)"] += unpaired_p_value(right_a, right_b) < 0.05
    return {name: count / simulations for name, count in found.items()}


def unpaired_p_value(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Of the z-test of two proportions, as if each backbone had seen samples of its own."""
    size, pooled = len(right_a), (right_a.mean() + right_b.mean()) / 2
    z = (right_b.mean() - right_a.mean()) / np.sqrt(2 * pooled * (1 - pooled) / size)
    return float(2 * stats.norm.sf(abs(z)))


def _population(rng: np.random.Generator, classes: int = 4) -> Predictions:
    """A classifier that is right about more samples of one class than of another, and too sure of some."""
    labels = rng.choice(classes, size=POOL, p=[0.3, 0.3, 0.2, 0.2])
    logits = 1.5 * rng.normal(size=(POOL, classes)) + (1.5 + 0.5 * np.arange(classes)) * np.eye(classes)[labels]
    powers = np.exp(logits)
    table = powers / powers.sum(axis=1, keepdims=True)
    return Predictions.from_probabilities([""] * POOL, labels, table, [str(each) for each in range(classes)])


def _subset(predictions: Predictions, indices: np.ndarray) -> Predictions:
    arrays = ("labels", "predicted", "confidence", "label_probability", "label_rank")
    own = {name: getattr(predictions, name)[indices] for name in arrays}
    return dataclasses.replace(predictions, names=[""] * len(indices), **own)


def _right_or_wrong(right: np.ndarray, names: list[str]) -> Predictions:
    """Predictions of which only this is known."""
    wrong = (~right).astype(np.int64)
    sure, own = np.full(len(right), 0.9), np.where(right, 0.9, 0.1)
    return Predictions(names, np.zeros(len(right), np.int64), wrong, sure, own, wrong, ("yes", "no"))


def _of_seeds(rng: np.random.Generator, shared: np.ndarray, seeds: int, level: float) -> list[Predictions]:
    """Runs with several seeds: right where a normal variable, of which the runs share 7 parts in 10, is low enough."""
    own = np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.normal(size=(seeds, len(shared)))
    names = [""] * len(shared)
    return [_right_or_wrong(each, names) for each in own < level + 0.1 * rng.normal(size=(seeds, 1))]


def _grid(rng: np.random.Generator, size: int, settings: int, resamples: int, seed: int) -> Grid:
    """All backbones of SHARES on samples of their own in each setting, with the draws that records would keep."""
    scores, draws, names = [], [], [""] * size
    for _ in range(settings):
        shared, own = rng.normal(size=(size, 1)), rng.normal(size=(size, len(SHARES)))
        right = np.sqrt(0.6) * shared + np.sqrt(0.4) * own < stats.norm.ppf(list(SHARES.values()))
        weighted = [TOP1.weighted(_right_or_wrong(column, names)) for column in right.T]
        scores.append(right.mean(axis=0))
        draws.append(np.stack(replicates(weighted, size, resamples, seed), axis=1))
    kinds = ("x", "y")
    columns = {
        "task": [f"t{number}" for number in range(settings)],
        "category": [kinds[number % 2] for number in range(settings)],
        "metric": "top1",
        "higher_is_better": True,
    }
    described = pd.DataFrame(columns, index=[f"t{number}/linear" for number in range(settings)])
    return Grid(tuple(SHARES), described, np.stack(scores, axis=1), np.stack(draws, axis=2).astype(np.float32))


if __name__ == "__main__":
    main()
