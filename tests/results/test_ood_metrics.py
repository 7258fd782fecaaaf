"""Metrics on shifted sets against hand-worked cases, scikit-learn, torchmetrics and loops over resamples."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error

from bob.errors import UserError
from bob.results.judged_sets import JudgedSet
from bob.results.metric import Metric
from bob.results.ood import OODPredictions
from bob.results.ood_metrics import ALEXNET_ERROR, OOD_METRICS
from bob.results.statistics import bootstrap

METRICS: dict[str, Metric] = {metric.name: metric for metric in OOD_METRICS}
CLEAN, OTHER, CLASSES = 60, 25, 5
SUBSET = ((0,), (2,), (3,))


def _made(sets: list[tuple[JudgedSet, int]], classes: int = CLASSES, seed: int = 0) -> tuple:
    """Labels, a table in which the right class is likelier, and predictions; a set tells how many images it has."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum([0, *(count for _, count in sets)])
    labels = np.concatenate(
        [rng.choice([m[0] for m in each.members] or classes, count) for each, count in sets]
    ).astype(np.int64)
    for number, (each, count) in enumerate(sets):
        if each.corruption:
            labels[ends[number] : ends[number] + count] = labels[:count]
    table = rng.dirichlet(np.ones(classes), ends[-1])
    table[np.arange(ends[-1]), labels] += rng.exponential(0.3, ends[-1])
    table /= table.sum(axis=1, keepdims=True)
    rows = [slice(int(a), int(b)) for a, b in pairwise(ends)]
    pairs = [(each, where) for (each, _), where in zip(sets, rows, strict=True)]
    names = [str(i) for i in range(ends[-1])]
    judged = OODPredictions.from_probabilities(names, labels, table, [str(i) for i in range(classes)], pairs)
    return labels, table, judged, rows


@pytest.fixture
def made() -> tuple:
    noise = [(JudgedSet(f"c/noise/{s}", "c", "noise", s), CLEAN) for s in (1, 3)]
    blur = [(JudgedSet(f"c/blur/{s}", "c", "blur", s), CLEAN) for s in (1, 3)]
    others = [(JudgedSet("whole", "whole"), OTHER), (JudgedSet("few", "few", members=SUBSET), OTHER)]
    return _made([(JudgedSet("clean"), CLEAN), *noise, *blur, *others])


def _among(labels: np.ndarray, table: np.ndarray) -> float:
    """Accuracy of images of three classes, judged among these, by scikit-learn."""
    kept = np.isin(labels, [0, 2, 3])
    return accuracy_score(labels[kept], np.array([0, 2, 3])[table[kept][:, [0, 2, 3]].argmax(axis=1)])


def test_accuracies_equal_scikit_learn(made) -> None:
    labels, table, judged, rows = made
    top1 = [accuracy_score(labels[own], table[own].argmax(axis=1)) for own in rows[:6]]
    few, clean_few = (_among(labels[own], table[own]) for own in (rows[6], rows[0]))
    shifted = np.mean([np.mean(top1[1:5]), top1[5], few])
    clean = np.mean([top1[0], top1[0], clean_few])
    assert METRICS["shifted_top1"].compute(judged) == pytest.approx(shifted, abs=1e-12)
    assert METRICS["clean_top1"].compute(judged) == pytest.approx(clean, abs=1e-12)
    assert METRICS["drop"].compute(judged) == pytest.approx(clean - shifted, abs=1e-12)
    assert METRICS["worst_set"].compute(judged) == pytest.approx(min(*top1[1:], few), abs=1e-12)
    assert METRICS["mean_corruption_error"].compute(judged) == pytest.approx(1 - np.mean(top1[1:5]), abs=1e-12)


def test_calibration_equals_torchmetrics(made) -> None:
    labels, table, judged, rows = made

    def ece(own: slice, columns: list[int]) -> float:
        narrow = table[own][:, columns] / table[own][:, columns].sum(axis=1, keepdims=True)
        truth = np.searchsorted(columns, labels[own])
        return float(
            multiclass_calibration_error(torch.tensor(narrow), torch.tensor(truth), len(columns), n_bins=15, norm="l1")
        )

    every = list(range(CLASSES))
    expected = np.mean([np.mean([ece(own, every) for own in rows[1:5]]), ece(rows[5], every), ece(rows[6], [0, 2, 3])])
    assert METRICS["shifted_ece"].compute(judged) == pytest.approx(expected, abs=1e-6)


def test_resamples_are_of_photographs(made) -> None:
    """Weights equal a loop that repeats each row as often as its photograph was drawn."""
    _, _, judged, _ = made
    rng = np.random.default_rng(1)
    weights = np.stack([rng.multinomial(len(judged), np.full(len(judged), 1 / len(judged))) for _ in range(4)], axis=1)
    names = ("shifted_top1", "clean_top1", "drop", "worst_set", "shifted_ece", "mean_corruption_error")
    for column in range(4):
        rows = np.repeat(np.arange(len(judged.unit)), weights[judged.unit, column])
        # Every copy of a photograph is one of its own.
        copies = {name: getattr(judged, name)[rows] for name in ("part", "labels", "predicted", "confidence")}
        unit = np.arange(len(rows))
        drawn = replace(
            judged, unit=unit, names=["x"] * len(rows), label_probability=judged.label_probability[rows], **copies
        )
        by_set = [drawn.right[drawn.part == each].mean() for each in drawn.shifted]
        values = {name: METRICS[name].weighted(judged)(weights.astype(float))[column] for name in names}
        assert values["worst_set"] == pytest.approx(min(by_set))
        assert values["shifted_top1"] == pytest.approx(np.mean([np.mean(by_set[:4]), by_set[4], by_set[5]]))
        assert values["drop"] == pytest.approx(values["clean_top1"] - values["shifted_top1"])
        assert values["mean_corruption_error"] == pytest.approx(1 - np.mean(by_set[:4]))


def test_a_drop_is_paired() -> None:
    """Where a corruption changes nothing, the drop is 0 in every resample, however uncertain either score is."""
    labels, table, _, _ = _made([(JudgedSet("clean"), CLEAN), (JudgedSet("c/n/1", "c", "n", 1), CLEAN)])
    table[CLEAN:] = table[:CLEAN]
    pairs = [(JudgedSet("clean"), slice(0, CLEAN)), (JudgedSet("c/n/1", "c", "n", 1), slice(CLEAN, 2 * CLEAN))]
    judged = OODPredictions.from_probabilities(["x"] * len(labels), labels, table, list("abcde"), pairs)
    found = bootstrap(list(METRICS.values())[:3], judged, resamples=200)
    assert found["drop"].low == found["drop"].value == found["drop"].high == 0.0
    assert found["clean_top1"].high - found["clean_top1"].low > 0.1


def test_a_set_that_a_resample_misses_is_left_out(made) -> None:
    _, _, judged, _ = made
    weights = np.ones((len(judged), 1))
    weights[judged.unit[judged.part == 6]] = 0  # 'whole'
    parts = [judged.right[judged.part == each].mean() for each in (2, 3, 4, 5, 7)]
    assert METRICS["shifted_top1"].weighted(judged)(weights)[0] == pytest.approx(
        np.mean([np.mean(parts[:4]), parts[4]])
    )
    assert METRICS["worst_set"].weighted(judged)(weights)[0] == pytest.approx(min(parts))
    assert np.isfinite(METRICS["shifted_ece"].weighted(judged)(weights)[0])
    assert np.isnan(METRICS["worst_set"].weighted(judged)(np.zeros((len(judged), 1)))[0])


def test_mce_by_hand() -> None:
    """All images wrong: each error is 1, so mCE is the mean of 1 / AlexNet's error; extra corruptions do not count."""
    names = [*ALEXNET_ERROR, "spatter"]
    sets = [(JudgedSet(f"c/{n}/{s}", "c", n, s), 2) for n in names for s in range(1, 6)]
    _, _, judged, _ = _made([(JudgedSet("clean"), 2), *sets], classes=1000)
    wrong = np.where(judged.part > 0, (judged.labels + 1) % 1000, judged.labels)
    wrong[judged.part > len(ALEXNET_ERROR) * 5] = 0
    judged = replace(judged, predicted=wrong)
    expected = np.mean([1 / error for error in ALEXNET_ERROR.values()])
    assert METRICS["mce"].compute(judged) == pytest.approx(expected)
    # Of the first corruption half is right: its error is 0.5.
    half = np.isin(judged.part, range(1, 6)) & (judged.unit == 0)
    better = replace(judged, predicted=np.where(half, judged.labels, judged.predicted))
    assert METRICS["mce"].compute(better) == pytest.approx(expected - 0.5 / ALEXNET_ERROR["gaussian_noise"] / 15)


def test_what_is_not_defined_is_said(made) -> None:
    _, _, judged, _ = made
    assert not METRICS["mce"].defined_on(judged) and METRICS["mean_corruption_error"].defined_on(judged)
    with pytest.raises(UserError, match="fifteen corruptions"):
        METRICS["mce"].compute(judged)
    _, _, plain, _ = _made([(JudgedSet("clean"), 9), (JudgedSet("whole", "whole"), 9)])
    assert not METRICS["mean_corruption_error"].defined_on(plain)
    with pytest.raises(UserError, match="no set of it is a corruption"):
        METRICS["mean_corruption_error"].compute(plain)


def test_alexnet_errors_are_the_published_means() -> None:
    """By severity, as timm's lists have them."""
    assert np.mean([0.69528, 0.82542, 0.93554, 0.98138, 0.99452]) == pytest.approx(ALEXNET_ERROR["gaussian_noise"])
    assert np.mean([0.4514, 0.48502, 0.54048, 0.62166, 0.7244]) == pytest.approx(ALEXNET_ERROR["brightness"])
    assert len(ALEXNET_ERROR) == 15
