"""Multi-label predictions come back from Parquet unchanged; their metrics equal scikit-learn's on every resample."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from bob.errors import UserError
from bob.results import statistics
from bob.results.any import read_predictions
from bob.results.metrics import METRICS
from bob.results.multilabel import MultiLabelPredictions
from bob.results.predictions import Predictions
from bob.results.statistics import Estimate, bootstrap, paired_bootstrap

BOTH = [METRICS["mean_auroc"], METRICS["map"]]
REFERENCES = {"mean_auroc": roc_auc_score, "map": average_precision_score}


def _predictions(size: int = 200, unknown: float = 0.2, seed: int = 0) -> MultiLabelPredictions:
    """Five labels, the last in one image of fifty."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((size, 5)) < [0.5, 0.3, 0.2, 0.1, 0.02]).astype(int)
    labels[0], labels[1] = 1, 0
    table = np.clip(0.3 * labels + 0.7 * rng.random((size, 5)), 0, 1)
    labels[2:][rng.random((size - 2, 5)) < unknown] = -1
    return MultiLabelPredictions.from_probabilities([f"i{i}" for i in range(size)], labels, table, "abcde")


def _reference(name: str, made: MultiLabelPredictions, weights: np.ndarray) -> float:
    values = []
    for truth, scores in zip(made.labels.T, made.probabilities.T, strict=True):
        known = (truth >= 0) & (weights > 0)
        outcomes = set(truth[known])
        if outcomes == {0, 1} or (name == "map" and outcomes == {1}):
            values.append(REFERENCES[name](truth[known], scores[known], sample_weight=weights[known]))
    return float(np.mean(values))


class TestMetrics:
    @pytest.mark.parametrize("name", REFERENCES)
    @pytest.mark.parametrize("unknown", [0.0, 0.4])
    def test_equals_scikit_learn(self, name: str, unknown: float) -> None:
        made = _predictions(unknown=unknown)
        assert METRICS[name].compute(made) == pytest.approx(_reference(name, made, np.ones(200)), rel=1e-12)
        if not unknown:
            macro = REFERENCES[name](made.labels, made.probabilities, average="macro")
            assert METRICS[name].compute(made) == pytest.approx(macro, rel=1e-12)

    def test_bootstrap_equals_the_slow_way(self) -> None:
        made = _predictions(size=60)  # so few that resamples lack the rare label
        rng = np.random.default_rng(5)
        draws = [np.bincount(rng.integers(60, size=60), minlength=60) for _ in range(150)]
        assert any(not draw[made.labels[:, 4] == 1].any() for draw in draws)
        estimates = bootstrap(BOTH, made, resamples=150, confidence=0.8, seed=5)
        for name, found in estimates.items():
            expected = np.quantile([_reference(name, made, draw) for draw in draws], [0.1, 0.9])
            np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)
            assert (found.value, found.n) == (METRICS[name].compute(made), 60)

    @pytest.mark.parametrize("size", [1, 8 * 200 * 7, 2**30])
    def test_chunks_do_not_change_a_digit(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        expected = bootstrap(BOTH, _predictions(), resamples=60)
        monkeypatch.setattr(statistics, "_CHUNK_BYTES", size)
        assert bootstrap(BOTH, _predictions(), resamples=60) == expected

    def test_memory_is_bounded(self) -> None:
        made = _predictions(size=20_000)
        tracemalloc.start()
        bootstrap(BOTH, made, resamples=300)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * statistics._CHUNK_BYTES  # all counts at once would be 48 MB, held several times over

    def test_covers_the_truth(self) -> None:
        """Scores N(1, 1) and N(0, 1): the area is Phi(1 / sqrt 2) = 0.7602."""
        rng, covered = np.random.default_rng(0), 0
        for seed in range(200):
            labels = (rng.random((150, 3)) < 0.4).astype(int)
            table = 1 / (1 + np.exp(-rng.normal(loc=labels)))
            made = MultiLabelPredictions.from_probabilities([""] * 150, labels, table, "abc")
            found = bootstrap([METRICS["mean_auroc"]], made, resamples=300, seed=seed)["mean_auroc"]
            covered += found.low <= 0.7602 <= found.high
        assert 0.90 <= covered / 200 <= 0.99

    def test_paired(self) -> None:
        made = _predictions()
        assert paired_bootstrap(METRICS["map"], made, made, resamples=50) == Estimate(0, 0, 0, 200)

    @pytest.mark.parametrize("name", REFERENCES)
    def test_not_defined_at_all(self, name: str) -> None:
        labels = np.array([[0, -1], [0, -1]])
        made = MultiLabelPredictions.from_probabilities("ij", labels, np.full((2, 2), 0.5), "ab")
        with pytest.raises(UserError, match=f"`{name}` is not defined on this test split") as error:
            bootstrap([METRICS[name]], made)
        assert "\n" not in str(error.value)


class TestPerClass:
    def test_by_hand(self) -> None:
        labels = np.array([[1, 0, -1, 1], [0, 0, -1, -1], [1, -1, -1, 1]])
        table = np.array([[0.9, 0.1, 0.5, 0.1], [0.5, 0.2, 0.5, 0.2], [0.1, 0.3, 0.5, 0.3]])
        made = MultiLabelPredictions.from_probabilities("ijk", labels, table, ["cat", "dog", "eel", "fox"])
        assert made.per_class() == [
            {"class": "cat", "n": 3, "positives": 2, "auroc": 0.5, "ap": pytest.approx((1 + 2 / 3) / 2)},
            {"class": "dog", "n": 2, "positives": 0},
            {"class": "fox", "n": 2, "positives": 2, "ap": 1.0},
        ]

    def test_means_are_the_metrics(self) -> None:
        made = _predictions()
        table = pd.DataFrame(made.per_class())
        assert table["auroc"].mean() == pytest.approx(METRICS["mean_auroc"].compute(made), rel=1e-12)
        assert table["ap"].mean() == pytest.approx(METRICS["map"].compute(made), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": []}, "at least one sample, but got none"),
        ({"names": ["i"]}, r"`labels` to have shape \(1, 2\), but got \(2, 2\)"),
        ({"labels": [[0, 1, 1], [1, 0, 1]]}, r"`labels` to have shape \(2, 2\), but got \(2, 3\)"),
        ({"labels": [1, 0]}, r"`labels` to have shape \(2, 2\), but got \(2,\)"),
        ({"labels": [[0, 1], [2, 0]]}, "`labels` to be at least -1 and less than 2, but got 2 for sample 1"),
        ({"labels": [[0, 1], [-2, 0]]}, "`labels` to be at least -1 and less than 2, but got -2 for sample 1"),
        ({"labels": [[0.0, 1], [1, 0]]}, "`labels` to be integers, but got float64"),
        ({"probabilities": [[0.5, np.nan], [0, 1]]}, "`probabilities` to be finite, but got nan for sample 0"),
        ({"probabilities": [[0.5, 1.5], [0, 1]]}, "probabilities between 0 and 1, but got 1.5 for sample 0"),
        ({"probabilities": [[0.5], [0]]}, r"`probabilities` to have shape \(2, 2\), but got \(2, 1\)"),
    ],
)
def test_bad_input(changes: dict[str, object], message: str) -> None:
    given = {"names": "ij", "labels": [[0, 1], [1, 0]], "probabilities": [[0.5, 1], [0, 1]], "classes": "ab"}
    with pytest.raises(UserError, match=f"Expected .*{message}"):
        MultiLabelPredictions.from_probabilities(**(given | changes))


class TestFiles:
    def test_round_trip(self, tmp_path: Path) -> None:
        made = _predictions()
        made.write(tmp_path / "p.parquet")
        for back in (MultiLabelPredictions.read(tmp_path / "p.parquet"), read_predictions(tmp_path / "p.parquet")):
            assert isinstance(back, MultiLabelPredictions)
            assert (back.names, back.classes) == (made.names, made.classes)
            np.testing.assert_array_equal(back.labels, made.labels)
            np.testing.assert_array_equal(back.probabilities, made.probabilities)
            assert back.labels.dtype == np.int64
        back.write(tmp_path / "again.parquet")
        assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()
        assert list(pd.read_parquet(tmp_path / "p.parquet")["labels"][0]) == list(made.labels[0])

    def test_each_kind_is_refused_as_the_other(self, tmp_path: Path) -> None:
        _predictions().write(tmp_path / "several")
        Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab").write(tmp_path / "one")
        assert isinstance(read_predictions(tmp_path / "one"), Predictions)
        with pytest.raises(UserError, match=r"written by `Predictions\.write`.*but got columns name, labels"):
            Predictions.read(tmp_path / "several")
        with pytest.raises(UserError, match=r"written by `MultiLabelPredictions\.write`.*but got columns name, label,"):
            MultiLabelPredictions.read(tmp_path / "one")

    def test_neither_kind(self, tmp_path: Path) -> None:
        pd.DataFrame({"name": ["a"]}).to_parquet(tmp_path / "p")
        with pytest.raises(UserError, match="written by"):
            read_predictions(tmp_path / "p")
        with pytest.raises(UserError, match="but got none"):
            read_predictions(tmp_path / "none")
