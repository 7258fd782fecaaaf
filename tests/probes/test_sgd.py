"""Linear heads train as torch's own SGD would train them, and together as each would alone."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from bob.probes import base, minibatch
from bob.probes.minibatch import shuffled_batches
from bob.probes.sgd import LinearSGD

CLASSES = 5
RECIPE = {"epochs": 3, "batch_size": 64}


def _data(n: int = 300, width: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes, features far from zero; the last batch of 64 is a smaller one."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=n)
    means = np.random.default_rng(99).normal(size=(CLASSES, width))
    return (5 + means[labels] + rng.normal(size=(n, width))).astype("f4"), labels


def _multi_label(n: int = 300) -> np.ndarray:
    """One label for each class, some of them unknown."""
    labels = (_data(n)[1][:, None] == np.arange(CLASSES)).astype(int)
    labels[np.random.default_rng(1).random(labels.shape) < 0.3] = -1
    return labels


def _train_by_torch(x: np.ndarray, labels: np.ndarray, lr: float, weight_decay: float) -> torch.nn.Linear:
    """The recipe of dinov2/eval/linear.py in torch's own parts; sigmoid cross-entropy for labels (n, L)."""
    head = torch.nn.Linear(x.shape[1], CLASSES)
    with torch.no_grad():
        initial = torch.empty(x.shape[1], CLASSES).normal_(std=0.01, generator=torch.Generator().manual_seed(0))
        head.weight.copy_(initial.T)
        head.bias.zero_()
    groups = [{"params": [head.weight], "weight_decay": weight_decay}, {"params": [head.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=lr * RECIPE["batch_size"] / 256, momentum=0.9)
    batches = list(shuffled_batches(len(x), RECIPE["batch_size"], RECIPE["epochs"], seed=0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches), eta_min=0)
    for _, rows in batches:
        logits, y = head(torch.from_numpy(x[rows])), torch.from_numpy(labels[rows])
        if labels.ndim == 1:
            loss = torch.nn.functional.cross_entropy(logits, y)
        else:
            known = (y >= 0).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, y.clamp_min(0).float(), weight=known, reduction="sum"
            ) / len(rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(("lr", "weight_decay"), [(0.01, 0.0), (0.2, 1e-2)])
@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_equals_torch(loss: str, lr: float, weight_decay: float, standardize: bool) -> None:
    x, y = _data()
    y = y if loss == "softmax" else _multi_label()
    ours = LinearSGD(lr, weight_decay, standardize=standardize, loss=loss, **RECIPE).fit(x, y, CLASSES)
    if standardize:
        x = StandardScaler().fit_transform(x).astype("f4")
    theirs = _train_by_torch(x, y, lr, weight_decay)
    np.testing.assert_allclose(ours.weight_.T.numpy(), theirs.weight.detach().numpy(), atol=2e-5)
    np.testing.assert_allclose(ours.bias_.numpy(), theirs.bias.detach().numpy(), atol=2e-5)
    logits = theirs(torch.from_numpy(x)).detach().double()
    expected = torch.softmax(logits, 1) if loss == "softmax" else torch.sigmoid(logits)
    np.testing.assert_allclose(ours.predict_proba(_data()[0]), expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_each_head_is_what_it_would_be_alone(loss: str, dtype: str, tmp_path: Path) -> None:
    x, y = _data()
    y = y if loss == "softmax" else _multi_label()
    stored = np.memmap(tmp_path / "features", dtype, "w+", shape=x.shape)
    stored[:] = x
    queries = _data(seed=1)[0]
    columns = (None, ((0, 7),), ((3, 9), (12, 20)))
    grid: list[dict[str, Any]] = [
        {"lr": lr, "weight_decay": decay, "columns": ranges, "loss": loss, **RECIPE}
        for lr, decay, ranges in itertools.product((1e-3, 0.05, 0.5), (0.0, 1e-2), columns)
    ]
    together = list(LinearSGD.path(grid, stored, y, CLASSES, queries))
    assert [point for point, _ in together] == grid
    for point, table in together:
        alone = LinearSGD(**point).fit(stored, y, CLASSES).predict_proba(queries)
        np.testing.assert_allclose(table, alone, rtol=0, atol=1e-5)
    assert len({table.tobytes() for _, table in together}) == len(grid)


def test_columns_are_the_features_themselves() -> None:
    x, y = _data()
    queries = _data(seed=1)[0]
    ranges = ((3, 9), (12, 20))
    selected = LinearSGD(columns=ranges, **RECIPE).fit(x, y, CLASSES).predict_proba(queries)
    cut, cut_queries = (np.concatenate([a[:, 3:9], a[:, 12:20]], axis=1) for a in (x, queries))
    expected = LinearSGD(**RECIPE).fit(cut, y, CLASSES).predict_proba(cut_queries)
    np.testing.assert_allclose(selected, expected, rtol=0, atol=1e-12)


def test_memory_mapped_features_are_never_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (base, minibatch):
        monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 1 << 14)
    x = np.memmap(tmp_path / "features", "f4", "w+", shape=(20_000, 64))
    x[:] = np.random.default_rng(0).normal(size=x.shape)
    y = (x[:, 0] > 0).astype(int)
    tracemalloc.start()
    fitted = LinearSGD(epochs=1, batch_size=256).fit(x, y, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 4
    assert (fitted.predict(x[:1000]) == y[:1000]).mean() > 0.9


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_a_diverging_head_says_nothing_and_harms_no_other(loss: str) -> None:
    x, y = _data()
    y = y if loss == "softmax" else _multi_label()
    grid = [{"lr": lr, "weight_decay": 10.0 * (lr > 1), "loss": loss, **RECIPE} for lr in (0.05, 1e38, 0.1)]
    tables = [table for _, table in LinearSGD.path(grid, x, y, CLASSES, x)]
    np.testing.assert_array_equal(tables[1], np.full((len(x), CLASSES), 1 / CLASSES if loss == "softmax" else 0.5))
    alone = LinearSGD(**grid[1]).fit(x, y, CLASSES)
    assert alone.diverged_
    np.testing.assert_array_equal(alone.predict_proba(x), tables[1])
    for point, table in ((grid[0], tables[0]), (grid[2], tables[2])):
        healthy = LinearSGD(**point).fit(x, y, CLASSES)
        assert not healthy.diverged_
        np.testing.assert_allclose(table, healthy.predict_proba(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("lr", [1e3, 1e10, 1e30])
def test_learning_rates_out_of_all_proportion_give_finite_probabilities(lr: float) -> None:
    x, y = _data()
    table = LinearSGD(lr, weight_decay=1e-3, epochs=20, batch_size=64).fit(x, y, CLASSES).predict_proba(x)
    assert np.isfinite(table).all()
    np.testing.assert_allclose(table.sum(axis=1), 1)


def test_multi_label_predicts_each_label_by_itself() -> None:
    (x, y), (queries, truth) = _data(2000), _data(500, seed=1)
    labels = (y[:, None] == np.arange(CLASSES)).astype(int)
    labels[:, 3] = -1
    fitted = LinearSGD(0.1, loss="bce", epochs=20, batch_size=64).fit(x, labels, CLASSES)
    table, predicted = fitted.predict_proba(queries), fitted.predict(queries)
    assert table.shape == predicted.shape == (500, CLASSES) and predicted.dtype == np.int64
    np.testing.assert_array_equal(predicted, table > 0.5)
    expected = truth[:, None] == np.arange(CLASSES)
    assert ((predicted == expected).mean(axis=0)[[0, 1, 2, 4]] > 0.95).all()
    # Other labels have no part in a label's training.
    others = labels.copy()
    others[:, 1:] = 1 - labels[:, 1:].clip(0)
    again = LinearSGD(0.1, loss="bce", epochs=20, batch_size=64).fit(x, others, CLASSES).predict_proba(queries)
    np.testing.assert_allclose(again[:, 0], table[:, 0], atol=1e-6)


def test_seed_decides() -> None:
    x, y = _data()
    tables = [LinearSGD(seed=seed, **RECIPE).fit(x, y, CLASSES).predict_proba(x) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert abs(tables[0] - tables[2]).max() > 1e-4


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"columns": ()}, "`columns`"),
        ({"columns": ((3, 3),)}, "`columns`"),
        ({"columns": ((0, 21),)}, r"`columns` to be \(start, stop\) ranges in 0 to 20"),
        ({"columns": ((-1, 4),)}, "`columns`"),
        ({"loss": "hinge"}, "`loss` to be one of softmax, bce, but got hinge"),
    ],
)
def test_bad_hyperparameters(bad: dict[str, Any], complaint: str) -> None:
    x, y = _data()
    with pytest.raises(ValueError, match=complaint):
        LinearSGD(**bad).fit(x, y, CLASSES)


def test_points_must_share_their_batches() -> None:
    x, y = _data()
    with pytest.raises(ValueError, match="differ in `lr` and `weight_decay` and `columns` alone"):
        list(LinearSGD.path([{"lr": 0.1}, {"lr": 0.1, "epochs": 3}], x, y, CLASSES, x))
    # Said or left at its default, it is the same.
    assert len(list(LinearSGD.path([{"lr": 0.1}, {"lr": 0.2, "epochs": 10}], x, y, CLASSES, x))) == 2
