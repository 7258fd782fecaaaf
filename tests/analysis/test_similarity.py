"""CKA and mutual neighbours: against n x n kernels, cases worked by hand, and the papers' properties."""

from __future__ import annotations

import numpy as np
import pytest

from bob.analysis.similarity import cka_matrix, linear_cka, minibatch_cka, mutual_neighbours

RNG = np.random.default_rng(0)


def hsic(one: np.ndarray, other: np.ndarray, unbiased: bool) -> float:
    """From kernels, as the papers write it."""
    n = len(one)
    k, m = one @ one.T, other @ other.T
    if not unbiased:
        h = np.eye(n) - 1 / n
        return float(np.trace(k @ h @ m @ h))
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    ones = np.ones(n)
    middle = (ones @ k @ ones) * (ones @ m @ ones) / (n - 1) / (n - 2)
    return float((np.trace(k @ m) + middle - 2 / (n - 2) * (ones @ k @ m @ ones)) / n / (n - 3))


def by_kernels(one: np.ndarray, other: np.ndarray, unbiased: bool) -> float:
    return hsic(one, other, unbiased) / np.sqrt(hsic(one, one, unbiased) * hsic(other, other, unbiased))


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize(("n", "widths"), [(60, (5, 9)), (20, (40, 30))])
def test_cka_kernels(unbiased: bool, n: int, widths: tuple[int, int]) -> None:
    one = RNG.normal(size=(n, widths[0])) + 3
    other = RNG.normal(size=(n, widths[1])) + one[:, :1]
    expected = by_kernels(one, other, unbiased)
    assert linear_cka(one, other, rows=7, unbiased=unbiased) == pytest.approx(expected, rel=1e-9)
    assert cka_matrix([one, other], unbiased)[0, 1] == pytest.approx(expected, rel=1e-9)


def test_cka_invariances() -> None:
    one = RNG.normal(size=(80, 12))
    turn, _ = np.linalg.qr(RNG.normal(size=(12, 12)))
    for unbiased in (False, True):
        assert linear_cka(one, 5 * one @ turn + 7, unbiased=unbiased) == pytest.approx(1, rel=1e-9)


def test_cka_independent() -> None:
    """The plain estimate is near 1 for few images and many features; the unbiased one is near 0."""
    one, other = RNG.normal(size=(50, 2000)), RNG.normal(size=(50, 2000))
    assert linear_cka(one, other) > 0.9
    assert abs(linear_cka(one, other, unbiased=True)) < 0.1


def test_cka_constant() -> None:
    same = np.full((10, 3), 0.1, dtype=np.float32)
    assert np.isnan(linear_cka(same, RNG.normal(size=(10, 2))))
    assert np.isnan(cka_matrix([same, RNG.normal(size=(10, 2))])[0]).all()


def test_minibatch() -> None:
    one = RNG.normal(size=(200, 6))
    other = one @ RNG.normal(size=(6, 4)) + RNG.normal(size=(200, 4))
    whole = linear_cka(one, other, unbiased=True)
    assert minibatch_cka(one, other, batch=200) == pytest.approx(whole, rel=1e-9)
    assert minibatch_cka(one, other, batch=40) == pytest.approx(whole, abs=0.05)


def test_neighbours_by_hand() -> None:
    def at(*degrees: float) -> np.ndarray:
        return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)

    # Nearest others: 1, 0, 3, 2 and 3, 2, 1, 0.
    first, second = at(0, 1, 90, 91), at(0, 90, 91, 1)
    np.testing.assert_allclose(mutual_neighbours([first, second, 3 * first], k=1), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_allclose(mutual_neighbours([first, second], k=3), 1)


def test_neighbours_chance() -> None:
    shared = mutual_neighbours([RNG.normal(size=(400, 8)), RNG.normal(size=(400, 8))], k=10)[0, 1]
    assert shared == pytest.approx(10 / 399, abs=0.01)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="10 and 9 rows"):
        linear_cka(np.ones((10, 2)), np.ones((9, 2)))
    with pytest.raises(ValueError, match="at least 4 images"):
        linear_cka(np.ones((3, 2)), np.ones((3, 2)), unbiased=True)
    with pytest.raises(ValueError, match="`k` from 1 to 4"):
        mutual_neighbours([np.eye(5)], k=5)
