"""Filters: what they keep, how sizes are written, and a sentence for everything that they do not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from bob.errors import UserError
from bob.results.record import Record
from bob.results.runs import tidy
from bob.standings.filters import Filters, narrow, one_of, parse_count

BACKBONES = {"dino": ("ssl", 22e6), "mae": ("ssl", 86e6), "clip": ("vlm", 150e6), "resnet50": ("supervised", 30e6)}


@pytest.fixture
def runs(make_record: Callable[..., Record]) -> pd.DataFrame:
    return tidy(
        make_record(name, task=task, category=category, parameters=int(size), card={"paradigm": paradigm})
        for name, (paradigm, size) in BACKBONES.items()
        for task, category in (("t", "classification"), ("u", "ood"))
    )


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({}, {"dino", "mae", "clip", "resnet50"}),
        ({"paradigms": ["ssl"]}, {"dino", "mae"}),
        ({"paradigms": ["ssl", "vlm"], "without": ["ma*"]}, {"dino", "clip"}),
        ({"small": True}, {"dino"}),  # exactly 30 M is not below it
        ({"most": 30e6}, {"dino", "resnet50"}),
        ({"least": 30e6}, {"mae", "clip", "resnet50"}),
        ({"least": 86e6, "most": 86e6}, {"mae"}),
        ({"without": ["clip", "resnet*"]}, {"dino", "mae"}),
    ],
)
def test_backbones(runs: pd.DataFrame, asked: dict[str, Any], left: set[str]) -> None:
    kept = narrow(runs, Filters(**asked))
    assert set(kept["backbone"]) == left and len(kept) == 2 * len(left)
    assert list(kept.index) == list(range(len(kept)))


def test_categories(runs: pd.DataFrame) -> None:
    assert set(narrow(runs, Filters(categories=["ood"]))["task"]) == {"u"}
    assert len(narrow(runs, Filters(categories=["ood", "classification"]))) == len(runs)


def test_a_backbone_is_what_its_newest_run_says(make_record: Callable[..., Record]) -> None:
    runs = tidy(
        [
            make_record("a", card={"paradigm": "unknown"}, created="2026-01-01"),
            make_record("a", protocol="knn", card={"paradigm": "ssl"}, created="2026-01-02"),
        ]
    )
    assert len(narrow(runs, Filters(paradigms=["ssl"]))) == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"paradigms": ["sssl"]}, "--paradigm sssl is not known. Did you mean: ssl?"),
        ({"paradigms": ["zzz"]}, "--paradigm zzz is not known. Choose supervised, ssl, vlm, "),
        ({"paradigms": ["depth"]}, "No record matches. Loosen --paradigm."),
        ({"paradigms": ["vlm"], "small": True}, "No record matches. Loosen --paradigm or --small."),
        ({"least": 1e9, "small": True, "without": ["mae"]}, "Loosen --min-params, --small or --without."),
        ({"categories": ["odd"]}, "--category odd: there is no record of such a task. Did you mean: ood?"),
        ({"categories": ["retrieval"]}, "There are records of classification and ood."),
        ({"without": ["resnet"]}, "--without resnet matches no backbone of these records. Did you mean: resnet50?"),
        ({"least": 2.0, "most": 1.0}, "--min-params is more than --max-params."),
    ],
)
def test_mistakes(runs: pd.DataFrame, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        narrow(runs, Filters(**asked))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("30M", 30e6),
        ("1.2G", 1.2e9),
        ("1.2b", 1.2e9),
        ("500k", 5e5),
        (" 86 m ", 86e6),
        (".5M", 5e5),
        ("25000000", 25e6),
        ("25e6", 25e6),
        ("0", 0),
    ],
)
def test_counts(text: str, count: float) -> None:
    assert parse_count(text, "--max-params") == count


@pytest.mark.parametrize("text", ["", "M", "-3M", "30MB", "30 million", "1,2G", "nan", "1e", "1.2.3"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(UserError, match=r"^--max-params .*is no number of parameters\. Write it as 30M, 1\.2G or "):
        parse_count(text, "--max-params")


def test_one_of() -> None:
    assert one_of("task", ("task", "category"), "--group") == "task"
    with pytest.raises(UserError, match=r"--group tsk is not known\. Did you mean: task\?"):
        one_of("tsk", ("task", "category"), "--group")


def test_asking_for_nothing_is_falsy() -> None:
    assert not Filters() and Filters(least=0.0) and Filters(small=True)
