"""Learning rates, chosen on validation images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bob.engines import fine_tune
from bob.engines.loop import Diverged
from bob.engines.search import search


@pytest.fixture
def find(open_tiny, colours, on_cpu, tmp_path):
    """Search among recipes for a tiny ViT."""
    backbone, labels = open_tiny("test_vit"), colours.splits["val"].labels
    common = {"score": lambda table: _scores(table, labels), "how": on_cpu, "folder": tmp_path / "runs", "seed": 0}
    return lambda recipes, **options: search(fine_tune, backbone, colours, recipes, **common, **options)


def _scores(table: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"top1": float((table.argmax(axis=1) == labels).mean())}


def test_each_rate_is_scored_on_val(find, open_tiny, recipe, colours, on_cpu, tmp_path) -> None:
    rows = find([replace(recipe, lr=lr, epochs=8) for lr in (1e-6, 3e-3)])
    assert [row["lr"] for row in rows] == [1e-6, 3e-3]
    assert rows[1]["val_top1"] > rows[0]["val_top1"] and all(row["finished"] for row in rows)
    val, how = colours.splits["val"], {"how": on_cpu, "folder": tmp_path / "again", "seed": 0}
    trained = fine_tune.train(open_tiny("test_vit"), colours, replace(recipe, lr=3e-3, epochs=8), **how)
    assert rows[1]["val_top1"] == _scores(trained.predict(val), val.labels)["top1"]


def test_what_was_trained_is_read_back(find, recipe) -> None:
    seen: list[int] = []
    recipes = [replace(recipe, lr=lr) for lr in (1e-4, 1e-3)]
    first = find(recipes)
    assert find(recipes, progress=lambda _: lambda update: seen.append(update.step)) == first and not seen


def test_one_that_diverges_has_no_scores(find, recipe) -> None:
    wild = replace(recipe, lr=1e20, warmup_lr=1e20, optimizer="sgd", epochs=9)
    rows = find([wild, recipe])
    assert rows[0]["diverged"] and rows[0]["lr"] == 1e20 and "val_top1" not in rows[0]
    assert not rows[1]["diverged"] and rows[1]["val_top1"] >= 0
    with pytest.raises(Diverged):
        find([wild])
