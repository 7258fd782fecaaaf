"""Uniformity, alignment and LiDAR: against all pairs, cases worked by hand, and the papers' properties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg
from scipy.spatial.distance import pdist

from bob.analysis.geometry import alignment, class_alignment, uniformity
from bob.analysis.lidar import lidar

RNG = np.random.default_rng(0)


def units(*shape: int) -> np.ndarray:
    made = RNG.normal(size=shape)
    return made / np.linalg.norm(made, axis=-1, keepdims=True)


def test_uniformity_pairs() -> None:
    features = units(1500, 6)
    assert uniformity(5 * features) == pytest.approx(np.log(np.exp(-2 * pdist(features) ** 2).mean()))


def test_uniformity_by_hand() -> None:
    assert uniformity(np.ones((5, 3))) == pytest.approx(0)
    assert uniformity(np.array([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-8)
    assert uniformity(np.eye(4)) == pytest.approx(-4)


def test_alignment_pairs() -> None:
    views = units(20, 3, 5)
    expected = np.mean([pdist(own) ** 2 for own in views])
    assert alignment(7 * views) == pytest.approx(expected)


def test_class_alignment() -> None:
    features, labels = units(60, 4), RNG.integers(3, size=60)
    pairs = np.concatenate([pdist(features[labels == c]) ** 2 for c in range(3)])
    assert class_alignment(features, labels) == pytest.approx(pairs.mean())
    assert class_alignment(np.eye(3), np.array([0, 1, 1])) == pytest.approx(2)
    assert np.isnan(class_alignment(np.eye(3), np.arange(3)))


def test_lidar_definition() -> None:
    views = RNG.normal(size=(50, 4, 6)) + 2 * RNG.normal(size=(50, 1, 6)) * np.geomspace(1, 0.1, 6)
    means = views.mean(axis=1)
    within = np.mean([np.cov(own.T, bias=True) for own in views], axis=0)
    within += 1e-4 * np.trace(within) / 6 * np.eye(6)
    root = linalg.inv(linalg.sqrtm(within))
    values = np.linalg.eigvalsh(root @ np.cov(means.T, bias=True) @ root)
    share = values / values.sum()
    assert lidar(views) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)


def test_lidar_ignores_what_views_change() -> None:
    """Eight directions tell images apart; eight more, as strong, differ between views as much as between images."""
    images = np.repeat(RNG.normal(size=(1000, 1, 8)), 10, axis=1)
    quiet = images + 0.01 * RNG.normal(size=(1000, 10, 8))
    noise = RNG.normal(size=(1000, 10, 8))
    assert lidar(np.concatenate([quiet, noise], axis=2)) == pytest.approx(8, abs=0.1)
    assert lidar(1000 * quiet) == pytest.approx(lidar(quiet), rel=1e-6)


def test_lidar_same_views() -> None:
    images = np.repeat(RNG.normal(size=(300, 1, 5)), 2, axis=1)
    assert lidar(images) == pytest.approx(5, abs=0.2)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="two rows"):
        uniformity(np.ones((1, 3)))
    with pytest.raises(ValueError, match="q > 1"):
        alignment(np.ones((3, 1, 2)))
    with pytest.raises(ValueError, match="some images differ"):
        lidar(np.ones((3, 2, 4)))
    with pytest.raises(ValueError, match="`delta` to be positive"):
        lidar(units(3, 2, 4), delta=0)
