"""Budgets: what people write, what still fits, and that time that is up stops what runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bob.errors import UserError
from bob.pick.budget import BudgetSpent, Deadline, parse_budget, spoken


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("1h", 3600), ("1.5h", 5400), ("1h30m", 5400), (" 2 min ", 120), ("1H", 3600)],
)
def test_budgets_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "ten minutes", "10x", "-5m", "1h 1h", "5m later", "1.2.3h"])
def test_no_budgets(text: str) -> None:
    with pytest.raises(UserError, match="is no budget of time"):
        parse_budget(text)


def test_no_time_at_all() -> None:
    with pytest.raises(UserError, match="leaves no time at all"):
        parse_budget("0s")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (9.96, "10 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min")],
)
def test_spoken(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_what_still_fits() -> None:
    now = [100.0]
    deadline = Deadline(200.0, lambda: now[0])
    assert deadline.margin == 6.0
    assert deadline.left() == 194.0
    assert deadline.fits(155.0) and not deadline.fits(156.0)  # a quarter is added
    assert deadline.fits(40.0, of=50.0) and not deadline.fits(41.0, of=50.0)
    now[0] = 299.0
    assert deadline.spent() == 199.0
    assert deadline.left() == 0.0 and not deadline.fits(0.1)


def test_the_margin_is_bounded() -> None:
    assert Deadline(10.0).margin == 1.0
    assert Deadline(86400.0).margin == 30.0


def test_time_that_is_up_stops_what_runs() -> None:
    started = time.monotonic()
    with pytest.raises(BudgetSpent), Deadline(1.3).enforced():
        time.sleep(10)
    assert time.monotonic() - started < 1.0  # the margin is left
    time.sleep(0.1)  # no alarm is left over


def test_less_time_can_be_given() -> None:
    with pytest.raises(BudgetSpent), Deadline(100.0).enforced(0.05):
        time.sleep(10)


def test_nothing_begins_when_the_time_is_up() -> None:
    with pytest.raises(BudgetSpent), Deadline(0.5).enforced():
        pytest.fail("it began")


def test_starting_up_counts(run_python: Callable[..., Any]) -> None:
    ended = run_python("-c", "import bob.pick.budget as b, time; time.sleep(0.5); print(b.startup_seconds())")
    assert 0.5 <= float(ended.out) < 30


def test_other_threads_have_no_alarm() -> None:
    done: list[bool] = []

    def work() -> None:
        with Deadline(10.0).enforced():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
