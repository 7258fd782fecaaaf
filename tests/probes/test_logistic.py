"""Logistic regression finds scikit-learn's minimum, on easy and on ill-conditioned data, and says whether it did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Sklearn
from sklearn.preprocessing import StandardScaler

from bob.probes import logistic_problem
from bob.probes.logistic import LogisticRegression
from bob.probes.logistic_problem import Problem

GRID = tuple(10.0 ** (exponent / 2) for exponent in range(4, -11, -1))


def _data(n: int, width: int, classes: int, seed: int = 0, test: int = 400) -> tuple[np.ndarray, ...]:
    """Correlated features (condition number about 1e6) far from zero, float32, with overlapping classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n + test)
    labels[:classes] = np.arange(classes)
    means = 3 * rng.normal(size=(classes, width)) / width**0.5
    mixing = rng.normal(size=(width, width)) * np.logspace(0, -2, width) @ rng.normal(size=(width, width))
    x = ((means[labels] + rng.normal(size=(n + test, width))) @ mixing / width + 5).astype("f4")
    return x[:n], labels[:n], x[n:], labels[n:]


def _objective(x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, l2: float) -> float:
    """Mean cross-entropy + l2 / 2 ||W||^2, in float64, written otherwise than in the code under test."""
    logits = x @ weight + bias
    logits -= logits.max(axis=1, keepdims=True)
    log_likelihood = logits[np.arange(len(y)), y] - np.log(np.exp(logits).sum(axis=1))
    return float(-log_likelihood.mean() + l2 / 2 * (weight**2).sum())


def _ours(probe: LogisticRegression, x: np.ndarray, y: np.ndarray) -> float:
    return _objective(x, y, probe.weight_.double().numpy(), probe.bias_.double().numpy(), probe.l2)


SHAPES = {"binary": (300, 20, 2), "many-classes": (600, 30, 40), "more-features-than-images": (80, 300, 5)}


@pytest.mark.parametrize("l2", [1e2, 1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_scikit_learn(shape: tuple[int, int, int], l2: float) -> None:
    n, _, classes = shape
    x, y, x_test, y_test = _data(*shape)
    scaler = StandardScaler().fit(x.astype("f8"))
    standard, standard_test = scaler.transform(x.astype("f8")), scaler.transform(x_test.astype("f8"))
    # newton-cholesky goes to the minimum, where their L-BFGS stops early on such data.
    theirs = Sklearn(C=1 / (l2 * n), tol=1e-10, max_iter=300, solver="newton-cholesky").fit(standard, y)
    ours = LogisticRegression(l2=l2).fit(x, y, classes)
    assert ours.converged_
    weight, bias = theirs.coef_.T, theirs.intercept_
    if classes == 2:
        # They fit one logit z with penalty ||w||^2; as two, +-z / 2, the same classifier has half the penalty.
        theirs = Sklearn(C=2 / (l2 * n), tol=1e-10, max_iter=300, solver="newton-cholesky").fit(standard, y)
        weight = np.concatenate([-theirs.coef_, theirs.coef_]).T / 2
        bias = np.concatenate([-theirs.intercept_, theirs.intercept_]) / 2
    found, best = _ours(ours, standard, y), _objective(standard, y, weight, bias, l2)
    assert abs(found / best - 1) < 1e-5
    assert abs(ours.loss_ / found - 1) < 1e-5
    accuracy = (ours.predict(x_test) == y_test).mean()
    assert abs(accuracy - (theirs.predict(standard_test) == y_test).mean()) <= 0.005


def _known(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (300, 12) and labels (300, 5) of 1, 0 and -1: two labels without and three with unknown ones."""
    x, _, *_ = _data(300, 12, 3, seed)
    rng = np.random.default_rng(seed)
    scores = StandardScaler().fit_transform(x) @ rng.normal(size=(12, 5)) + [0, 1, -4, 2, 0]
    y = (scores + 2 * rng.normal(size=scores.shape) > 0).astype(int)
    for label, share in ((2, 0.1), (3, 0.5), (4, 0.9)):
        y[rng.random(300) < share, label] = -1
    return x, y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_gradient_equals_autograd(loss: str, dtype: torch.dtype) -> None:
    x, y = _known()
    y = y if loss == "bce" else np.arange(300) % 5
    problem = Problem(x, y, 5, standardize=True, device="cpu")
    theta = torch.randn(13, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    logits, target = problem.x.double() @ theta[:-1] + theta[-1], torch.from_numpy(y)
    if loss == "bce":
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target.double(), reduction="none")
        expected = (each * (target >= 0)).sum() / 300
    else:
        expected = torch.nn.functional.cross_entropy(logits, target)
    expected = expected + 0.3 / 2 * theta[:-1].square().sum()
    expected.backward()
    point = problem.evaluate(theta.detach(), 0.3, dtype)
    assert theta.grad is not None
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert point.value == pytest.approx(float(expected.detach()), rel=tolerance)
    torch.testing.assert_close(point.gradient, theta.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_chunks_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _known()
    whole = LogisticRegression(l2=1e-2, loss="bce").fit(x, y, 5)
    monkeypatch.setattr(logistic_problem, "_CHUNK_ELEMENTS", 17 * rows)
    cut = LogisticRegression(l2=1e-2, loss="bce").fit(x, y, 5)
    np.testing.assert_allclose(cut.predict_proba(x), whole.predict_proba(x), rtol=0, atol=1e-5)


def test_gradient_vanishes_at_the_end() -> None:
    x, y, *_ = _data(300, 20, 3)
    fitted = LogisticRegression(l2=1e-3, tolerance=1e-12).fit(x, y, 3)
    theta = torch.cat([fitted.weight_, fitted.bias_[None]])
    point = Problem(x, y, 3, standardize=True, device="cpu").evaluate(theta, 1e-3, torch.float64)
    assert point.gradient.abs().max() < 1e-6


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_multi_label_equals_scikit_learn_label_by_label(l2: float) -> None:
    x, y = _known()
    standard = StandardScaler().fit_transform(x.astype("f8"))
    ours = LogisticRegression(l2=l2, loss="bce").fit(x, y, 5)
    table = ours.predict_proba(x)
    assert ours.converged_
    np.testing.assert_array_equal(ours.predict(x), (table > 0.5).astype(int))
    for label in range(5):
        known = y[:, label] >= 0
        theirs = Sklearn(C=1 / (l2 * 300), tol=1e-10, solver="newton-cholesky").fit(standard[known], y[known, label])
        np.testing.assert_allclose(table[:, label], theirs.predict_proba(standard)[:, 1], rtol=0, atol=5e-4)
        np.testing.assert_allclose(ours.weight_[:, label], theirs.coef_[0], rtol=0, atol=2e-3 * abs(theirs.coef_).max())


def test_multi_label_path_equals_separate_fits() -> None:
    x, y = _known()
    for point, table in LogisticRegression.path([{"l2": l2, "loss": "bce"} for l2 in GRID], x, y, 5, x):
        separate = LogisticRegression(**point).fit(x, y, 5).predict_proba(x)
        np.testing.assert_allclose(table, separate, rtol=0, atol=2e-3)


def test_a_label_of_one_outcome_has_its_rule_of_succession_and_disturbs_no_other() -> None:
    x, y = _known()
    plain = LogisticRegression(l2=1e-3, loss="bce").fit(x, y, 5)
    # All ones, all zeros, eight ones known, nothing known.
    more = np.stack([np.ones(300), np.zeros(300), np.where(np.arange(300) < 8, 1, -1), np.full(300, -1)], 1).astype(int)
    fitted = LogisticRegression(l2=1e-3, loss="bce").fit(x, np.concatenate([more, y], axis=1), 9)
    table = fitted.predict_proba(x)
    np.testing.assert_allclose(table[:, :4], np.tile([301 / 302, 1 / 302, 9 / 10, 1 / 2], (300, 1)), atol=1e-12)
    assert not fitted.weight_[:, :4].any()
    np.testing.assert_allclose(table[:, 4:], plain.predict_proba(x), rtol=0, atol=1e-5)


def test_multi_label_mistakes() -> None:
    x, y = _known()
    with pytest.raises(ValueError, match="one of softmax, bce"):
        LogisticRegression(loss="hinge").fit(x, y, 5)
    with pytest.raises(ValueError, match=r"shape \(300, 5\)"):
        LogisticRegression(loss="bce").fit(x, y[:, 0], 5)
    with pytest.raises(ValueError, match="differ in `l2` alone"):
        list(LogisticRegression.path([{"l2": 1.0}, {"l2": 1.0, "loss": "bce"}], x, y, 5, x))


@pytest.mark.parametrize("shape", [(300, 20, 3), (60, 200, 3)], ids=["tall", "wide"])
def test_warm_path_equals_cold_fits(shape: tuple[int, int, int]) -> None:
    x, y, x_test, _ = _data(*shape)
    grid = [{"l2": l2} for l2 in GRID]
    for point, table in LogisticRegression.path(grid[::-1], x, y, 3, x_test):
        cold = LogisticRegression(**point).fit(x, y, 3)
        np.testing.assert_allclose(table, cold.predict_proba(x_test), rtol=0, atol=2e-3)
        assert (table.argmax(axis=1) == cold.predict(x_test)).mean() > 0.997


def test_path_wants_one_free_hyperparameter() -> None:
    x, y, *_ = _data(60, 5, 3)
    with pytest.raises(ValueError, match="differ in `l2` alone"):
        list(LogisticRegression.path([{"l2": 1.0}, {"l2": 0.1, "standardize": False}], x, y, 3, x))


def test_rounding_in_the_features_decides_nothing() -> None:
    # Another batch size or device moves features in their last digits.
    x, y, x_test, _ = _data(200, 150, 4)
    moved = x * (1 + 1e-7 * np.random.default_rng(1).normal(size=x.shape)).astype("f4")
    grid = [{"l2": l2} for l2 in GRID]
    for (_, one), (_, other) in zip(
        LogisticRegression.path(grid, x, y, 4, x_test), LogisticRegression.path(grid, moved, y, 4, x_test), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-3)


def test_a_class_absent_in_training_gets_next_to_nothing() -> None:
    x, y, x_test, _ = _data(300, 10, 3)
    table = LogisticRegression(l2=1e-2).fit(x, np.where(y == 1, 3, y), 5).predict_proba(x_test)
    assert table.shape == (400, 5)
    assert table[:, [1, 4]].max() < 0.05
    assert set(table.argmax(axis=1)) <= {0, 2, 3}


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1e6, 1e-20])
def test_constant_features_among_others_change_nothing(value: float) -> None:
    x, y, x_test, _ = _data(300, 10, 3)
    plain = LogisticRegression(l2=1e-3).fit(x, y, 3).predict_proba(x_test)
    wider, wider_test = (np.insert(part, 4, np.float32(value), axis=1) for part in (x, x_test))
    fitted = LogisticRegression(l2=1e-3).fit(wider, y, 3)
    np.testing.assert_allclose(fitted.predict_proba(wider_test), plain, atol=1e-5)
    assert fitted.weight_[4].abs().max() < 1e-6


def test_constant_features_alone_give_the_shares_of_the_classes() -> None:
    y = np.repeat([0, 1, 2], [50, 30, 20])
    for x in (np.full((100, 1), 0.1, "f4"), np.full((100, 300), 0.1, "f4")):
        fitted = LogisticRegression().fit(x, y, 3)
        np.testing.assert_allclose(fitted.predict_proba(x[:2]), [[0.5, 0.3, 0.2]] * 2, atol=1e-3)
        assert fitted.converged_


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("l2", [1e-300, 1e-30, 1e-12, 1e5, 1e30, 1e100, 1e300])
@pytest.mark.parametrize("shape", [(60, 20, 3), (20, 60, 3)], ids=["tall", "wide"])
def test_extreme_penalties_give_numbers(shape: tuple[int, int, int], l2: float, dtype: str) -> None:
    x, y, x_test, _ = _data(*shape)
    fitted = LogisticRegression(l2=l2, max_iter=200).fit(x.astype(dtype), y, 3)
    table = fitted.predict_proba(x_test.astype(dtype))
    assert np.isfinite(table).all() and np.isfinite(fitted.loss_)
    assert torch.isfinite(fitted.weight_).all()
    if l2 > 1:  # nothing but the bias is left
        np.testing.assert_allclose(table, np.tile(np.bincount(y) / len(y), (len(table), 1)), atol=1e-4)


def test_a_path_may_span_the_extremes() -> None:
    x, y, x_test, _ = _data(60, 20, 3)
    for _, table in LogisticRegression.path([{"l2": l2} for l2 in (1e300, 1e100, 1.0, 1e-5)], x, y, 3, x_test):
        assert np.isfinite(table).all()


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3])
def test_float32_features_do_not_stall(offset: float) -> None:
    # Far from zero, float32 leaves few digits for what varies, and a line search in float32 would find no way down.
    x, y, *_ = _data(400, 60, 3)
    x = (x + np.float32(offset)).astype("f4")
    standard = StandardScaler().fit_transform(x.astype("f8"))
    for l2 in (10.0, 1e-3, 1e-5):
        fitted = LogisticRegression(l2=l2).fit(x, y, 3)
        best = LogisticRegression(l2=l2, tolerance=1e-14, max_iter=20_000).fit(x, y, 3)
        assert fitted.converged_
        assert _ours(fitted, standard, y) / _ours(best, standard, y) - 1 < 1e-6


def test_correlated_features_take_tens_of_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    # Neighbouring features as alike as pixels are, and more than enough of them to tell all images apart.
    rng = np.random.default_rng(0)
    y = rng.integers(5, size=200)
    x = (rng.normal(size=(200, 300)) + rng.normal(size=(5, 300))[y]).cumsum(axis=1).astype("f4")
    calls: list[float] = []
    evaluate = Problem.evaluate
    monkeypatch.setattr(Problem, "evaluate", lambda *a: (calls.append(a[2]), evaluate(*a))[1])
    assert len(list(LogisticRegression.path([{"l2": l2} for l2 in GRID], x, y, 5, x))) == len(GRID)
    assert max(calls.count(l2) for l2 in GRID) < 200
    for l2 in (1.0, 1e-5):
        calls.clear()
        assert LogisticRegression(l2=l2).fit(x, y, 5).converged_
        assert len(calls) < 250


def test_converged_is_honest() -> None:
    x, y, *_ = _data(400, 60, 3)
    full = LogisticRegression(l2=1e-4).fit(x, y, 3)
    assert full.converged_
    for max_iter in (1, 5):
        cut = LogisticRegression(l2=1e-4, max_iter=max_iter).fit(x, y, 3)
        assert not cut.converged_
        assert cut.loss_ > full.loss_ * (1 + 1e-4)


def test_standardisation_is_of_the_training_data_and_optional() -> None:
    x, y, x_test, _ = _data(300, 10, 3)
    scaler = StandardScaler().fit(x)
    inside = LogisticRegression(l2=1e-2).fit(x, y, 3).predict_proba(x_test)
    outside = LogisticRegression(l2=1e-2, standardize=False).fit(scaler.transform(x), y, 3)
    np.testing.assert_allclose(outside.predict_proba(scaler.transform(x_test)), inside, atol=1e-4)
    raw = LogisticRegression(l2=1e-2, standardize=False).fit(x, y, 3).predict_proba(x_test)
    assert np.abs(raw - inside).max() > 1e-3
