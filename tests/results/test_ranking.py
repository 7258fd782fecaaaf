"""Areas equal scikit-learn's for every weighting, whatever ties, unknown labels and missing outcomes there are."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from bob.results.ranking import Ranking, average_precision, roc_auc


def _case(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=300)
    scores = rng.random(300) + 0.4 * labels
    if name == "ties":
        scores = np.round(scores * 4) / 4
    if name == "rare":
        labels = (np.arange(300) % 60 == 0).astype(int)
    if name == "common":
        labels = (np.arange(300) % 60 != 0).astype(int)
    if name == "constant":
        scores = np.full(300, 0.5)
    if name == "perfect":
        scores = labels.astype(float)
    if name == "reversed":
        scores = 1.0 - labels
    if name == "float32":
        scores = scores.astype(np.float32)
    return labels, scores


CASES = ("random", "ties", "rare", "common", "constant", "perfect", "reversed", "float32")


def _counts(size: int = 300, resamples: int = 20) -> np.ndarray:
    return np.random.default_rng(1).multinomial(size, np.full(size, 1 / size), size=resamples).T.astype(float)


@pytest.mark.parametrize("case", CASES)
def test_equals_scikit_learn_on_every_resample(case: str) -> None:
    labels, scores = _case(case)
    weights = np.concatenate([np.ones((300, 1)), _counts(), np.random.default_rng(2).random((300, 3))], axis=1)
    ranking = Ranking.of(labels, scores)
    for ours, theirs in ((roc_auc, roc_auc_score), (average_precision, average_precision_score)):
        expected = [theirs(labels, scores, sample_weight=column) for column in weights.T]
        np.testing.assert_allclose(ours(ranking, weights), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_unknown_labels_do_not_count(case: str) -> None:
    labels, scores = _case(case)
    unknown = np.random.default_rng(3).random(300) < 0.3
    masked = Ranking.of(np.where(unknown, -1, labels), scores)
    weights = _counts()
    for area in (roc_auc, average_precision):
        found = area(masked, weights)
        np.testing.assert_allclose(found, area(Ranking.of(labels[~unknown], scores[~unknown]), weights[~unknown]))


def test_four_samples_by_hand() -> None:
    ranking = Ranking.of(np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.7]))
    weights = np.array([[1.0, 1, 1, 1], [0, 1, 2, 1]]).T
    # pairs (positive above negative; a tie counts half): 0.9 beats both, 0.7 beats half of one
    np.testing.assert_allclose(roc_auc(ranking, weights), [2.5 / 4, 1 / 4])
    # precision at 0.9 is 1, at 0.7 it is 2 of 4; in the other weighting 2 of 4, for both positives
    np.testing.assert_allclose(average_precision(ranking, weights), [(1 + 2 / 4) / 2, 2 / 4])


def test_what_is_not_defined_is_nan() -> None:
    ranking = Ranking.of(np.array([1, 0, -1]), np.array([0.9, 0.8, 0.7]))
    weights = np.array([[1.0, 1, 0], [2, 0, 1], [0, 3, 0], [0, 0, 3]]).T
    np.testing.assert_array_equal(roc_auc(ranking, weights), [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(average_precision(ranking, weights), [1, 1, np.nan, np.nan])


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], [-1, -1]])
def test_one_outcome_or_none(labels: list[int]) -> None:
    ranking = Ranking.of(np.array(labels), np.array([0.1, 0.2]))
    assert np.isnan(roc_auc(ranking, np.ones((2, 1))))
    assert average_precision(ranking, np.ones((2, 1)))[0] == pytest.approx(
        1.0 if labels[0] == 1 else np.nan, nan_ok=True
    )


def test_rare_labels_have_few_runs() -> None:
    labels, scores = _case("rare")
    assert Ranking.of(labels, scores).positives.shape[0] <= 2 * labels.sum() + 1


def test_columns_do_not_depend_on_their_neighbours() -> None:
    ranking, weights = Ranking.of(*_case("ties")), _counts()
    for area in (roc_auc, average_precision):
        alone = [area(ranking, np.ascontiguousarray(column[:, None]))[0] for column in weights.T]
        np.testing.assert_array_equal(area(ranking, weights), alone)
