"""LogME, H-score and NLEEP: against scikit-learn, NumPy's covariances, and cases worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.linear_model import BayesianRidge
from sklearn.mixture import GaussianMixture

from bob.analysis.transfer import h_score, leep, log_me, nleep

RNG = np.random.default_rng(0)


def made(n: int = 300, width: int = 12, classes: int = 4, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features around a centre for each class, and labels."""
    labels = RNG.integers(classes, size=n)
    centres = RNG.normal(size=(classes, width)) * apart
    return (centres[labels] + RNG.normal(size=(n, width))).astype(np.float32), labels


def by_ridge(features: np.ndarray, labels: np.ndarray) -> float:
    """The same evidence, maximised by scikit-learn."""
    scores = []
    for c in np.unique(labels):
        model = BayesianRidge(
            alpha_1=0,
            alpha_2=0,
            lambda_1=0,
            lambda_2=0,
            fit_intercept=False,
            compute_score=True,
            tol=1e-10,
            max_iter=3000,
        )
        scores.append(model.fit(features.astype(np.float64), (labels == c).astype(float)).scores_[-1] / len(labels))
    return float(np.mean(scores))


@pytest.mark.parametrize(("n", "width"), [(300, 12), (60, 50), (40, 90)])
def test_log_me_scikit_learn(n: int, width: int) -> None:
    features, labels = made(n, width, 3)
    assert log_me(features, labels, 3) == pytest.approx(by_ridge(features, labels), rel=1e-4)


def test_log_me_exact_fit() -> None:
    """Features as many as images, all alike in size: noise-free, and still finite."""
    labels = np.arange(30) % 3
    found = log_me(np.eye(30), labels, 3)
    # y ~ N(0, v I), whose best v is 10 / 30.
    assert found == pytest.approx(-0.5 * (np.log(2 * np.pi / 3) + 1), rel=1e-6)
    assert np.isfinite(log_me(RNG.normal(size=(18, 400)) * np.geomspace(1, 1e-6, 400), labels[:18], 3))


def test_h_score_numpy() -> None:
    features, labels = made()
    own = features.astype(np.float64)
    means = np.stack([own[labels == c].mean(axis=0) for c in range(4)])[labels]
    expected = np.trace(np.linalg.pinv(np.cov(own, rowvar=False)) @ np.cov(means, rowvar=False))
    assert h_score(features, labels, 4) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "width"), [(300, 12), (50, 90)])
def test_regularised_scikit_learn(n: int, width: int) -> None:
    features, labels = made(n, width)
    own = features.astype(np.float64)
    fitted = LedoitWolf().fit(own)
    means = np.stack([own[labels == c].mean(axis=0) for c in range(4)])[labels]
    between = (1 - fitted.shrinkage_) * np.cov(means, rowvar=False, bias=True)
    expected = np.trace(np.linalg.solve(fitted.covariance_, between))
    assert h_score(features, labels, 4, regularised=True) == pytest.approx(expected, rel=1e-8)


def test_h_score_bounds() -> None:
    labels = np.arange(40) % 4
    onehot = np.eye(4)[labels]
    assert h_score(onehot, labels, 4) == pytest.approx(3)
    few = RNG.normal(size=(40, 60))
    assert h_score(few, labels, 4) == pytest.approx(3)  # as of any features no fewer than images
    assert h_score(few, labels, 4, regularised=True) < 3


def test_few_and_many() -> None:
    """Products of n x n and of D x D give the same."""
    features, labels = made(64, 64, 3)
    more = np.concatenate([features, features[:, :1] * 0], axis=1)  # one column more, which says nothing
    for score in (log_me, lambda *given: h_score(*given, regularised=False)):
        assert score(features[:, :63], labels, 3) == pytest.approx(
            score(more[:, [*range(63), 64]], labels, 3), rel=1e-5
        )


def test_leep_by_hand() -> None:
    # Two components; P(y|z): z0 -> (1.5, 0.5) / 2, z1 -> (0.5, 0.5) / 1.
    posterior, labels = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]), np.array([0, 0, 1])
    likely = [0.75, 0.5 * 0.75 + 0.5 * 0.5, 0.5 * 0.25 + 0.5 * 0.5]
    assert leep(posterior, labels) == pytest.approx(np.log(likely).mean())


@pytest.mark.parametrize(("n", "width"), [(300, 12), (60, 90)])
def test_nleep_scikit_learn(n: int, width: int) -> None:
    features, labels = made(n, width, 3)
    reduced = PCA(0.8, svd_solver="full").fit_transform(features.astype(np.float64))
    reduced /= reduced[:, 0].std()
    posterior = GaussianMixture(15, random_state=3).fit(reduced).predict_proba(reduced)
    joint = np.stack([posterior[labels == c].sum(axis=0) for c in range(3)]) / n
    likely = [posterior[i] @ (joint[c] / joint.sum(axis=0)) for i, c in enumerate(labels)]
    assert nleep(features, labels, 3, seed=3) == pytest.approx(np.log(likely).mean(), rel=1e-6)


def test_nleep_apart() -> None:
    features, labels = made(200, 6, 4, apart=50)
    assert nleep(features, labels, 4) == pytest.approx(0, abs=1e-6)
    assert nleep(features, labels, 4, seed=1) == pytest.approx(nleep(1e-4 * features, labels, 4, seed=1), abs=1e-6)


@pytest.mark.parametrize("score", [log_me, h_score, nleep, lambda *given: h_score(*given, regularised=True)])
def test_better_features(score: Callable[..., float]) -> None:
    labels = RNG.integers(4, size=400)
    noise, centres = RNG.normal(size=(400, 10)), RNG.normal(size=(4, 10))
    found = [score(noise + apart * centres[labels], labels, 4) for apart in (0.0, 0.5, 1.0, 3.0)]
    assert found == sorted(found)


@pytest.mark.parametrize("score", [log_me, h_score])
def test_class_absent(score: Callable[..., float]) -> None:
    features, labels = made(classes=3)
    assert score(features, labels, 3) == score(features, labels, 7)
    assert score(features, np.where(labels == 2, 6, labels), 7) == pytest.approx(score(features, labels, 3))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((4, 2)), np.array([0, 1, 0, 1]), "not all the same"),
        (np.eye(4), np.array([0, 1, 0]), "shape"),
        (np.eye(4), np.array([0, 1, 2, 5]), r"\[0, 3\)"),
        (np.eye(4), np.zeros(4, dtype=int), "two classes"),
        (np.full((4, 2), np.inf), np.array([0, 1, 0, 1]), "finite"),
    ],
)
@pytest.mark.parametrize("score", [h_score, nleep])
def test_mistakes(score: Callable[..., float], features: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(features, labels, 3)
