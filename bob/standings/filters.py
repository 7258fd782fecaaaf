"""Which runs a table is made of: by paradigm, size, category and name of the backbone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from bob.cards import Paradigm
from bob.errors import UserError, did_you_mean
from bob.results.globs import matches_any

SMALL = 30_000_000  # parameters; what the paper calls small has fewer
PARADIGMS: tuple[str, ...] = get_args(Paradigm)
_COUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(e\d+)?\s*([kmgb]?)", re.IGNORECASE)
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


@dataclass(frozen=True)
class Filters:
    """What a backbone must be, and what a task; whatever is left empty asks for nothing.

    Attributes:
        paradigms: One of these.
        categories: Kinds of task (classification, detection, ...), one of these.
        without: Names and globs of backbones that are left out.
        least: Parameters, at least.
        most: Parameters, at most.
        small: Fewer than 30 million parameters.

    Source: Goldblum et al. 2023, Battle of the Backbones, arXiv 2310.19909 (small backbones).
    """

    paradigms: Sequence[str] = ()
    categories: Sequence[str] = ()
    without: Sequence[str] = ()
    least: float | None = None
    most: float | None = None
    small: bool = False

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.options())

    def options(self) -> list[str]:
        """The options of the command that ask for something."""
        asked = {
            "--paradigm": self.paradigms,
            "--min-params": self.least is not None,
            "--max-params": self.most is not None,
            "--small": self.small,
            "--category": self.categories,
            "--without": self.without,
        }
        return [option for option, value in asked.items() if value]


def narrow(runs: pd.DataFrame, filters: Filters) -> pd.DataFrame:
    """Keep the runs that the filters ask for. A backbone is what its newest run says it is.

    Args:
        runs: As `bob.results.runs.read_runs` gives them.
        filters: What to keep.

    Raises:
        UserError: If a name is unknown, the bounds are crossed, or nothing is left.
    """
    if not filters:
        return runs
    _check(runs, filters)
    newest = runs.sort_values(["created", "run_id"]).groupby("backbone")[["paradigm", "parameters"]].last()
    kept = pd.Series(True, index=newest.index)
    if filters.paradigms:
        kept &= newest["paradigm"].isin(filters.paradigms)
    if filters.least is not None:
        kept &= newest["parameters"] >= filters.least
    if filters.most is not None:
        kept &= newest["parameters"] <= filters.most
    if filters.small:
        kept &= newest["parameters"] < SMALL
    names = [name for name in newest.index[kept] if not matches_any(name, filters.without)]
    left = runs[runs["backbone"].isin(names)]
    if filters.categories:
        left = left[left["category"].isin(filters.categories)]
    if left.empty:
        raise UserError("No record matches.", f"Loosen {_listed(filters.options(), 'or')}.")
    return left.reset_index(drop=True)


def parse_count(text: str, option: str) -> float:
    """A number of parameters as people write it: 30M, 1.2G (or 1.2B), 500k, 25e6, 25000000.

    Args:
        text: What was given.
        option: To which option.

    Raises:
        UserError: If it is no such number.
    """
    found = _COUNT.fullmatch(text.strip())
    if not found:
        raise UserError(f"{option} {text} is no number of parameters.", "Write it as 30M, 1.2G or 25000000.")
    number, exponent, unit = found.groups()
    return float(number + (exponent or "")) * _UNITS[unit.lower()]


def one_of(value: str, known: Collection[str], option: str) -> str:
    """The value of an option that has a few.

    Raises:
        UserError: If it is none of them.
    """
    if value not in known:
        hint = did_you_mean(value, known) or f"Choose {_listed(known, 'or')}."
        raise UserError(f"{option} {value} is not known.", hint)
    return value


def _check(runs: pd.DataFrame, filters: Filters) -> None:
    for paradigm in filters.paradigms:
        one_of(paradigm, PARADIGMS, "--paradigm")
    present = sorted(runs["category"].unique())
    for category in filters.categories:
        if category not in present:
            hint = did_you_mean(category, present) or f"There are records of {_listed(present, 'and')}."
            raise UserError(f"--category {category}: there is no record of such a task.", hint)
    names = sorted(runs["backbone"].unique())
    for glob in filters.without:
        if not any(matches_any(name, [glob]) for name in names):
            hint = did_you_mean(glob, names) or "Leave it away, or see the names in `bob leaderboard`."
            raise UserError(f"--without {glob} matches no backbone of these records.", hint)
    if filters.least is not None and filters.most is not None and filters.least > filters.most:
        raise UserError("--min-params is more than --max-params.", "Exchange them.")


def _listed(names: Iterable[str], word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
