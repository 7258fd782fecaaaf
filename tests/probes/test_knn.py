"""k-NN equals scikit-learn's, DINO's rule and a case worked by hand; neither float32, chunks nor ties change it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from bob.probes import bank, knn
from bob.probes.bank import nearest
from bob.probes.knn import KNeighbors, vote


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


@pytest.mark.parametrize("queries_at_once", [7, 1 << 15])
@pytest.mark.parametrize("images", [16, 64, 1 << 14])
@pytest.mark.parametrize("elements", [1, 301, 1000, 1 << 24])
def test_chunks_change_nothing(
    queries_at_once: int, images: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, queries = _noise("f4")
    queries = np.concatenate([queries, x[:50]])
    whole = KNeighbors(5).fit(x, y, 7).predict_proba(queries)
    _chunks(monkeypatch, queries_at_once, images, elements)
    np.testing.assert_allclose(KNeighbors(5).fit(x, y, 7).predict_proba(queries), whole, rtol=0, atol=1e-13)


def _chunks(monkeypatch: pytest.MonkeyPatch, queries: int, images: int, elements: int) -> None:
    monkeypatch.setattr(knn, "_QUERIES", queries)
    for name, value in {"_BANK": images, "_ELEMENTS": elements, "_SPARE": 3}.items():
        monkeypatch.setattr(bank, name, value)


def _brute(x: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Positions of the nearest by the rule as it is stated, in float64."""
    x, queries = x.astype("f8"), queries.astype("f8")
    x, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, queries))
    return np.argsort(-(queries @ x.T).astype("f4"), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4, 1e-7])
def test_candidates_lose_no_neighbour(spread: float, coarse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # The closer the directions, the less float32 tells: at 1e-2 some queries are looked up in float64, at 1e-4 all are.
    rng = np.random.default_rng(0)
    x, queries = (1 + spread * rng.normal(size=(n, 200)).astype("f4") for n in (1500, 60))
    asked: list[int] = []
    original = bank.Bank._exhaustive
    monkeypatch.setattr(bank, "_multiplies_bfloat16", lambda: coarse)  # any processor can, if slowly
    monkeypatch.setattr(bank.Bank, "_exhaustive", lambda self, q, k: (asked.append(len(q)), original(self, q, k))[1])
    _chunks(monkeypatch, 50, 512, 512 * 7)
    _, positions = bank.Bank(x, "cpu").nearest(queries, 20)
    np.testing.assert_array_equal(positions, _brute(x, queries, 20))
    assert sum(asked) == 0 if spread == 1 else sum(asked) > 0


@pytest.mark.parametrize("width", [8, 768, 4096])
def test_float32_products_are_as_near_as_they_are_said_to_be(width: int) -> None:
    x = np.random.default_rng(0).normal(size=(300, width)) + 1
    directions = torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))
    error = (directions.float() @ directions.float().T).double() - directions @ directions.T
    assert 0 < error.abs().max() < bank.product_error(width) < 1e-3


def test_products_are_full_float32_whatever_the_user_has_set() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with bank._full_float32():
            x = torch.randn(300, 300)
            error = ((x @ x).double() - x.double() @ x.double()).abs().max()
            assert error < 1e-3  # in bfloat16, where the processor has it, about 0.3
            if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
                assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_mapped_file_stays_in_its_file(tmp_path: Path) -> None:
    x, y, queries = _noise("f4")
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    made = KNeighbors(5).fit(mapped, y, 7)
    assert made.bank_.features is mapped
    np.testing.assert_array_equal(made.predict_proba(queries), KNeighbors(5).fit(x, y, 7).predict_proba(queries))


def test_equals_the_published_rule_of_dino() -> None:
    # Their steps: normalise, the k largest products, exp(similarity / T) summed by class, the largest sum.
    x, y, queries = _noise("f4")
    bank, asked = (torch.nn.functional.normalize(torch.from_numpy(rows).double(), dim=1) for rows in (x, queries))
    similarity, indices = (asked @ bank.T).topk(20)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(y)[indices], 7)
    votes = (one_hot * (similarity / 0.07).exp()[:, :, None]).sum(dim=1)
    made = KNeighbors(20, 0.07).fit(x, y, 7)
    np.testing.assert_array_equal(made.predict(queries), votes.argmax(dim=1).numpy())
    np.testing.assert_allclose(made.predict_proba(queries), votes / votes.sum(dim=1, keepdim=True), rtol=1e-9)


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


@pytest.mark.parametrize("mean", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("width", [8, 768])
def test_bfloat16_products_are_as_near_as_they_are_said_to_be(
    mean: float, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank, "_multiplies_bfloat16", lambda: True)
    x = np.random.default_rng(0).normal(size=(300, width)) + mean
    made, directions = bank.Bank(x, "cpu"), torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))
    values, positions, error = made._products(directions, 300, torch.bfloat16)
    expected = (directions @ (directions - made._mean.double()).T).gather(1, positions)
    off = (values - expected).abs() - values.abs() * 2**-8
    assert off.max() < error < 0.02
    assert (values - expected).abs().max() > bank.product_error(width)  # they were made of bfloat16


def test_multi_label_by_hand() -> None:
    # Similarities 1, 1/2 and 0 to the query; temperature 1/2 weighs them 1, 1/e and 1/e^2.
    x = np.array([[2.0, 0.0], [0.5, 0.75**0.5], [0.0, 3.0], [-1.0, 0.0]])
    y = np.array([[1, 0, -1, -1], [0, 1, 1, -1], [1, -1, 0, -1], [0, 0, 0, 1]])
    query = np.array([[5.0, 0.0]])
    counted = KNeighbors(3, None, multi_label=True).fit(x, y, 4)
    np.testing.assert_allclose(counted.predict_proba(query), [[2 / 3, 1 / 2, 1 / 2, 0]], rtol=1e-12)
    np.testing.assert_array_equal(counted.predict(query), [[1, 0, 0, 0]])
    e = np.exp(-1)
    expected = [[(1 + e**2) / (1 + e + e**2), e / (1 + e), e / (e + e**2), 0]]
    weighed = KNeighbors(3, 0.5, multi_label=True).fit(x, y, 4)
    np.testing.assert_allclose(weighed.predict_proba(query), expected, rtol=1e-12)
    np.testing.assert_array_equal(weighed.predict(query), [[1, 0, 1, 0]])
    # So cold that the nearest alone counts: for the third label, the nearest for which it is known.
    cold = KNeighbors(3, 1e-6, multi_label=True).fit(x, y, 4)
    np.testing.assert_allclose(cold.predict_proba(query), [[1, 0, 1, 0]], atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_multi_label_equals_scikit_learn(k: int) -> None:
    x, _, queries = _noise("f4")
    y = np.random.default_rng(1).integers(2, size=(300, 4))
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(x, y)
    ours = KNeighbors(k, None, multi_label=True).fit(x, y, 4)
    expected = np.stack([table[:, 1] for table in theirs.predict_proba(queries)], axis=1)
    np.testing.assert_allclose(ours.predict_proba(queries), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ours.predict(queries), theirs.predict(queries))
    points = [{"k": some, "temperature": None, "multi_label": True} for some in (1, k, 7)]
    for point, table in KNeighbors.path(points, x, y, 4, queries):
        np.testing.assert_array_equal(table, KNeighbors(**point).fit(x, y, 4).predict_proba(queries))


def test_multi_label_takes_no_other_labels() -> None:
    x, y, _ = _noise("f4")
    with pytest.raises(ValueError, match="shape"):
        KNeighbors(3, multi_label=True).fit(x, y, 7)
    with pytest.raises(ValueError, match="at least one known label"):
        KNeighbors(3, multi_label=True).fit(x, np.full((300, 7), -1), 7)
