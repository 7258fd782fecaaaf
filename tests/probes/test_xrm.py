"""XRM finds the images that go against a shortcut, and the worst discovered group is about as bad as the true one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bob.probes.xrm import CrossRiskMinimization, discovered_groups
from bob.results.metrics import get_metric
from bob.results.predictions import Predictions


def _shortcut(count: int, seed: int, share: float = 0.9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features with the class in a faint direction and, in 9 of 10 images, in a strong one; which go against that."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=count)
    against = rng.random(count) > share
    faint, strong = 2 * labels - 1, 2 * np.where(against, 1 - labels, labels) - 1
    columns = [faint * 0.7 + rng.normal(size=count), strong * 3 + rng.normal(size=count), *rng.normal(size=(6, count))]
    return np.stack(columns, axis=1).astype(np.float32), labels, against


def test_it_finds_the_minority() -> None:
    features, labels, against = _shortcut(2000, seed=0)
    twins = CrossRiskMinimization().fit(features, labels, 2)
    assert (twins.mistaken(features, labels) == against).mean() > 0.98
    unseen, unseen_labels, unseen_against = _shortcut(1000, seed=1, share=0.5)
    assert (twins.mistaken(unseen, unseen_labels) == unseen_against).mean() > 0.95


def test_plain_training_finds_less() -> None:
    """A classifier that is trained on the labels as they are learns the faint direction too."""
    features, labels, against = _shortcut(2000, seed=0)
    mistaken = CrossRiskMinimization().fit(features, labels, 2).mistaken(features, labels)
    erm = LogisticRegression(max_iter=1000).fit(features, labels).predict(features) != labels
    assert mistaken[against].mean() > erm[against].mean()


def test_the_worst_discovered_group() -> None:
    features, labels, against = _shortcut(2000, seed=2)
    table = LogisticRegression().fit(features, labels).predict_proba(features)
    judged = Predictions.from_probabilities([""] * 2000, labels, table, ("a", "b"))
    mistaken = CrossRiskMinimization().fit(features, labels, 2).mistaken(features, labels)
    worst = []
    for wrong in (against, mistaken):
        groups, names = discovered_groups(labels, wrong, judged.classes)
        worst.append(get_metric("worst_group").compute(replace(judged, groups=groups, group_names=names)))
    assert names == ("a, with the shortcut", "a, against it", "b, with the shortcut", "b, against it")
    assert groups.tolist() == (2 * labels + mistaken).tolist()
    assert worst[1] == pytest.approx(worst[0], abs=0.05) and worst[0] < 0.6


def test_it_is_the_same_every_time() -> None:
    features, labels, _ = _shortcut(300, seed=3)
    first, again = (CrossRiskMinimization(steps=50, seed=1).fit(features, labels, 2) for _ in range(2))
    assert first.weight_.equal(again.weight_)
    assert not first.weight_.equal(CrossRiskMinimization(steps=50, seed=2).fit(features, labels, 2).weight_)


def test_one_step_by_hand() -> None:
    """From zero, the first step is the balanced gradient of each half: x (onehot - 1/2) / count, times the rate."""
    features, labels, _ = _shortcut(64, seed=4)
    twins = CrossRiskMinimization(steps=1, lr=0.5).fit(features, labels, 2)
    import torch

    mine = (torch.rand(64, generator=torch.Generator().manual_seed(0)) < 0.5).numpy()
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    pull = (np.eye(2)[labels] - 0.5) / np.bincount(labels)[labels][:, None]
    for twin in (0, 1):
        own = mine == twin
        assert twins.weight_[twin].numpy() == pytest.approx(0.5 * x[own].T @ pull[own], abs=1e-5)
        assert twins.bias_[twin].numpy() == pytest.approx(0.5 * pull[own].sum(axis=0), abs=1e-5)


def test_wrong_input() -> None:
    features, labels, _ = _shortcut(20, seed=5)
    with pytest.raises(ValueError, match="two classes"):
        CrossRiskMinimization().fit(features, np.zeros(20, dtype=int), 2)
    with pytest.raises(ValueError, match="`steps` and `lr`"):
        CrossRiskMinimization(steps=0).fit(features, labels, 2)
    twins = CrossRiskMinimization(steps=1).fit(features, labels, 2)
    with pytest.raises(ValueError, match="shape"):
        twins.mistaken(features[:, :3], labels)
    with pytest.raises(ValueError, match="labels of shape"):
        twins.mistaken(features, labels[:5])
