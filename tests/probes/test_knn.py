"""k-NN equals scikit-learn's and a case worked by hand, breaks ties by training order, bears chunks and extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from bob.probes import knn
from bob.probes.knn import KNeighbors, nearest, vote


def _noise(dtype: str, size: int = 400, width: int = 16, classes: int = 7) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=size)
    x = (rng.normal(size=(size, width)) + rng.normal(size=(classes, width))[labels]).astype(dtype)
    return x[:300], labels[:300], x[300:]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("k", [1, 2, 5, 20, 300])
@pytest.mark.parametrize("temperature", [None, 0.07, 1.0])
def test_equals_scikit_learn(dtype: str, k: int, temperature: float | None) -> None:
    x, y, queries = _noise(dtype)
    weights = "uniform" if temperature is None else lambda distance: np.exp((1 - distance) / temperature)
    theirs = KNeighborsClassifier(k, metric="cosine", weights=weights, algorithm="brute").fit(x, y)
    ours = KNeighbors(k, temperature).fit(x, y, 7)
    np.testing.assert_array_equal(ours.predict(queries), theirs.predict(queries))
    np.testing.assert_allclose(ours.predict_proba(queries), theirs.predict_proba(queries), rtol=0, atol=1e-6)


def test_by_hand() -> None:
    # Training directions at 0, 60, 90 and 180 degrees; the lengths do not count. The query lies at 0 degrees, so the
    # similarities are cos 0 = 1, cos 60 = 1/2, cos 90 = 0 and cos 180 = -1.
    x = np.array([[2.0, 0.0], [0.5, 0.75**0.5], [0.0, 3.0], [-1.0, 0.0]])
    y = np.array([0, 1, 1, 2])
    query = np.array([[5.0, 0.0]])
    # k = 3, one neighbour one vote: class 0 has one of three votes, class 1 two.
    np.testing.assert_allclose(KNeighbors(3, None).fit(x, y, 3).predict_proba(query), [[1 / 3, 2 / 3, 0]])
    # k = 3, temperature 1/2: weights e^2, e^1 and e^0, in units of the first 1, 1/e and 1/e^2.
    total = 1 + np.exp(-1) + np.exp(-2)
    expected = [[1 / total, (np.exp(-1) + np.exp(-2)) / total, 0]]
    np.testing.assert_allclose(KNeighbors(3, 0.5).fit(x, y, 3).predict_proba(query), expected, rtol=1e-12)
    # So the vote goes to class 1 by counting and to class 0 by weighing.
    assert KNeighbors(3, None).fit(x, y, 3).predict(query) == 1
    assert KNeighbors(3, 0.5).fit(x, y, 3).predict(query) == 0


@pytest.mark.parametrize("elements", [1, 301, 1000, 1 << 24])
def test_chunks_change_nothing(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, queries = _noise("f4")
    queries = np.concatenate([queries, x[:50]])
    whole = KNeighbors(5).fit(x, y, 7).predict_proba(queries)
    monkeypatch.setattr(knn, "_CHUNK_ELEMENTS", elements)
    np.testing.assert_allclose(KNeighbors(5).fit(x, y, 7).predict_proba(queries), whole, rtol=0, atol=1e-13)


def test_equals_go_to_the_first_in_training_order() -> None:
    # Four directions that the query is equally far from, each of another class, behind one that is nearer.
    x = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0], [0, 3, 0]], dtype="f4")
    query = np.array([[1, 1, 0]], dtype="f4")
    for order in ([0, 1, 2, 3, 4], [4, 0, 3, 2, 1], [3, 4, 1, 2, 0]):
        made = KNeighbors(3, None).fit(x[order], np.arange(5), 5)
        first = [place for place in range(5) if order[place] != 0][:2]
        chosen = {order.index(0), *first}
        assert set(np.flatnonzero(made.predict_proba(query)[0])) == chosen


@pytest.mark.parametrize("batch", [1, 2, 50])
@pytest.mark.parametrize("width", [1, 3, 257, 1024])
def test_constant_features_take_the_first_k(batch: int, width: int) -> None:
    row = np.random.default_rng(width).normal(size=width).astype("f4")
    made = KNeighbors(4).fit(np.tile(row, (103, 1)), np.arange(103) % 10, 10)
    expected = np.repeat([1 / 4, 0], [4, 6])  # rows 0 to 3, of the classes 0 to 3
    np.testing.assert_allclose(made.predict_proba(np.tile(row, (batch, 1))), np.tile(expected, (batch, 1)), atol=1e-12)


def test_duplicates_of_different_labels_are_taken_in_order() -> None:
    rng = np.random.default_rng(1)
    x = np.repeat(rng.normal(size=(40, 200)).astype("f4"), 3, axis=0)  # each image three times, labelled 0, 1 and 2
    made = KNeighbors(1).fit(x, np.arange(120) % 3, 3)
    assert not made.predict(x).any()
    assert not made.predict(x + 0.01 * rng.normal(size=x.shape).astype("f4")).any()


def test_length_does_not_matter_and_zero_is_no_direction() -> None:
    x, y, queries = _noise("f4")
    plain = KNeighbors(5).fit(x, y, 7).predict_proba(queries)
    for factor in (1e-25, 1e-6, 1e6, 1e25):
        table = KNeighbors(5).fit(x * np.float32(factor), y, 7).predict_proba(queries)
        np.testing.assert_allclose(table, plain, rtol=0, atol=1e-4)
    zeros = KNeighbors(2, None).fit(np.concatenate([np.zeros((1, 16), "f4"), x]), np.append(0, y), 7)
    assert np.isfinite(zeros.predict_proba(np.zeros((2, 16), "f4"))).all()


@pytest.mark.parametrize("temperature", [1e-300, 1e-6, 1e6, 1e300])
def test_any_temperature(temperature: float) -> None:
    x, y, queries = _noise("f4")
    table = KNeighbors(5, temperature).fit(x, y, 7).predict_proba(queries)
    other = KNeighbors(1 if temperature < 1 else 5, None).fit(x, y, 7).predict_proba(queries)
    np.testing.assert_allclose(table, other, atol=1e-3)  # the nearest alone, or one neighbour one vote


def test_k_above_the_number_of_images() -> None:
    x, y, _ = _noise("f4")
    with pytest.raises(ValueError, match="Expected `k` from 1 to the 300 training images, but got 301"):
        KNeighbors(301).fit(x, y, 7)


def test_nearest_is_a_stable_sort() -> None:
    similarity = torch.randint(5, (200, 40), generator=torch.Generator().manual_seed(0)).float()
    for k in (1, 3, 39, 40):
        values, positions = nearest(similarity, k)
        expected = np.argsort(-similarity.numpy(), axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(positions.numpy(), expected)
        np.testing.assert_array_equal(values.numpy(), np.take_along_axis(similarity.numpy(), expected, axis=1))


def test_vote_counts_every_neighbour_of_a_class() -> None:
    # Weights e^0 = 1 and e^-1 of the classes 2 and 0; then two of class 1.
    table = vote(np.array([[0.5, 0.4], [0.1, 0.1]]), np.array([[2, 0], [1, 1]]), 3, temperature=0.1)
    share = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(table, [[1 - share, 0, share], [0, 1, 0]], atol=1e-12)
