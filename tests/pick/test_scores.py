"""Scores of few images: the closed form equals leaving out by hand, folds test every image, labels that say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from bob.pick import scores
from bob.pick.scores import few_shot, probed


def data(n: int = 60, width: int = 20, classes: int = 3, signal: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    features = rng.normal(size=(n, width)) + signal * rng.normal(size=(classes, width))[labels]
    return features.astype(np.float32), labels


def test_leaving_out_in_closed_form_is_leaving_out(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(signal=0.5)
    monkeypatch.setattr(scores, "_RIDGE", (0.1,))
    z = StandardScaler().fit_transform(x.astype(np.float64))
    kept = ~np.eye(len(y), dtype=bool)
    by_hand = [
        RidgeClassifier(0.1 * len(y)).fit(z[k], y[k]).predict(z[i : i + 1])[0] == y[i] for i, k in enumerate(kept)
    ]
    assert few_shot(x, y, 3).right.tolist() == by_hand
    assert 0.4 < np.mean(by_hand) < 1


def test_two_classes_and_more_images_than_columns() -> None:
    x, y = data(80, 5, 2, signal=2.0)
    assert few_shot(x, y, 2).top1 > 0.9


def test_what_says_nothing_scores_chance() -> None:
    x, y = data(300, 20, 3, signal=0.0)
    assert few_shot(x, y, 3).top1 < 0.45
    assert probed(x, y, 3, 0, "cpu").top1 < 0.45


def test_folds_test_each_image_once() -> None:
    x, y = data(62, signal=1.5)
    score = probed(x, y, 3, 0, "cpu")
    assert len(score.right) == 62 and score.top1 > 0.9
    assert score.knn is not None and score.knn > 0.8
    assert score.method == "linear, 4 folds"


def test_folds_are_stratified() -> None:
    y = np.repeat([0, 1, 2], [40, 8, 12])
    folds = list(scores._folds(y, seed=1))
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(60))
    for train, test in folds:
        assert np.bincount(y[test]).tolist() == [10, 2, 3]
        assert not set(train) & set(test)


def test_of_many_images_one_fold_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_MANY", 50)
    x, y = data(60)
    score = probed(x, y, 3, 0, "cpu")
    assert len(score.right) == 15 and score.method == "linear, one fold"


def test_a_class_of_one_image_and_a_class_without() -> None:
    x, y = data(61, signal=2.0)
    y = np.where(np.arange(61) == 60, 3, y)
    assert not few_shot(x, y, 5).right[60]
    assert not probed(x, y, 5, 0, "cpu").right[60]


def test_features_that_are_all_the_same() -> None:
    _, y = data(60)
    score = few_shot(np.ones((60, 4), np.float32), y, 3)
    assert np.isnan(score.rank_me) and score.log_me == -np.inf
    assert score.top1 <= 0.4


def test_the_interval_holds_the_score() -> None:
    x, y = data(signal=0.6)
    score = few_shot(x, y, 3)
    low, high = score.interval()
    assert 0 < low < score.top1 < high < 1
