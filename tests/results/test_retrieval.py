"""Retrieval metrics equal a case worked by hand, the published evaluation rule and torchmetrics."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bob.errors import UserError
from bob.results.retrieval import NOT_FOUND, RetrievalPredictions
from bob.results.retrieval_metrics import RETRIEVAL_METRICS
from bob.results.statistics import bootstrap

METRICS = {metric.name: metric for metric in RETRIEVAL_METRICS}
REVISITED = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}


def _made(queries: list[list[tuple[int, str]]], database: int = 20, **other: object) -> RetrievalPredictions:
    """Predictions of queries that each have (rank, kind) of what counts."""
    kinds = ("easy", "hard", "junk")
    flat = [entry for query in queries for entry in query]
    return RetrievalPredictions(
        **{
            "names": [f"q{i}" for i in range(len(queries))],
            "labels": np.zeros(len(queries), dtype=np.int64),
            "classes": ("x",),
            "starts": np.cumsum([0, *(len(query) for query in queries)]),
            "ranks": np.array([rank for rank, _ in flat], dtype=np.int64),
            "kind_of": np.array([kinds.index(kind) for _, kind in flat], dtype=np.int64),
            "kinds": kinds,
            "levels": REVISITED,
            "primary": "medium",
            "database": database,
            **other,
        }
    )


# Ranking of the one query: junk, hard, other, easy, junk, easy, ...
HAND = _made([[(0, "junk"), (1, "hard"), (3, "easy"), (4, "junk"), (5, "easy")]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Without junk: hard 0, other 1, easy 2, easy 3.
        ("retrieval_map", ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3),
        ("mrr", 1.0),
        ("precision_1", 1.0),
        ("precision_5", 3 / 5),
        ("mp_5", 3 / 4),  # the last positive is at the fourth place
        ("recall_1", 1.0),
        # Without junk and hard: other 0, easy 1, easy 2.
        ("retrieval_map_easy", ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2),
        ("mrr_easy", 1 / 2),
        ("recall_1_easy", 0.0),
        ("recall_5_easy", 1.0),
        ("precision_1_easy", 0.0),
        # Without junk and easy: hard 0.
        ("retrieval_map_hard", 1.0),
        ("mp_10_hard", 1.0),
        ("precision_10_hard", 1 / 10),
        ("map_100", (1 + 2 / 3 + 3 / 4) / 3),
    ],
)
def test_a_case_with_junk_worked_by_hand(name: str, expected: float) -> None:
    assert METRICS[name].compute(HAND) == pytest.approx(expected, rel=1e-12)


def _published(ranking: np.ndarray, positive: np.ndarray, junk: np.ndarray, k: int) -> tuple[float, float]:
    """AP and mP@k as the revisited benchmark says them: junk is taken out, then trapezoids are added up."""
    left = [image for image in ranking if image not in junk]
    places = [place for place, image in enumerate(left) if image in positive]
    area = 0.0
    for j, place in enumerate(places):
        area += ((j / place if place else 1.0) + (j + 1) / (place + 1)) / 2 / len(positive)
    depth = min(max(places) + 1, k)
    return area, sum(place < depth for place in places) / depth


def _random(
    seed: int, database: int = 40
) -> tuple[RetrievalPredictions, list[tuple[np.ndarray, dict[str, np.ndarray]]]]:
    rng = np.random.default_rng(seed)
    queries, truth = [], []
    for _ in range(12):
        ranking, images = rng.permutation(database), rng.permutation(database)
        kinds = {"easy": images[:3], "hard": images[3 : 3 + rng.integers(1, 5)], "junk": images[20:30]}
        where = {image: place for place, image in enumerate(ranking)}
        queries.append(sorted((int(where[image]), kind) for kind, own in kinds.items() for image in own))
        truth.append((ranking, kinds))
    return _made(queries, database), truth


@pytest.mark.parametrize("level", REVISITED)
def test_equals_the_published_rule(level: str) -> None:
    made, truth = _random(0)
    expected = []
    for ranking, kinds in truth:
        good, ignored = (np.concatenate([kinds[kind] for kind in part]) for part in REVISITED[level])
        expected.append(_published(ranking, good, ignored, 5))
    area, precision = np.mean(expected, axis=0)
    assert METRICS[f"retrieval_map_{level}"].compute(made) == pytest.approx(area, rel=1e-12)
    assert METRICS[f"mp_5_{level}"].compute(made) == pytest.approx(precision, rel=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_equals_torchmetrics(k: int) -> None:
    from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalPrecision

    made, truth = _random(1)
    scores, target, index = [], [], []
    for number, (ranking, kinds) in enumerate(truth):
        left = ranking[~np.isin(ranking, kinds["junk"])]
        scores.append(1 / (1 + np.arange(len(left), dtype=np.float32)))
        target.append(np.isin(left, np.concatenate([kinds["easy"], kinds["hard"]])))
        index.append(np.full(len(left), number))
    given = [torch.from_numpy(np.concatenate(part)) for part in (scores, target, index)]
    references = {
        "mrr": RetrievalMRR(),
        f"precision_{k}": RetrievalPrecision(top_k=k),
        f"recall_{k}": RetrievalHitRate(top_k=k),
    }
    for name, reference in references.items():
        assert METRICS[name].compute(made) == pytest.approx(float(reference(*given)), rel=1e-6)


def test_only_queries_with_a_positive_count() -> None:
    made = _made([[(3, "easy")], [(0, "junk")], [(0, "hard")]])
    assert METRICS["mrr"].compute(made) == pytest.approx((1 / 4 + 1) / 2)
    assert METRICS["mrr_easy"].compute(made) == pytest.approx(1 / 4)
    assert made.breakdown()["per_level"][0] == {
        "level": "easy",
        "n": 1,
        "retrieval_map": pytest.approx(1 / 8),
        "mrr": 0.25,
    }


def test_what_the_search_did_not_come_to_adds_nothing() -> None:
    made = _made([[(0, "easy"), (NOT_FOUND, "easy")], [(NOT_FOUND, "hard")]])
    assert METRICS["retrieval_map"].compute(made) == pytest.approx((1 / 2 + 0) / 2)
    assert METRICS["mrr"].compute(made) == pytest.approx(1 / 2)
    assert METRICS["recall_10"].compute(made) == pytest.approx(1 / 2)
    assert METRICS["mp_10"].compute(made) == pytest.approx(1 / 20)


def test_undefined_where_no_query_has_a_positive() -> None:
    made = _made([[(0, "easy")]])
    assert not METRICS["mrr_hard"].defined_on(made) and not METRICS["mrr_strong"].defined_on(made)
    with pytest.raises(UserError, match="`mrr_hard` is not defined on this test split: no query has a positive"):
        METRICS["mrr_hard"].compute(made)


def test_bootstrap_draws_queries() -> None:
    made, _ = _random(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = bootstrap([METRICS["retrieval_map"], METRICS["mrr_hard"]], made, resamples=400)
    for estimate in drawn.values():
        assert estimate.low < estimate.value < estimate.high and estimate.n == 12


def test_comes_back_from_parquet(tmp_path: Path) -> None:
    made, _ = _random(3)
    made.write(tmp_path / "a.parquet")
    again = RetrievalPredictions.read(tmp_path / "a.parquet")
    for name in ("starts", "ranks", "kind_of", "labels"):
        assert np.array_equal(getattr(again, name), getattr(made, name)), name
    for name in ("names", "classes", "kinds", "levels", "primary", "database"):
        assert getattr(again, name) == getattr(made, name), name
    again.write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_per_class_where_queries_have_classes() -> None:
    made = _made([[(0, "easy")], [(1, "easy")], [(0, "junk")]], labels=np.array([0, 1, 1]), classes=("a", "b"))
    assert made.per_class() == [
        {"class": "a", "n": 1, "retrieval_map": 1.0, "mrr": 1.0},
        {"class": "b", "n": 1, "retrieval_map": 0.25, "mrr": 0.5},
    ]
    assert HAND.per_class() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": []}, "at least one sample"),
        ({"database": 3}, "Expected `ranks` to be at least -1 and less than 3, but got 3"),
        ({"primary": "all"}, "Expected `levels` to name all"),
        ({"starts": np.array([0, 4])}, r"Expected `kind_of` to have shape \(4,\)"),
    ],
)
def test_wrong_predictions_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(HAND, **change)
