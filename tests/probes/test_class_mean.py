"""Nearest class mean decides as scikit-learn's and as a case worked by hand; its temperature leaves images out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.neighbors import NearestCentroid

from bob.probes import class_mean, minibatch
from bob.probes.class_mean import NearestClassMean


def _data(n: int, classes: int = 4, width: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    means = np.random.default_rng(99).normal(size=(classes, width))
    return (3 + means[labels] + rng.normal(size=(n, width))).astype("f4"), labels


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _left_out(x: np.ndarray, labels: np.ndarray, classes: int, euclidean: bool) -> np.ndarray:
    """Scores (n, classes) by class means taken without the image, one image after the other; NaN for no images."""
    table = np.full((len(x), classes), np.nan)
    for image, c in np.ndindex(*table.shape):
        members = (labels == c) & (np.arange(len(x)) != image)
        if members.any():
            mean = x[members].mean(axis=0)
            table[image, c] = -((x[image] - mean) ** 2).sum() if euclidean else x[image] @ _unit(mean[None])[0]
    return table


@pytest.mark.parametrize("classes", [2, 4])
def test_distance_decides_as_scikit_learn(classes: int) -> None:
    (x, y), (queries, _) = _data(80, classes), _data(200, classes, seed=1)
    ours = NearestClassMean(normalize="none").fit(x, y, classes)
    np.testing.assert_array_equal(ours.predict(queries), NearestCentroid().fit(x, y).predict(queries))


def test_by_hand() -> None:
    # The mean of all is (1, 1). From there the images lie at (2, 0), (0.6, 0.8), (-3, 0) and (0.4, -0.8).
    x = np.array([[3.0, 1], [1.6, 1.8], [-2, 1], [1.4, 0.2]])
    fitted = NearestClassMean().fit(x, np.array([0, 0, 1, 1]), 2)
    np.testing.assert_allclose(fitted.center_, [1, 1])
    # Of length one: (1, 0), (0.6, 0.8), (-1, 0) and this one.
    last = np.array([0.4, -0.8]) / math.sqrt(0.8)
    means = _unit(np.array([[1.6, 0.8], last - [1, 0]]))
    np.testing.assert_allclose(fitted.means_, means)
    query = np.array([[1.0, 4]])  # straight up from the mean
    odds = np.exp((means[0, 1] - means[1, 1]) / fitted.temperature_)
    np.testing.assert_allclose(fitted.predict_proba(query), [[odds / (1 + odds), 1 / (1 + odds)]])


def test_without_centring() -> None:
    x = np.array([[2.0, 0], [3, 0], [0, 1], [0, 5]])
    fitted = NearestClassMean(normalize="l2n").fit(x, np.array([0, 0, 1, 1]), 2)
    np.testing.assert_allclose(fitted.means_, np.eye(2))
    np.testing.assert_array_equal(fitted.predict(np.array([[9.0, 8], [0.1, 0.2]])), [0, 1])


@pytest.mark.parametrize("normalize", ["none", "l2n", "cl2n"])
def test_temperature_is_the_best_for_images_left_out(normalize: str) -> None:
    x, y = _data(60)
    x, y = np.concatenate([x, _data(5, seed=2)[0][4:]]), np.append(y, 4)  # one image is alone in its class
    fitted = NearestClassMean(normalize).fit(x, y, 5)
    z = x.astype("f8") - (x.astype("f8").mean(axis=0) if normalize == "cl2n" else 0)
    scores = _left_out(z if normalize == "none" else _unit(z), y, 5, normalize == "none")[:-1]

    def loss(log_temperature: float) -> float:
        table = log_softmax(scores / math.exp(log_temperature), axis=1)
        return -table[np.arange(len(scores)), y[:-1]].mean()

    best = math.exp(minimize_scalar(loss, bounds=(-8, 8), method="bounded").x)
    assert fitted.temperature_ == pytest.approx(best, rel=1e-2)


def test_many_images_are_sampled_for_the_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _data(2000)
    whole = NearestClassMean().fit(x, y, 4).temperature_
    monkeypatch.setattr(class_mean, "_ENOUGH", 500)
    assert NearestClassMean().fit(x, y, 4).temperature_ == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize("normalize", ["none", "l2n", "cl2n"])
def test_one_image_for_each_class(normalize: str) -> None:
    x, y = _data(4)
    fitted = NearestClassMean(normalize).fit(x, y, 4)
    np.testing.assert_array_equal(fitted.predict(x), y)
    z = x.astype("f8") - (x.astype("f8").mean(axis=0) if normalize == "cl2n" else 0)
    z = z if normalize == "none" else _unit(z)
    scores = -((z[:, None] - z[None]) ** 2).sum(axis=2) if normalize == "none" else z @ z.T
    assert fitted.temperature_ == pytest.approx(scores[~np.eye(4, dtype=bool)].std())
    table = fitted.predict_proba(_data(50, seed=1)[0])
    assert np.isfinite(table).all() and (table > 0).all()


def test_two_images_of_two_classes() -> None:
    # Centred they are opposite, so all scores for the other class are -1: there is no spread, and temperature 1 it is.
    fitted = NearestClassMean().fit(np.array([[1.0, 0], [3, 4]]), np.array([0, 1]), 2)
    assert fitted.temperature_ == 1
    np.testing.assert_allclose(
        fitted.predict_proba(np.array([[3.0, 4]])), [[1 / (1 + math.e**2), 1 / (1 + math.e**-2)]]
    )


def test_classes_that_are_never_confused_leave_some_doubt() -> None:
    x = np.array([[1.0, 0], [1, 1e-3], [0, 1], [1e-3, 1]])
    table = NearestClassMean(normalize="l2n").fit(x, np.array([0, 0, 1, 1]), 2).predict_proba(np.array([[1.0, 0]]))
    assert 0 < table[0, 1] < 1e-3


def test_a_class_without_images_has_no_probability() -> None:
    x, y = _data(40)
    table = NearestClassMean().fit(x, 2 * y, 8).predict_proba(x)
    np.testing.assert_array_equal(table[:, 1::2], 0)
    np.testing.assert_allclose(table[:, ::2], NearestClassMean().fit(x, y, 4).predict_proba(x))


def test_runs_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _data(100)
    whole = NearestClassMean().fit(x, y, 4).predict_proba(x)
    monkeypatch.setattr(minibatch, "_CHUNK_ELEMENTS", 70)
    np.testing.assert_allclose(NearestClassMean().fit(x, y, 4).predict_proba(x), whole, atol=1e-12)


def test_bad_hyperparameters() -> None:
    with pytest.raises(ValueError, match="`normalize` to be one of none, l2n, cl2n, but got L2N"):
        NearestClassMean("L2N").fit(*_data(20), 4)
