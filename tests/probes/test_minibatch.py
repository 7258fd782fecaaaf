"""Rows read a few at a time are standardised as scikit-learn does, and every image is seen once an epoch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from bob.probes import minibatch
from bob.probes.minibatch import Standardizer, check_recipe, cosine, runs, shuffled_batches


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8"])
@pytest.mark.parametrize("tokens", [1, 3])
def test_standardizer_equals_scikit_learn(dtype: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minibatch, "_CHUNK_ELEMENTS", 50)
    x = (100 + 8 * np.random.default_rng(0).normal(size=(40, 12))).astype(dtype)
    x[:, 5::4] = 7  # constant, for three tokens as well
    vectors = x.reshape(-1, 12 // tokens).astype("f8")
    theirs = StandardScaler().fit(vectors)
    ours = Standardizer.of(x, "cpu", tokens)
    np.testing.assert_allclose(ours.mean.numpy(), theirs.mean_, rtol=1e-12)
    np.testing.assert_allclose(ours.scale.numpy(), theirs.scale_, rtol=1e-9)
    np.testing.assert_allclose(ours(x, torch.float64).numpy(), theirs.transform(vectors), atol=1e-9)
    np.testing.assert_allclose(ours(x).numpy(), theirs.transform(vectors), atol=1e-5)


def test_standardizer_far_from_zero() -> None:
    x = 1e5 + np.random.default_rng(0).normal(size=(1000, 3))
    np.testing.assert_allclose(Standardizer.of(x, "cpu").scale.numpy(), x.std(axis=0), rtol=1e-9)


def test_no_standardizer_leaves_features_alone() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("f4")
    np.testing.assert_array_equal(Standardizer.none(x, "cpu")(x).numpy(), x)


def test_runs_cover_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minibatch, "_CHUNK_ELEMENTS", 7)
    x = np.arange(33).reshape(11, 3)
    pieces = [x[run] for run in runs(x)]
    assert max(map(len, pieces)) == 2
    np.testing.assert_array_equal(np.concatenate(pieces), x)


def test_every_row_once_an_epoch_and_forwards() -> None:
    batches = [(share, rows.tolist()) for share, rows in shuffled_batches(10, 4, epochs=3, seed=5)]
    assert [len(rows) for _, rows in batches] == [4, 4, 2] * 3
    assert all(rows == sorted(rows) for _, rows in batches)
    epochs = [[row for _, rows in batches[start : start + 3] for row in rows] for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    np.testing.assert_allclose([share for share, _ in batches], np.arange(9) / 9)
    assert batches == [(share, rows.tolist()) for share, rows in shuffled_batches(10, 4, epochs=3, seed=5)]
    assert batches != [(share, rows.tolist()) for share, rows in shuffled_batches(10, 4, epochs=3, seed=6)]


def test_cosine_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for step in range(7):
        assert cosine(step / 7) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", value) for value in (0.0, -1.0, math.nan, math.inf)]
    + [("weight_decay", value) for value in (-1.0, math.nan, math.inf)]
    + [
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", math.inf),
        ("epochs", math.nan),
        ("batch_size", 0),
        ("batch_size", -3),
        ("seed", -1),
        ("seed", 0.5),
    ],
)
def test_bad_recipes(name: str, value: float) -> None:
    recipe = {"lr": 0.1, "weight_decay": 0.0, "epochs": 1, "batch_size": 1, "seed": 0}
    check_recipe(**recipe)
    with pytest.raises(ValueError, match=f"Expected `{name}` to be .* but got"):
        check_recipe(**{**recipe, name: value})
