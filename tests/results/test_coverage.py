"""Statistics are right as often as they say: simulations whose truth is known, by `scripts/bench/coverage.py`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "coverage.py"


@pytest.fixture(scope="module")
def simulate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_coverage", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_intervals_hold_the_truth(simulate: ModuleType) -> None:
    rates = simulate.intervals(1000, size=400, resamples=500)
    assert set(rates) == {"top1", "mean_per_class", "nll"}
    assert all(0.93 <= rate <= 0.97 for rate in rates.values()), rates


def test_intervals_over_seeds_hold_the_truth_and_equal_ones_stay_equal(simulate: ModuleType) -> None:
    """Three seeds say little about their spread, so the interval is a little on the wide side."""
    rates = simulate.between_seeds(500, seeds=3, resamples=200)
    assert 0.94 <= rates["holds the truth"] <= 0.985
    assert rates["two equal ones are not told apart"] >= 0.93


def test_equal_backbones_are_tied(simulate: ModuleType) -> None:
    rates = simulate.ties(400, size=300, settings=3, resamples=200)
    for what in ("leaders in one group", "leaders' ranks overlap", "others' ranks overlap"):
        assert rates[what] >= 0.95, rates
    assert rates["first and last are told apart"] >= 0.95  # or everything would be tied


def test_pairs_find_a_point_more_often(simulate: ModuleType) -> None:
    """10,000 predictions that agree on 90%: both paired tests find one point in 88%, that of two proportions in 20%."""
    rates = simulate.power(200)
    print(rates)
    assert min(rates["paired bootstrap"], rates["McNemar"]) >= 0.75
    assert rates["unpaired (two proportions)"] <= 0.35


def test_pairs_rarely_find_what_is_not_there(simulate: ModuleType) -> None:
    rates = simulate.power(300, size=1000, difference=0.0, resamples=300)
    assert max(rates.values()) <= 0.085
