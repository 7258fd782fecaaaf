"""Every metric equals its trusted reference, on random and on degenerate predictions."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, top_k_accuracy_score
from torchmetrics.classification import MulticlassCalibrationError

from bob.data.objects import Detections, Objects, encode_masks
from bob.errors import UserError
from bob.results.detection import DetectionPredictions
from bob.results.factor_metrics import FACTOR_METRICS
from bob.results.judged import Judged
from bob.results.metrics import METRICS, get_metric
from bob.results.multilabel import MultiLabelPredictions
from bob.results.ood_detection_metrics import OOD_DETECTION_METRICS
from bob.results.ood_metrics import OOD_METRICS
from bob.results.predictions import Predictions
from bob.results.retrieval_metrics import RETRIEVAL_METRICS
from bob.results.segmentation import SegmentationPredictions

Case = tuple[np.ndarray, np.ndarray]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _random(classes: int, sharpness: float, size: int = 400, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=size)
    logits = rng.normal(size=(size, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, _softmax(sharpness * logits)


def _votes() -> Case:
    """Shares of 20 neighbours: many confidences lie on the edges of bins, 0.2, 0.4, 0.6, 0.8 and 1."""
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.full(10, 0.5), size=2000)
    return rng.integers(10, size=2000), np.stack([rng.multinomial(20, share) for share in shares]) / 20


def _one_hot(labels: np.ndarray, predicted: np.ndarray, classes: int) -> Case:
    return labels, np.eye(classes)[predicted]


CASES: dict[str, Case] = {
    "random": _random(10, 1.0),
    "binary": _random(2, 1.0),
    "five classes": _random(5, 1.0),
    "overconfident": _random(10, 20.0),
    "underconfident": _random(10, 0.1),
    "float32": (_random(10, 1.0)[0], _random(10, 1.0)[1].astype(np.float32)),
    "absent classes": (_random(10, 1.0)[0] // 3, _random(10, 1.0)[1]),
    "long tail": (np.minimum(np.random.default_rng(1).geometric(0.4, size=400) - 1, 9), _random(10, 1.0)[1]),
    "votes": _votes(),
    "all right": _one_hot(np.arange(40) % 8, np.arange(40) % 8, 8),
    "all wrong": _one_hot(np.arange(40) % 8, (np.arange(40) + 1) % 8, 8),
    "constant": _one_hot(np.arange(41) % 8, np.zeros(41, dtype=int), 8),
    "uniform": (np.arange(40) % 8, np.full((40, 8), 1 / 8)),
    "one class": (np.zeros(30, dtype=int), _random(4, 1.0, size=30)[1]),
    "one sample": _random(6, 1.0, size=1),
}


def _groups(size: int) -> np.ndarray:
    """Four groups, the third without a sample, the last small."""
    return np.where(np.arange(size) % 11 == 7, 3, np.arange(size) % 2)


def _predictions(case: Case) -> Predictions:
    labels, table = case
    names = [str(i) for i in range(len(labels))]
    classes = [str(c) for c in range(table.shape[1])]
    return Predictions.from_probabilities(names, labels, table, classes, _groups(len(labels)), "pqrs")


def _reference_top1(labels: np.ndarray, table: np.ndarray) -> float:
    return accuracy_score(labels, table.argmax(axis=1))


def _reference_top5(labels: np.ndarray, table: np.ndarray) -> float:
    if table.shape[1] <= 5:
        return 1.0
    # scikit-learn lets the highest index win a tie, so it gets the classes in reverse
    last = table.shape[1] - 1
    return top_k_accuracy_score(last - labels, table[:, ::-1], k=5, labels=range(last + 1))


def _reference_mean_per_class(labels: np.ndarray, table: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", message="A single label was found")
        return balanced_accuracy_score(labels, table.argmax(axis=1))


def _reference_nll(labels: np.ndarray, table: np.ndarray) -> float:
    return log_loss(labels, table.astype(np.float32), labels=range(table.shape[1]))


def _reference_ece(labels: np.ndarray, table: np.ndarray) -> float:
    metric = MulticlassCalibrationError(num_classes=table.shape[1], n_bins=15, norm="l1")
    return float(metric(torch.tensor(table), torch.tensor(labels)))


def _reference_worst_group(labels: np.ndarray, table: np.ndarray) -> float:
    groups, right = _groups(len(labels)), table.argmax(axis=1) == labels
    return min(float(right[groups == group].mean()) for group in set(groups))


# Those of nll and ece compute in float32.
REFERENCES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], float]] = {
    "top1": (_reference_top1, 1e-12),
    "top5": (_reference_top5, 1e-12),
    "mean_per_class": (_reference_mean_per_class, 1e-12),
    "nll": (_reference_nll, 2e-6),
    "ece": (_reference_ece, 2e-6),
    "worst_group": (_reference_worst_group, 1e-12),
}
ONE_LABEL = [name for name, metric in METRICS.items() if metric.kind == "classification"]


def test_every_metric_has_a_reference() -> None:
    assert list(REFERENCES) == ONE_LABEL
    # The others are compared in test_multilabel.py, test_detection_metrics.py and test_segmentation.py.
    sizes = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    others = {f"{shape}_{size}" for shape in ("box", "mask") for size in sizes}
    others |= {"mean_auroc", "map", "miou", "mean_accuracy", "pixel_accuracy"}
    # Those of several sets, factors and queries: test_ood_metrics.py, test_ood_detection.py, test_factors.py and
    # test_retrieval.py.
    for metrics in (OOD_METRICS, OOD_DETECTION_METRICS, FACTOR_METRICS, RETRIEVAL_METRICS):
        others |= {metric.name for metric in metrics}
    assert others == set(METRICS) - set(REFERENCES)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", REFERENCES)
def test_equals_reference(name: str, case: str) -> None:
    reference, tolerance = REFERENCES[name]
    value = METRICS[name].compute(_predictions(CASES[case]))
    assert value == pytest.approx(reference(*CASES[case]), rel=tolerance, abs=tolerance)


def test_nll_equals_double_precision_reference() -> None:
    labels, table = CASES["random"]
    value = METRICS["nll"].compute(_predictions((labels, table)))
    assert value == pytest.approx(log_loss(labels, table, labels=range(10)), rel=1e-12)


def test_four_samples_by_hand() -> None:
    table = np.array([[0.75, 0.25], [0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])
    made = _predictions((np.array([0, 1, 1, 1]), table))
    assert METRICS["top1"].compute(made) == 2 / 4
    assert METRICS["top5"].compute(made) == 1
    assert METRICS["mean_per_class"].compute(made) == pytest.approx((1 / 1 + 1 / 3) / 2)
    assert METRICS["nll"].compute(made) == pytest.approx(-np.log(0.75 * 0.25 * 0.5 * 0.875) / 4)
    # bins: {0.75, 0.75} with one right of two, {0.5} wrong, {0.875} right
    assert METRICS["ece"].compute(made) == pytest.approx((abs(1 - 1.5) + abs(0 - 0.5) + abs(1 - 0.875)) / 4)


def test_confidence_of_one_has_its_own_bin() -> None:
    """As in torchmetrics: 0.95 and right, 1.0 and wrong do not level out."""
    made = _predictions((np.array([0, 1]), np.array([[0.95, 0.05], [1.0, 0.0]])))
    assert METRICS["ece"].compute(made) == pytest.approx((0.05 + 1.0) / 2)


@pytest.mark.parametrize("name", ONE_LABEL)
def test_reduce_takes_many_sums_at_once(name: str) -> None:
    metric = METRICS[name]
    made = _predictions(CASES["long tail"])
    counts = np.random.default_rng(0).integers(3, size=(2, 3, len(made)))
    sums = counts @ sparse.csr_array(metric.terms(made)).toarray()
    values = metric.reduce(sums)
    assert values.shape == (2, 3)
    for place in np.ndindex(2, 3):
        assert values[place] == pytest.approx(float(metric.reduce(sums[place])), rel=1e-12)


def test_many_classes_stay_sparse() -> None:
    made = _predictions(_random(1000, 1.0, size=2000))
    terms = METRICS["mean_per_class"].terms(made)
    assert sparse.issparse(terms)
    assert terms.nnz <= 2 * len(made)


@pytest.mark.parametrize("name", ONE_LABEL)
def test_weighted_by_one_is_the_value(name: str) -> None:
    made = _predictions(CASES["long tail"])
    found = METRICS[name].weighted(made)(np.ones((len(made), 2)))
    np.testing.assert_allclose(found, METRICS[name].compute(made), rtol=1e-12)


@pytest.mark.parametrize("name", ONE_LABEL)
@pytest.mark.parametrize("case", CASES)
def test_values_lie_between_0_and_the_largest(name: str, case: str) -> None:
    assert 0 <= METRICS[name].compute(_predictions(CASES[case])) <= METRICS[name].largest


def _of_each_kind() -> dict[str, Judged]:
    """Predictions on which every metric of their kind is defined."""
    corners = np.array([[0, 0, 10, 10], [0, 0, 50, 50], [0, 0, 99, 99]], dtype=np.float64)
    rles, labels = encode_masks(np.ones((3, 99, 99), dtype=bool)), np.zeros(3, dtype=np.int64)
    areas = corners[:, 2:].prod(axis=1)
    truth = Objects(corners, labels, labels, areas, labels > 0, (99, 99), rles)
    found = Detections(corners.astype(np.float32), np.ones(3, dtype=np.float32), labels, rles)
    pixels = np.zeros((2, 2), dtype=np.int16)
    return {
        "classification": _predictions(CASES["binary"]),
        "multilabel": MultiLabelPredictions.from_probabilities(["i", "j"], [[1], [0]], [[0.5], [0.2]], "a"),
        "detection": DetectionPredictions.from_detections(["i"], [truth], [found], "a"),
        "segmentation": SegmentationPredictions.from_masks(["i"], [pixels], [pixels], "a"),
    }


class TestWhatMetricsAreFor:
    def test_a_card_may_not_mix_them(self) -> None:
        with pytest.raises(UserError) as error:
            get_metric("map", "classification")
        assert str(error.value) == (
            "The metric `map` is for several labels an image, but the task has one label an image. "
            "Use some of top1, top5, mean_per_class, nll, ece, worst_group."
        )
        with pytest.raises(UserError, match=r"`top1` is for one label an image.*Use some of mean_auroc, map\."):
            get_metric("top1", "multilabel")
        assert get_metric("map", "multilabel", has_groups=False) is METRICS["map"]

    def test_groups(self) -> None:
        with pytest.raises(UserError, match="`worst_group` needs the group of each image, but the data have no groups"):
            get_metric("worst_group", "classification", has_groups=False)
        assert get_metric("worst_group", has_groups=True) is get_metric("worst_group", "classification")

    @pytest.mark.parametrize("name", METRICS)
    def test_predictions_of_the_other_kind(self, name: str) -> None:
        for kind, made in _of_each_kind().items():
            if kind == METRICS[name].kind:
                assert METRICS[name].defined_on(made)
                METRICS[name].compute(made)
                continue
            for ask in (METRICS[name].compute, METRICS[name].weighted):
                with pytest.raises(UserError, match=f"The metric `{name}` is for"):
                    ask(made)

    def test_predictions_without_groups(self) -> None:
        made = dataclasses.replace(_predictions(CASES["binary"]), groups=None, group_names=())
        for ask in (METRICS["worst_group"].compute, METRICS["worst_group"].weighted):
            with pytest.raises(UserError, match=r"needs the group of each image.*Add a column `group`"):
                ask(made)


def test_worst_group_by_hand() -> None:
    table = np.eye(2)[[0, 0, 1, 1, 1]]
    made = Predictions.from_probabilities(list("ijklm"), [0, 1, 1, 0, 0], table, "ab", [0, 0, 2, 2, 2], "xyz")
    assert METRICS["worst_group"].compute(made) == pytest.approx(1 / 3)
    # Resampled: without the third group; with nothing but a wrong answer in the first
    weights = np.array([[3.0, 1, 0, 0, 0], [0, 1, 3, 0, 0]]).T
    np.testing.assert_allclose(METRICS["worst_group"].weighted(made)(weights), [3 / 4, 0])


def test_get_metric() -> None:
    assert get_metric("top1") is METRICS["top1"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("top_1", "Did you mean: top1"), ("fid", "Known metrics: top1, top5"), ("mAP", "Did you mean: map")],
)
def test_unknown_metric(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"Expected the name of a metric, but got `{name}`. {hint}"):
        get_metric(name)
