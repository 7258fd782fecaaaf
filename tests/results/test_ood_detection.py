"""Numbers of outlier detection equal scikit-learn's, on each set and in every resample, and survive the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from bob.errors import UserError
from bob.results.ood_detection import KNOWN, OODDetectionPredictions
from bob.results.ood_detection_metrics import OOD_DETECTION_METRICS
from bob.results.statistics import bootstrap

METRICS = {metric.name: metric for metric in OOD_DETECTION_METRICS}
SETS, NEAR = ("a", "b", "c"), (True, False, False)


def _predictions(n: int = 300, digits: int | None = None, shift: float = 1.0, seed: int = 0) -> OODDetectionPredictions:
    rng = np.random.default_rng(seed)
    members = rng.choice([KNOWN, KNOWN, 0, 1, 2], size=n)
    scores = rng.normal(size=n) + shift * (members + 1)
    scores = scores if digits is None else scores.round(digits)
    return OODDetectionPredictions.from_scores([f"i{i}" for i in range(n)], scores, members, SETS, NEAR)


CASES = {
    "random": _predictions(),
    "many ties": _predictions(digits=0),
    "all equal": _predictions(shift=0.0, digits=-2),
    "apart": _predictions(shift=100.0),
    "reversed": _predictions(shift=-3.0),
    "few": _predictions(20, seed=3),
    "twenty known": OODDetectionPredictions.from_scores(
        [str(i) for i in range(24)], np.arange(24.0), [KNOWN] * 20 + [0, 0, 1, 2], SETS, NEAR
    ),
}


def _reference(name: str, p: OODDetectionPredictions, weights: np.ndarray | None = None) -> np.ndarray:
    values = []
    weights = np.ones(len(p)) if weights is None else weights
    for number in range(len(SETS)):
        rows = (p.members == KNOWN) | (p.members == number)
        outlier, scores, w = p.members[rows] == number, p.scores[rows], weights[rows]
        if not w[outlier].sum():
            values.append(np.nan)
        elif name == "auroc":
            values.append(roc_auc_score(outlier, scores, sample_weight=w))
        elif name == "aupr_out":
            values.append(average_precision_score(outlier, scores, sample_weight=w))
        elif name == "aupr_in":
            values.append(average_precision_score(~outlier, -scores, sample_weight=w))
        else:
            fpr, tpr, _ = roc_curve(~outlier, -scores, sample_weight=w, drop_intermediate=False)
            values.append(fpr[np.argmax(tpr >= 0.95)])
    return np.array(values)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["auroc", "aupr_out", "aupr_in", "fpr95"])
def test_equals_scikit_learn(name: str, case: str) -> None:
    p = CASES[case]
    assert METRICS[name].compute(p) == pytest.approx(_reference(name, p).mean(), abs=1e-12)
    own = [row[name] for row in p.breakdown()["per_set"]]
    np.testing.assert_allclose(own, _reference(name, p), atol=1e-12)


@pytest.mark.parametrize("name", ["auroc", "aupr_out", "aupr_in", "fpr95"])
def test_resamples_equal_scikit_learn(name: str) -> None:
    p = CASES["many ties"]
    draws = np.random.default_rng(1).multinomial(len(p), np.full(len(p), 1 / len(p)), size=6).astype(float)
    values = METRICS[name].weighted(p)(np.ascontiguousarray(draws.T))
    expected = [_reference(name, p, draw).mean() for draw in draws]
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_near_and_far() -> None:
    p = CASES["random"]
    each = _reference("auroc", p)
    assert METRICS["near_auroc"].compute(p) == pytest.approx(each[0])
    assert METRICS["far_auroc"].compute(p) == pytest.approx(each[1:].mean())
    far = OODDetectionPredictions.from_scores(p.names, p.scores, p.members, SETS, (False, False, False))
    assert not METRICS["near_auroc"].defined_on(far) and METRICS["far_auroc"].defined_on(far)
    with pytest.raises(UserError, match=r"`near_auroc` is not defined .*: none of its sets of outliers is near"):
        METRICS["near_auroc"].compute(far)


def test_by_hand() -> None:
    # Twenty known images score 0 to 19: 95% of them, nineteen, score at most 18, so an outlier at 18 passes for known
    # and one at 18.5 does not. The one at 18 is above eighteen known images and level with one, that at 18.5 is above
    # nineteen.
    scores = [*range(20), 18, 18.5]
    p = OODDetectionPredictions.from_scores([*"abcdefghijklmnopqrstuv"], scores, [KNOWN] * 20 + [0, 0], ["x"], [True])
    assert METRICS["fpr95"].compute(p) == 0.5
    assert METRICS["auroc"].compute(p) == pytest.approx((18.5 + 19) / 40)
    [row] = p.breakdown()["per_set"]
    assert (row["set"], row["near"], row["n"], row["n_known"]) == ("x", True, 2, 20)


def test_set_without_weight_is_left_out_of_the_mean() -> None:
    p = CASES["random"]
    weights = np.where(p.members == 1, 0.0, 1.0)[:, None]
    for name in ("auroc", "aupr_out", "aupr_in", "fpr95"):
        expected = np.nanmean(_reference(name, p, weights[:, 0]))
        assert METRICS[name].weighted(p)(weights)[0] == pytest.approx(expected)


def test_all_in_one_bootstrap() -> None:
    p = CASES["random"]
    estimates = bootstrap(OOD_DETECTION_METRICS, p, resamples=200)
    for name, estimate in estimates.items():
        assert estimate.low < estimate.value < estimate.high, name
        assert estimate.n == len(p)
    alone = bootstrap([METRICS["far_auroc"]], p, resamples=200)
    assert alone["far_auroc"] == estimates["far_auroc"]


def test_round_trip(tmp_path: Path) -> None:
    p = CASES["random"]
    p.write(tmp_path / "p.parquet")
    again = OODDetectionPredictions.read(tmp_path / "p.parquet")
    assert (again.names, again.sets, again.near, again.classes) == (p.names, SETS, NEAR, SETS)
    np.testing.assert_array_equal(again.scores, p.scores)
    np.testing.assert_array_equal(again.members, p.members)
    again.write(tmp_path / "q.parquet")
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "q.parquet").read_bytes()


@pytest.mark.parametrize(
    ("scores", "members", "near", "problem"),
    [
        ([0.0, np.nan], [KNOWN, 0], [True], "Expected `scores` to be finite, but got nan for sample 1"),
        ([0.0], [KNOWN, 0], [True], r"Expected `scores` to have shape \(2,\), but got \(1,\)"),
        ([0.0, 1.0], [KNOWN, 1], [True], "Expected `members` to be at least -1 and less than 1, but got 1"),
        ([0.0, 1.0], [KNOWN, 0], [], r"Expected `near` to have shape \(1,\)"),
    ],
)
def test_refuses(scores: list[float], members: list[int], near: list[bool], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        OODDetectionPredictions.from_scores(["x", "y"], scores, members, ["a"], near)


def test_without_known_or_outliers() -> None:
    for members in ([KNOWN, KNOWN], [0, 0]):
        p = OODDetectionPredictions.from_scores(["x", "y"], [0.0, 1.0], members, ["a"], [True])
        with pytest.raises(UserError, match="no image of the known classes, or no outlier"):
            METRICS["auroc"].compute(p)
