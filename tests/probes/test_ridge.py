"""Ridge classification decides as scikit-learn's, and its temperature is what leaving images out says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier as Sklearn
from sklearn.preprocessing import StandardScaler

from bob.probes import ridge
from bob.probes.ridge import RidgeClassifier

SHAPES = {"binary": (300, 20, 2), "many-classes": (600, 30, 40), "more-features-than-images": (80, 300, 5)}


def _data(n: int, width: int, classes: int, seed: int = 0, test: int = 200) -> tuple[np.ndarray, ...]:
    """Correlated features far from zero, float32, with overlapping classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n + test)
    labels[:classes] = np.arange(classes)
    means = 3 * rng.normal(size=(classes, width)) / width**0.5
    mixing = rng.normal(size=(width, width)) * np.logspace(0, -2, width)
    x = ((means[labels] + rng.normal(size=(n + test, width))) @ mixing / width + 5).astype("f4")
    return x[:n], labels[:n], x[n:], labels[n:]


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("l2", [10.0, 1e-1, 1e-4])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_scikit_learn(shape: tuple[int, int, int], l2: float, standardize: bool) -> None:
    n, _, classes = shape
    x, y, x_test, _ = _data(*shape)
    ours = RidgeClassifier(l2=l2, standardize=standardize).fit(x, y, classes)
    x, x_test_64 = x.astype("f8"), x_test.astype("f8")
    if standardize:
        scaler = StandardScaler().fit(x)
        x, x_test_64 = scaler.transform(x), scaler.transform(x_test_64)
    theirs = Sklearn(alpha=l2 * n, solver="svd").fit(x, y)
    scores = theirs.decision_function(x_test_64)
    if classes == 2:
        scores = np.stack([-scores, scores], axis=1)  # they fit the one column that the other mirrors
    np.testing.assert_allclose(ours.decision_function(x_test), scores, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ours.predict(x_test), theirs.predict(x_test_64))


@pytest.mark.parametrize("l2", [1.0, 1e-3])
@pytest.mark.parametrize("shape", [(40, 6, 3), (30, 50, 3)])
def test_leaving_one_out_equals_fitting_without_it(shape: tuple[int, int, int], l2: float) -> None:
    x, y, _, _ = _data(*shape)
    n, _, classes = shape
    found = ridge._Problem(x, y, classes, standardize=False, device="cpu").leave_one_out(l2).numpy()
    for index in range(n):
        rest = np.arange(n) != index
        # The penalty of the whole: alpha = l2 * n, although n - 1 images are left.
        one = RidgeClassifier(l2=l2 * n / (n - 1), standardize=False).fit(x[rest], y[rest], classes)
        np.testing.assert_allclose(one.decision_function(x[[index]])[0], found[index], rtol=0, atol=1e-6)


def test_probabilities_are_those_of_the_best_temperature() -> None:
    x, y, x_test, y_test = _data(400, 20, 5)
    fitted = RidgeClassifier(l2=1e-2).fit(x, y, 5)
    problem = ridge._Problem(x, y, 5, standardize=True, device="cpu")
    scores, labels = problem.leave_one_out(1e-2), torch.as_tensor(y)

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(scores / temperature, labels))

    assert loss(fitted.temperature_) <= min(loss(fitted.temperature_ * factor) for factor in (0.5, 0.9, 1.1, 2.0))
    table = fitted.predict_proba(x_test)
    plain = torch.softmax(torch.from_numpy(fitted.decision_function(x_test)), dim=1).numpy()
    nll, plain_nll = (-np.log(p[np.arange(len(y_test)), y_test]).mean() for p in (table, plain))
    assert nll < plain_nll


def test_the_features_are_decomposed_once_for_the_whole_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, x_test, _ = _data(100, 10, 3)
    count = []
    original = ridge.PrincipalFeatures.of
    monkeypatch.setattr(ridge.PrincipalFeatures, "of", lambda *a, **k: count.append(1) or original(*a, **k))
    grid = [{"l2": 10.0**-exponent} for exponent in range(8)]
    assert len(list(RidgeClassifier.path(grid, x, y, 3, x_test))) == 8
    assert len(count) == 1
    with pytest.raises(ValueError, match="differ in `l2` alone"):
        list(RidgeClassifier.path([{"l2": 1.0}, {"l2": 1.0, "standardize": False}], x, y, 3, x_test))
