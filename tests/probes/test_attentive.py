"""The attentive probe computes multi-head attention, trains as torch would, and finds what the mean of tokens hides."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bob.probes import attentive, base, minibatch
from bob.probes.attentive import AttentiveProbe, attend
from bob.probes.logistic import LogisticRegression
from bob.probes.minibatch import Standardizer, shuffled_batches

CLASSES, TOKENS, WIDTH = 3, 6, 8
RECIPE: dict[str, Any] = {"tokens": TOKENS, "heads": 2, "epochs": 3, "batch_size": 64}


def _hidden(n: int, tokens: int = TOKENS, width: int = WIDTH, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A marked token somewhere bears the class's direction, an unmarked one its opposite: the mean is noise.

    Features (n, tokens * width) and labels (n,).
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=n)
    directions = 3 * np.random.default_rng(99).normal(size=(CLASSES, width))
    directions[:, 0] = 0
    x = rng.normal(size=(n, tokens, width))
    marked, unmarked = np.array([rng.choice(tokens, 2, replace=False) for _ in range(n)]).T
    x[np.arange(n), marked] += directions[labels]
    x[np.arange(n), unmarked] -= directions[labels]
    x[np.arange(n), marked, 0] += 5
    return x.reshape(n, -1).astype("f4"), labels


def _random_parameters(probes: int, width: int, classes: int) -> dict[str, torch.Tensor]:
    shapes = {
        "query": (probes, width),
        "key": (probes, width, width),
        "value": (probes, width, width),
        "weight": (probes, classes, width),
        "bias": (probes, classes),
    }
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def _attend_by_torch(x: torch.Tensor, heads: int, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits (B, n_classes) of one probe, with keys and values for every token."""
    batch, _, width = x.shape
    query, key, value = (parameters["query"].expand(batch, 1, -1), x @ parameters["key"].T, x @ parameters["value"].T)
    split = (t.reshape(batch, -1, heads, width // heads).transpose(1, 2) for t in (query, key, value))
    gathered = torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).reshape(batch, width)
    return gathered @ parameters["weight"].T + parameters["bias"]


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attend_equals_torch(heads: int) -> None:
    parameters = _random_parameters(3, WIDTH, CLASSES)
    x = torch.randn(5, TOKENS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = attend(x, heads, **parameters)
    assert logits.shape == (5, 3, CLASSES)
    for probe in range(3):
        own = {name: value[probe] for name, value in parameters.items()}
        torch.testing.assert_close(logits[:, probe], _attend_by_torch(x, heads, own))


def test_training_equals_torch() -> None:
    x, y = _hidden(300)
    ours = AttentiveProbe(lr=1e-2, weight_decay=0.1, **RECIPE).fit(x, y, CLASSES)
    tokens = Standardizer.of(x, "cpu", TOKENS)(x).reshape(-1, TOKENS, WIDTH)
    parameters = attentive._initial(WIDTH, CLASSES, seed=0, device="cpu")
    decayed = [parameters[name] for name in ("key", "value", "weight")]
    rest = [parameters[name] for name in ("query", "bias")]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": rest, "weight_decay": 0.0}], 1e-2, weight_decay=0.1)
    batches = list(shuffled_batches(len(x), RECIPE["batch_size"], RECIPE["epochs"], seed=0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for _, rows in batches:
        logits = _attend_by_torch(tokens[rows], RECIPE["heads"], parameters)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[rows])).backward()
        optimizer.step()
        schedule.step()
    expected = torch.softmax(_attend_by_torch(tokens, RECIPE["heads"], parameters), 1).detach().numpy()
    np.testing.assert_allclose(ours.predict_proba(x), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_each_point_is_what_it_would_be_alone(dtype: str, tmp_path: Path) -> None:
    x, y = _hidden(300)
    stored = np.memmap(tmp_path / "features", dtype, "w+", shape=x.shape)
    stored[:] = x
    queries = _hidden(100, seed=1)[0]
    grid = [{"lr": lr, "weight_decay": decay, **RECIPE} for lr in (1e-3, 1e-2) for decay in (0.0, 0.1, 1.0)]
    together = list(AttentiveProbe.path(grid, stored, y, CLASSES, queries))
    assert [point for point, _ in together] == grid
    for point, table in together:
        alone = AttentiveProbe(**point).fit(stored, y, CLASSES).predict_proba(queries)
        np.testing.assert_allclose(table, alone, rtol=0, atol=1e-5)
    assert len({table.tobytes() for _, table in together}) == len(grid)


def test_finds_a_token_that_the_mean_hides() -> None:
    (x, y), (queries, truth) = _hidden(1500), _hidden(500, seed=1)
    probe = AttentiveProbe(TOKENS, lr=1e-2, heads=2, epochs=20, batch_size=128).fit(x, y, CLASSES)
    found = (probe.predict(queries) == truth).mean()
    mean, mean_of_queries = (a.reshape(-1, TOKENS, WIDTH).mean(axis=1) for a in (x, queries))
    by_mean = (LogisticRegression().fit(mean, y, CLASSES).predict(mean_of_queries) == truth).mean()
    assert found > 0.9 and by_mean < 0.5


def test_memory_mapped_features_are_never_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (base, minibatch):
        monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 1 << 14)
    x = np.memmap(tmp_path / "features", "f2", "w+", shape=(10_000, 64))
    x[:] = np.random.default_rng(0).normal(size=x.shape)
    tracemalloc.start()
    AttentiveProbe(8, heads=2, epochs=1, batch_size=100).fit(x, np.arange(10_000) % 2, 2).predict_proba(x[:10])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 3


def test_a_diverging_point_says_nothing_and_harms_no_other() -> None:
    x, y = _hidden(300)
    grid = [{"lr": lr, **RECIPE} for lr in (1e-2, 1e30, 1e-3)]
    tables = [table for _, table in AttentiveProbe.path(grid, x, y, CLASSES, x)]
    np.testing.assert_array_equal(tables[1], np.full((len(x), CLASSES), 1 / CLASSES))
    for point, table in ((grid[0], tables[0]), (grid[2], tables[2])):
        healthy = AttentiveProbe(**point).fit(x, y, CLASSES)
        assert not healthy.diverged_
        np.testing.assert_allclose(table, healthy.predict_proba(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("lr", [1.0, 1e3, 1e10])
def test_learning_rates_out_of_all_proportion_give_finite_probabilities(lr: float) -> None:
    x, y = _hidden(300)
    table = AttentiveProbe(lr=lr, **RECIPE).fit(x, y, CLASSES).predict_proba(x)
    assert np.isfinite(table).all()
    np.testing.assert_allclose(table.sum(axis=1), 1)


def test_seed_decides() -> None:
    x, y = _hidden(300)
    tables = [AttentiveProbe(seed=seed, **RECIPE).fit(x, y, CLASSES).predict_proba(x) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert abs(tables[0] - tables[2]).max() > 1e-4


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"tokens": 5}, "`tokens` to divide the 48 features, but got 5"),
        ({"tokens": 0}, "`tokens`"),
        ({"tokens": 6.0}, "`tokens` to be an integer of at least 1, but got 6.0"),
        ({"tokens": 6, "heads": 3}, "`heads` to divide a token's 8, but got 3"),
        ({"tokens": 6, "heads": 0}, "`heads`"),
    ],
)
def test_bad_hyperparameters(bad: dict[str, Any], complaint: str) -> None:
    x, y = _hidden(30)
    with pytest.raises(ValueError, match=complaint):
        AttentiveProbe(**bad).fit(x, y, CLASSES)


def test_points_must_share_their_batches() -> None:
    x, y = _hidden(30)
    with pytest.raises(ValueError, match="differ in `lr` and `weight_decay` alone"):
        list(AttentiveProbe.path([{**RECIPE, "heads": 1}, RECIPE], x, y, CLASSES, x))
