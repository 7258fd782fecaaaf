"""RankMe and the spectrum: against float64 SVDs of the whole, cases worked by hand, and the papers' properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bob.analysis.spectrum import alpha_req, rank_me, singular_values, spectrum

RNG = np.random.default_rng(0)


def by_svd(features: np.ndarray) -> float:
    """The paper's formula, from the whole matrix."""
    sigma = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    share = sigma / sigma.sum() + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


def decaying(n: int, width: int, least: float, mean: float = 0.0) -> np.ndarray:
    """Features whose singular values fall geometrically from 1 to `least`, and a mean."""
    left, _ = np.linalg.qr(RNG.normal(size=(n, width)))
    right, _ = np.linalg.qr(RNG.normal(size=(width, width)))
    return (left * np.geomspace(1, least, width)) @ right + mean


@pytest.mark.parametrize(
    "features",
    [
        RNG.normal(size=(500, 40)).astype(np.float32),
        RNG.normal(size=(20, 64)).astype(np.float32),
        RNG.normal(size=(300, 50)).astype(np.float32) + 100,
        (RNG.normal(size=(400, 5)) @ RNG.normal(size=(5, 60))).astype(np.float32),
        RNG.normal(size=(400, 5)) @ RNG.normal(size=(5, 60)),
        decaying(600, 80, 1e-4),
        decaying(600, 80, 1e-9),
        decaying(600, 80, 1e-14).astype(np.float32),
        decaying(600, 200, 1e-12, mean=3.0),
        1e-12 * RNG.normal(size=(300, 30)),
    ],
    ids=["tall", "wide", "offset", "rank 5 f32", "rank 5 f64", "1e-4", "1e-9", "1e-14", "1e-12 offset", "tiny"],
)
def test_rank_me_svd(features: np.ndarray) -> None:
    assert rank_me(features, rows=37) == pytest.approx(by_svd(features), rel=1e-6, abs=0)


def test_rank_me_by_hand() -> None:
    assert rank_me(np.eye(8)) == pytest.approx(8, rel=1e-5)
    assert rank_me(np.outer(np.arange(1, 9), np.ones(4))) == pytest.approx(1, rel=1e-4)
    # Shares 1/2, 1/4, 1/4: entropy 1.5 bits.
    assert rank_me(np.diag([2.0, 1.0, 1.0])) == pytest.approx(2**1.5, rel=1e-5)


def test_rank_me_invariances() -> None:
    features = RNG.normal(size=(200, 30)) * np.geomspace(1, 0.01, 30)
    turn, _ = np.linalg.qr(RNG.normal(size=(30, 30)))
    assert rank_me(7 * features @ turn) == pytest.approx(rank_me(features), rel=1e-9)
    assert rank_me(features[RNG.permutation(200)], rows=11) == pytest.approx(rank_me(features), rel=1e-9)


def test_mapped(tmp_path: Path) -> None:
    features = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(900, 32))
    features[:] = RNG.normal(size=(900, 32))
    assert rank_me(np.load(tmp_path / "x.npy", mmap_mode="r"), rows=100) == pytest.approx(by_svd(features), rel=1e-9)


def test_centred() -> None:
    features = RNG.normal(size=(300, 20)) + 50
    expected = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(singular_values(features, rows=41, center=True), expected, rtol=1e-10)


def test_spectrum_numpy() -> None:
    features = (RNG.normal(size=(500, 25)) * np.geomspace(1, 0.05, 25) + 2).astype(np.float32)
    found = spectrum(features, rows=64)
    values = np.linalg.eigvalsh(np.cov(features.astype(np.float64), rowvar=False, bias=True))[::-1]
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-9)
    assert found.participation == pytest.approx(values.sum() ** 2 / (values**2).sum())
    share = np.cumsum(values) / values.sum()
    assert share[found.directions_90 - 1] >= 0.9 > share[found.directions_90 - 2]
    assert share[found.directions_99 - 1] >= 0.99 > share[found.directions_99 - 2]
    assert found.collapsed == 0


def test_collapse() -> None:
    features = (RNG.normal(size=(400, 6)) @ RNG.normal(size=(6, 24))).astype(np.float64) + 5
    assert spectrum(features).collapsed == pytest.approx(18 / 24)
    same = spectrum(np.full((10, 4), 3.0))
    assert (same.collapsed, same.participation) == (1, 0) and np.isnan(same.alpha)


def test_alpha_power_law() -> None:
    values = 3.0 * np.arange(1, 301) ** -1.3
    assert alpha_req(values) == pytest.approx(1.3)
    values[:3], values[100:] = 1e3, 1e-3  # outside of the fit
    assert alpha_req(values) == pytest.approx(1.3)


def test_alpha_weighted_fit() -> None:
    values = np.sort(RNG.gamma(1.0, size=150))[::-1]
    place = np.arange(4, 101)
    slope = np.polyfit(np.log(place), np.log(values[3:100]), 1, w=1 / np.sqrt(place))[0]
    assert alpha_req(values) == pytest.approx(-slope)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((3, 0)), "n and D positive"),
        (np.zeros(3), "n and D positive"),
        (np.zeros((3, 2)), "not all zero"),
        (np.array([[1.0, 2.0], [np.nan, 0.0]]), "row 1 is not"),
    ],
)
def test_mistakes(features: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_me(features)


def test_other_mistakes() -> None:
    with pytest.raises(ValueError, match="two rows"):
        spectrum(np.ones((1, 3)))
    with pytest.raises(ValueError, match="`rows` to be a positive"):
        rank_me(np.eye(3)[:, :2], rows=0)
    with pytest.raises(ValueError, match="`first` < `last`"):
        alpha_req(np.ones(9), 5, 5)
