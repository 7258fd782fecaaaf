"""Every probe keeps one contract, whatever it computes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from bob.probes.attentive import AttentiveProbe
from bob.probes.base import Probe
from bob.probes.class_mean import NearestClassMean
from bob.probes.knn import KNeighbors
from bob.probes.logistic import LogisticRegression
from bob.probes.ridge import RidgeClassifier
from bob.probes.sgd import LinearSGD

ATTENTIVE = {"tokens": 3, "heads": 2, "epochs": 100}
SGD = {"epochs": 40}
CLASSES = 4
GRIDS: dict[type[Probe], list[dict[str, Any]]] = {
    KNeighbors: [{"k": 1}, {"k": 20}, {"k": 7}, {"k": 7, "temperature": None}],
    LogisticRegression: [{"l2": 1e-3}, {"l2": 10.0}, {"l2": 1e-1}],
    RidgeClassifier: [{"l2": 1e-4}, {"l2": 10.0}, {"l2": 1e-1}],
    NearestClassMean: [{"normalize": "none"}, {"normalize": "l2n"}, {"normalize": "cl2n"}],
    # A batch holds all images here: smaller ones are told apart by the order of the rows.
    LinearSGD: [
        {"lr": 0.05, **SGD},
        {"lr": 0.5, "weight_decay": 1e-2, **SGD},
        {"lr": 0.1, "columns": ((0, 4), (2, 5)), **SGD},
    ],
    AttentiveProbe: [{"lr": 1e-2, **ATTENTIVE}, {"lr": 3e-2, "weight_decay": 0.1, **ATTENTIVE}],
}
PROBES = [pytest.param(probe, point, id=f"{probe.__name__}-{point}") for probe in GRIDS for point in GRIDS[probe]]


def _blobs(size: int = 120, width: int = 12, seed: int = 0, dtype: str = "f4") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % CLASSES
    means = np.random.default_rng(99).normal(size=(CLASSES, width))
    return (means[labels] + rng.normal(size=(size, width))).astype(dtype), labels


@pytest.mark.parametrize(("kind", "point"), PROBES)
class TestContract:
    def test_init_only_stores(self, kind: type[Probe], point: dict[str, Any]) -> None:
        made = kind(**point)
        parameters = inspect.signature(kind).parameters
        assert vars(made) == {name: point.get(name, parameter.default) for name, parameter in parameters.items()}
        strange = object()
        assert all(value is strange for value in vars(kind(**dict.fromkeys(parameters, strange))).values())

    def test_fit_returns_self_and_leaves_its_input_and_hyperparameters_alone(
        self, kind: type[Probe], point: dict[str, Any]
    ) -> None:
        (x, y), made = _blobs(), kind(**point)
        before, x_before, y_before = dict(vars(made)), x.copy(), y.copy()
        assert made.fit(x, y, CLASSES) is made
        made.predict(x)
        assert {name: vars(made)[name] for name in before} == before
        assert all(name.endswith("_") for name in vars(made) if name not in before)
        np.testing.assert_array_equal(x, x_before)
        np.testing.assert_array_equal(y, y_before)

    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8"])
    def test_probabilities(self, kind: type[Probe], point: dict[str, Any], dtype: str) -> None:
        x, y = _blobs(dtype="f8")
        x = (8 * x).astype(dtype)
        fitted = kind(**point).fit(x, y.astype("i4"), CLASSES + 1)
        table = fitted.predict_proba(x[:50])
        assert table.shape == (50, CLASSES + 1) and table.dtype == np.float64
        assert table.min() >= 0
        np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-12)
        predicted = fitted.predict(x[:50])
        assert predicted.dtype == np.int64
        np.testing.assert_array_equal(predicted, table.argmax(axis=1))
        assert (predicted == y[:50]).mean() > 0.6 and CLASSES not in predicted

    def test_same_again(self, kind: type[Probe], point: dict[str, Any]) -> None:
        (x, y), (queries, _) = _blobs(), _blobs(seed=1)
        tables = [kind(**point).fit(x, y, CLASSES).predict_proba(queries) for _ in range(2)]
        np.testing.assert_array_equal(*tables)

    def test_order_and_company_of_queries_do_not_matter(self, kind: type[Probe], point: dict[str, Any]) -> None:
        (x, y), (queries, _) = _blobs(), _blobs(seed=1, size=101)
        fitted = kind(**point).fit(x, y, CLASSES)
        whole = fitted.predict_proba(queries)
        order = np.random.default_rng(2).permutation(len(queries))
        np.testing.assert_allclose(fitted.predict_proba(queries[order]), whole[order], rtol=0, atol=1e-12)
        alone = np.concatenate([fitted.predict_proba(row[None]) for row in queries])
        np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-12)

    def test_refit_forgets(self, kind: type[Probe], point: dict[str, Any]) -> None:
        (x, y), (other, _) = _blobs(), _blobs(size=80, width=6, seed=3)
        fresh = kind(**point).fit(x, y, CLASSES).predict_proba(x)
        used = kind(**point).fit(other, np.arange(80) % 2, 2).fit(x, y, CLASSES).predict_proba(x)
        np.testing.assert_array_equal(used, fresh)

    def test_order_of_training_rows_does_not_matter(self, kind: type[Probe], point: dict[str, Any]) -> None:
        (x, y), (queries, _) = _blobs(), _blobs(seed=1)
        order = np.random.default_rng(4).permutation(len(x))
        straight = kind(**point).fit(x, y, CLASSES).predict_proba(queries)
        shuffled = kind(**point).fit(x[order], y[order], CLASSES).predict_proba(queries)
        np.testing.assert_allclose(shuffled, straight, rtol=0, atol=1e-4)

    def test_constant_features_give_every_query_one_answer(self, kind: type[Probe], point: dict[str, Any]) -> None:
        # A collapsed backbone. 258 numbers, whose products a matrix product adds up in an order that depends on shapes.
        row = np.random.default_rng(5).normal(size=258).astype("f4")
        x, y = np.tile(row, (103, 1)), np.arange(103) % CLASSES
        fitted = kind(**point).fit(x, y, CLASSES)
        table = fitted.predict_proba(np.tile(row, (50, 1)))
        np.testing.assert_allclose(table, np.tile(table[:1], (50, 1)), rtol=0, atol=1e-12)
        np.testing.assert_allclose(fitted.predict_proba(row[None]), table[:1], rtol=0, atol=1e-12)

    @pytest.mark.parametrize(
        ("features", "labels", "complaint"),
        [
            (np.ones(6), np.arange(6) % 2, r"shape \(n, D\)"),
            (np.ones((0, 3)), np.arange(0), r"shape \(n, D\)"),
            (np.ones((6, 0)), np.arange(6) % 2, r"shape \(n, D\)"),
            (np.ones((2, 3, 4)), np.arange(2), r"shape \(n, D\)"),
            (np.ones((6, 3)), np.arange(5) % 2, r"shape \(6,\), but got \(5,\)"),
            (np.ones((6, 3)), np.arange(6)[:, None] % 2, r"but got \(6, 1\)"),
            (np.ones((6, 3)), np.arange(6) % 2 + 3, r"in \[0, 4\), but got 3 to 4"),
            (np.ones((6, 3)), np.arange(6) % 2 - 1, r"in \[0, 4\), but got -1 to 0"),
            (np.ones((6, 3)), (np.arange(6) % 2).astype(float), "integer labels"),
            (np.ones((6, 3)), np.full(6, 2), "at least two classes, but all labels are 2"),
            (np.where(np.arange(18).reshape(6, 3) == 13, np.nan, 1), np.arange(6) % 2, r"row 4 is not \(1 rows"),
            (np.where(np.arange(18).reshape(6, 3) > 13, np.inf, 1), np.arange(6) % 2, r"row 4 is not \(2 rows"),
        ],
        ids=["1d", "empty", "no-width", "3d", "few", "column", "high", "negative", "float", "one-class", "nan", "inf"],
    )
    def test_bad_training_data(
        self, kind: type[Probe], point: dict[str, Any], features: np.ndarray, labels: np.ndarray, complaint: str
    ) -> None:
        with pytest.raises(ValueError, match=complaint):
            kind(**point).fit(features, labels, CLASSES)

    @pytest.mark.parametrize(
        ("queries", "complaint"),
        [
            (np.ones(12), r"shape \(n, 12\) with n > 0, but got \(12,\)"),
            (np.ones((3, 11)), r"shape \(n, 12\) with n > 0, but got \(3, 11\)"),
            (np.where(np.arange(36).reshape(3, 12) == 13, np.nan, 1), "row 1 is not"),
        ],
        ids=["1d", "width", "nan"],
    )
    def test_bad_queries(self, kind: type[Probe], point: dict[str, Any], queries: np.ndarray, complaint: str) -> None:
        fitted = kind(**point).fit(*_blobs(), CLASSES)
        with pytest.raises(ValueError, match=complaint):
            fitted.predict_proba(queries)


@pytest.mark.parametrize("kind", list(GRIDS), ids=lambda kind: kind.__name__)
def test_path_equals_separate_fits(kind: type[Probe]) -> None:
    (x, y), (queries, _) = _blobs(), _blobs(seed=1)
    found = [(point, table) for point, table in kind.path(GRIDS[kind], x, y, CLASSES, queries)]
    assert sorted(map(str, (point for point, _ in found))) == sorted(map(str, GRIDS[kind]))
    for point, table in found:
        separate = kind(**point).fit(x, y, CLASSES).predict_proba(queries)
        np.testing.assert_allclose(table, separate, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(table.argmax(axis=1), separate.argmax(axis=1))


@pytest.mark.parametrize(
    ("kind", "bad"),
    [(KNeighbors, {"k": 0}), (KNeighbors, {"k": 121}), (KNeighbors, {"k": 3, "temperature": 0.0})]
    + [
        (kind, {"l2": l2})
        for kind in (LogisticRegression, RidgeClassifier)
        for l2 in (0.0, -1.0, float("nan"), float("inf"))
    ]
    + [(NearestClassMean, {"normalize": "l1"}), (LinearSGD, {**SGD, "lr": 0.0}), (LinearSGD, {**SGD, "columns": ()})]
    + [(AttentiveProbe, {**ATTENTIVE, "lr": float("nan")}), (AttentiveProbe, {**ATTENTIVE, "weight_decay": -1.0})],
)
def test_bad_hyperparameters_fail_in_fit_and_in_path(kind: type[Probe], bad: dict[str, Any]) -> None:
    x, y = _blobs()
    made = kind(**bad)
    with pytest.raises(ValueError, match="Expected"):
        made.fit(x, y, CLASSES)
    with pytest.raises(ValueError, match="Expected"):
        list(kind.path([GRIDS[kind][0], bad], x, y, CLASSES, x))
