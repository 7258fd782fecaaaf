"""Whitening equals scikit-learn's, in chunks and in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from bob.errors import UserError
from bob.retrieval import whitening
from bob.retrieval.search import Space
from bob.retrieval.whitening import Whitening

CPU = Space(torch.device("cpu"))


def _features(n: int = 300, width: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, width)) @ np.diag(np.logspace(0, -1, width)) + 0.5).astype(np.float32)


@pytest.mark.parametrize("dims", [None, 5, 11])
def test_equals_scikit_learn(dims: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whitening, "_ROWS", 64)
    features = _features()
    placed = CPU.place(features)
    made = Whitening(features, CPU, dims)
    own = made(placed).numpy()
    reference = PCA(n_components=made.dims, whiten=True, svd_solver="full").fit_transform(placed.numpy())
    signs = np.sign((own * reference).sum(axis=0))
    np.testing.assert_allclose(own * signs, reference, rtol=1e-6, atol=1e-8)
    assert made.dims == (dims or made.dims)


@pytest.mark.parametrize(("spread", "expected"), [([1, 1, 1, 1], 4), ([1, 0, 0, 0], 1), ([2, 2, 0, 0], 2)])
def test_effective_rank_by_hand(spread: list[float], expected: int) -> None:
    assert whitening._effective_rank(torch.tensor(spread, dtype=torch.float64)) == expected


def test_features_are_normalised_after_it_too() -> None:
    features = _features()
    space = Space(torch.device("cpu"), Whitening(features, CPU, 4))
    np.testing.assert_allclose(space.place(features).norm(dim=1).numpy(), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("features", "dims", "message"),
    [
        (np.ones((9, 4)), None, "The features of the 9 database images vary in 0 directions only. Take the protocol"),
        (_features(n=6), 8, r"vary in 5 directions only \(8 were asked for\). Take --set dims=5 or less"),
    ],
)
def test_what_cannot_be_whitened_is_refused(features: np.ndarray, dims: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Whitening(features, CPU, dims)
