"""Successive halving on costs made up: how many images, who goes on, and that the budget is kept."""

from __future__ import annotations

import numpy as np
import pytest

from bob.pick.halving import (
    Cost,
    level_sizes,
    plan_rungs,
    promoted,
    stage_seconds,
    standing,
    surely_worse,
    survivors,
)

SIZES = (900, 300, 100)


def made(opening: float, per_image: float, lacking: tuple[int, ...] = SIZES) -> Cost:
    return Cost(opening, per_image, lacking)


def test_sizes_are_nested_thirds() -> None:
    assert level_sizes(1500, 100) == [1500, 500, 167]
    assert level_sizes(50, 100) == [50]


def test_with_time_enough_everything_is_tried_on_everything() -> None:
    costs = {name: made(1.0, 0.01, (1000, 334)) for name in "abc"}
    schedule = plan_rungs(costs, [1000, 334], [2.0, 1.0], seconds=40.0, top=1)
    assert [(rung.images, rung.keep) for rung in schedule.rungs] == [(1000, 3)]
    assert schedule.seconds == pytest.approx(3 * (1 + 10 + 2))
    assert schedule.affordable == ("a", "b", "c")


def test_with_less_time_a_third_comes_first() -> None:
    costs = {name: made(0.0, 0.01) for name in "abcdef"}
    schedule = plan_rungs(costs, [900, 300, 100], [0.0, 0.0, 0.0], seconds=50.0, top=1)
    # All on everything would take 54 s; 6 x 3 s, and then 2 x the other 6 s.
    assert [(rung.images, rung.keep) for rung in schedule.rungs] == [(300, 6), (900, 2)]
    assert schedule.seconds == pytest.approx(6 * 3 + 2 * 6)


def test_the_less_time_the_fewer_images() -> None:
    costs = {name: made(0.0, 0.01) for name in "abcdefghi"}
    firsts = [
        plan_rungs(costs, [900, 300, 100], [0.0] * 3, seconds, top=1).rungs[0].images for seconds in (100, 50, 30)
    ]
    assert firsts == [900, 300, 100]


def test_with_too_little_time_the_cheapest_are_tried() -> None:
    costs = {"dear": made(0.0, 10.0), "cheap": made(0.0, 0.01), "middling": made(0.0, 0.05)}
    schedule = plan_rungs(costs, [900, 300, 100], [0.0] * 3, seconds=15.0, top=1)
    assert schedule.affordable == ("cheap", "middling")
    assert schedule.rungs[0].images == 100


def test_with_no_time_nothing_is_tried() -> None:
    assert plan_rungs({"a": made(1.0, 1.0, (100,))}, [100], [0.0], seconds=50.0, top=1).affordable == ()
    assert plan_rungs({}, [100], [0.0], seconds=50.0, top=1).rungs == ()


def test_top_candidates_reach_the_end() -> None:
    costs = {name: made(0.0, 0.01) for name in "abcdef"}
    schedule = plan_rungs(costs, [900, 300, 100], [0.0] * 3, seconds=45.0, top=3)
    assert [rung.keep for rung in schedule.rungs] == [6, 3]


@pytest.mark.parametrize("seconds", [10.0, 20.0, 40.0, 80.0, 160.0])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_begun_fits(seed: int, seconds: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = level_sizes(1500, 100)
    costs = {str(i): made(rng.uniform(0.1, 1), rng.lognormal(-4, 1), tuple(sizes)) for i in range(8)}
    schedule = plan_rungs(costs, sizes, [2.0, 1.0, 0.5], seconds, top=2)
    if not schedule.rungs:
        return
    first = schedule.rungs[0]
    probe = [2.0, 1.0, 0.5][first.level]
    assert sum(stage_seconds(costs[name], first.level, probe) for name in schedule.affordable) <= seconds


def test_what_is_stored_costs_nothing() -> None:
    stored = {name: made(1.0, 0.01, (0, 0, 0)) for name in "abc"}
    schedule = plan_rungs(stored, SIZES, [2.0, 1.0, 0.5], seconds=10.0, top=1)
    assert [rung.level for rung in schedule.rungs] == [0]
    assert schedule.seconds == pytest.approx(9.0)
    # A rung computes what the one before has not.
    assert stage_seconds(made(1.0, 0.01), 0, 2.0, before=1) == pytest.approx(1 + 6 + 2)
    assert stage_seconds(made(1.0, 0.01, (900, 0, 0)), 0, 2.0, before=1) == pytest.approx(1 + 9 + 2)


def hits(share: float, n: int = 100) -> np.ndarray:
    return np.arange(n) < round(share * n)


def test_standing() -> None:
    right = {"a": hits(0.5), "b": hits(0.7), "c": hits(0.5), "d": hits(0.5)}
    assert standing(right, {"a": 1.0, "b": 0.0, "c": 2.0, "d": 1.0}) == ["b", "c", "a", "d"]


def test_surely_worse() -> None:
    # Of 100 images 20 more are right: 0.2 - 1.96 x 0.0402 > 0; of 3 more it is not known.
    assert surely_worse(hits(0.7), hits(0.5))
    assert not surely_worse(hits(0.53), hits(0.5))
    assert not surely_worse(hits(0.5), hits(0.5))
    assert not surely_worse(hits(1.0, 1), hits(0.0, 1))


def test_who_is_not_known_to_be_worse_goes_on_too() -> None:
    right = {"a": hits(0.8), "b": hits(0.79), "c": hits(0.4)}
    assert survivors(["a", "b", "c"], right, keep=1) == (["a", "b"], ["c"])
    assert survivors(["a", "b", "c"], right, keep=5) == (["a", "b", "c"], [])


def test_the_next_rung_has_time_for_the_best() -> None:
    seconds = {"a": 10.0, "b": 10.0, "c": 2.0}
    assert promoted(["a", "b", "c"], seconds, share=13.0, everything=30.0) == (["a", "c"], ["b"])
    assert promoted(["a", "b", "c"], seconds, share=5.0, everything=11.0) == (["a"], ["b", "c"])
    assert promoted(["a", "b", "c"], seconds, share=1.0, everything=5.0) == (["c"], ["a", "b"])
