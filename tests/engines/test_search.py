"""Learning rates, chosen on validation images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from bob.engines.fine_tune import fine_tune
from bob.engines.loop import Diverged
from bob.engines.search import choose, search, top1_and_nll


@pytest.fixture
def find(open_tiny, colours, on_cpu, tmp_path):
    """Search among recipes for a tiny ViT."""
    backbone = open_tiny("test_vit")
    return lambda recipes, **options: search(
        backbone, colours, recipes, how=on_cpu, folder=tmp_path / "runs", seed=0, **options
    )


def test_each_rate_is_scored_on_val(find, open_tiny, recipe, colours, on_cpu, tmp_path) -> None:
    rows = find([replace(recipe, lr=lr, epochs=8) for lr in (1e-6, 3e-3)])
    assert [row["lr"] for row in rows] == [1e-6, 3e-3]
    assert choose(rows) == 1 and all(row["finished"] for row in rows)
    val, how = colours.splits["val"], {"how": on_cpu, "folder": tmp_path / "again", "seed": 0}
    trained = fine_tune(open_tiny("test_vit"), colours, replace(recipe, lr=3e-3, epochs=8), **how)
    assert (rows[1]["val_top1"], rows[1]["val_nll"]) == top1_and_nll(trained.predict_proba(val), val.labels)


def test_what_was_trained_is_read_back(find, recipe) -> None:
    seen: list[int] = []
    recipes = [replace(recipe, lr=lr) for lr in (1e-4, 1e-3)]
    first = find(recipes)
    assert find(recipes, progress=lambda update: seen.append(update.step)) == first and not seen


def test_one_that_diverges_is_not_chosen(find, recipe) -> None:
    wild = replace(recipe, lr=1e20, warmup_lr=1e20, optimizer="sgd", epochs=9)
    rows = find([wild, recipe])
    assert rows[0]["val_nll"] is None and rows[0]["lr"] == 1e20 and choose(rows) == 1
    with pytest.raises(Diverged):
        find([wild])


def test_ties_go_to_the_likelihood_then_the_first() -> None:
    row = {"val_top1": 0.5, "val_nll": 1.0}
    assert choose([row, {**row, "val_nll": 0.9}, {"val_top1": 0.4, "val_nll": 0.1}]) == 1
    assert choose([row, row]) == 0
    assert choose([{"val_top1": None, "val_nll": None}, {"val_top1": None, "val_nll": 2.0}]) == 1
    with pytest.raises(ValueError, match="Expected `rows`"):
        choose([{"val_top1": None, "val_nll": None}])


def test_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    top1, nll = top1_and_nll(probabilities, labels)
    assert top1 == accuracy_score(labels, probabilities.argmax(1))
    assert nll == pytest.approx(log_loss(labels, probabilities, labels=range(4)), rel=1e-5)
    several = rng.integers(0, 2, (50, 4))
    unknown = np.where(rng.random((50, 4)) < 0.2, -1, several)
    known = unknown >= 0
    expected = log_loss(several[known], probabilities[known])
    assert top1_and_nll(probabilities, unknown) == (None, pytest.approx(expected, rel=1e-5))
