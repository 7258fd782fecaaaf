"""Predictions keep what metrics need, refuse what is no probability, and come back from Parquet unchanged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.results.predictions import Predictions

TABLE = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.4, 0.2], [0.25, 0.5, 0.25]])


def _predictions(**changes: object) -> Predictions:
    given = {"names": list("wxyz"), "labels": [0, 1, 1, 2], "probabilities": TABLE, "classes": ["cat", "dog", "eel"]}
    return Predictions.from_probabilities(**(given | changes))


def test_four_samples_by_hand() -> None:
    made = _predictions()
    assert made.names == ["w", "x", "y", "z"]
    assert made.classes == ("cat", "dog", "eel")
    assert len(made) == 4
    np.testing.assert_array_equal(made.labels, [0, 1, 1, 2])
    np.testing.assert_array_equal(made.predicted, [0, 2, 0, 1])
    np.testing.assert_array_equal(made.confidence, [0.7, 0.6, 0.4, 0.5])
    np.testing.assert_array_equal(made.label_probability, [0.7, 0.3, 0.4, 0.25])
    np.testing.assert_array_equal(made.label_rank, [0, 1, 1, 2])


def test_types() -> None:
    made = _predictions(probabilities=TABLE.astype(np.float32), labels=np.array([0, 1, 1, 2], dtype=np.uint8))
    for name in ("labels", "predicted", "label_rank"):
        assert getattr(made, name).dtype == np.int64
    for name in ("confidence", "label_probability"):
        assert getattr(made, name).dtype == np.float64


@pytest.mark.parametrize("label", range(4))
def test_of_equal_probabilities_the_lowest_class_comes_first(label: int) -> None:
    made = Predictions.from_probabilities(["a"], [label], np.full((1, 4), 0.25), list("abcd"))
    assert made.predicted[0] == 0
    assert made.label_rank[0] == label


def test_rank_is_the_place_in_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    votes = rng.multinomial(6, np.full(8, 1 / 8), size=300) / 6  # many ties
    labels = rng.integers(8, size=300)
    made = Predictions.from_probabilities([str(i) for i in range(300)], labels, votes, list("abcdefgh"))
    order = np.argsort(-votes, axis=1, kind="stable")
    np.testing.assert_array_equal(made.label_rank, np.argmax(order == labels[:, None], axis=1))
    np.testing.assert_array_equal(made.predicted, order[:, 0])
    np.testing.assert_array_equal(made.label_rank == 0, made.predicted == labels)


def test_whole_numbers_are_probabilities_too() -> None:
    made = _predictions(probabilities=[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(made.confidence, 1.0)


def test_half_precision_rows_sum_to_one_closely_enough() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 1000))
    table = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float16)
    _predictions(probabilities=table, classes=[str(i) for i in range(1000)])


def _changed(row: int, column: int, value: float) -> np.ndarray:
    table = TABLE.copy()
    table[row, column] = value
    return table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": [], "labels": [], "probabilities": np.zeros((0, 3))}, "at least one sample, but got none"),
        ({"names": ["w"]}, r"`probabilities` to have shape \(1, 3\), but got \(4, 3\)"),
        ({"classes": ["cat", "dog"]}, r"`probabilities` to have shape \(4, 2\), but got \(4, 3\)"),
        ({"probabilities": TABLE[:, 0]}, r"`probabilities` to have shape \(4, 3\), but got \(4,\)"),
        ({"labels": [0, 1]}, r"`labels` to have shape \(4,\), but got \(2,\)"),
        ({"labels": [0.0, 1.0, 1.0, 2.0]}, "`labels` to be integers, but got float64"),
        ({"labels": [0, 1, 3, 2]}, "`labels` to be at least 0 and less than 3, but got 3 for sample 2"),
        ({"labels": [-1, 1, 1, 2]}, "`labels` to be at least 0 and less than 3, but got -1 for sample 0"),
        ({"probabilities": _changed(1, 2, np.nan)}, "to be finite, but got nan for sample 1"),
        ({"probabilities": _changed(1, 2, np.inf)}, "to be finite, but got inf for sample 1"),
        ({"probabilities": _changed(3, 0, -0.25)}, "between 0 and 1, but got -0.25 for sample 3"),
        ({"probabilities": _changed(2, 0, 0.402)}, r"to be 1 within 0.001, but got 1.00\d* for sample 2"),
        ({"probabilities": np.log(TABLE)}, "between 0 and 1, but got -0.35"),
    ],
)
def test_bad_input(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"Expected .*{message}"):
        _predictions(**changes)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(UserError, match=r"Expected `label_rank` to have shape \(4,\), but got \(2,\)"):
        dataclasses.replace(_predictions(), label_rank=np.zeros(2, dtype=np.int64))


def test_round_trip(tmp_path: Path) -> None:
    made = _predictions(classes=["cat", 'a "dog", ü', "eel"])
    made.write(tmp_path / "predictions.parquet")
    back = Predictions.read(tmp_path / "predictions.parquet")
    assert (back.names, back.classes) == (made.names, made.classes)
    for name in ("labels", "predicted", "confidence", "label_probability", "label_rank"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
        assert getattr(back, name).dtype == getattr(made, name).dtype


def test_a_folder_called_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "seed=0").mkdir()
    _predictions().write(tmp_path / "seed=0" / "p.parquet")
    assert len(Predictions.read(tmp_path / "seed=0" / "p.parquet")) == 4


def test_names_that_are_not_utf8_can_be_written(tmp_path: Path) -> None:
    made = _predictions(names=[b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "x", "y", "z"])
    made.write(tmp_path / "p.parquet")
    assert Predictions.read(tmp_path / "p.parquet").names == ["caf\\udce9.jpg", "x", "y", "z"]


def test_same_content_same_bytes(tmp_path: Path) -> None:
    _predictions().write(tmp_path / "one")
    _predictions().write(tmp_path / "two")
    Predictions.read(tmp_path / "one").write(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()


def test_pandas_reads_it(tmp_path: Path) -> None:
    _predictions().write(tmp_path / "p.parquet")
    frame = pd.read_parquet(tmp_path / "p.parquet")
    columns = ["name", "label", "predicted", "confidence", "label_probability", "label_rank"]
    assert list(frame.columns) == columns
    assert list(frame["predicted"]) == [0, 2, 0, 1]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected a file of predictions at .*none.parquet, but got none"):
        Predictions.read(tmp_path / "none.parquet")


def test_file_that_is_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_text("name,label\n" * 10)
    with pytest.raises(UserError, match=r"Expected .*p.parquet to be a Parquet file, but got"):
        Predictions.read(tmp_path / "p.parquet")


def test_file_of_something_else(tmp_path: Path) -> None:
    pd.DataFrame({"name": ["a"], "score": [1.0]}).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(UserError, match=r"written by `Predictions.write`.*but got columns name, score"):
        Predictions.read(tmp_path / "p.parquet")


class TestGroups:
    GROUPS = (2, 0, 2, 2)

    def _grouped(self, **changes: object) -> Predictions:
        return _predictions(**{"groups": self.GROUPS, "group_names": ["day", "dusk", "night"], **changes})

    def test_per_group(self) -> None:
        # w in "night" is right; x in "day", y and z in "night" are wrong
        assert self._grouped().per_group() == [
            {"group": "day", "n": 1, "accuracy": 0.0},
            {"group": "night", "n": 3, "accuracy": pytest.approx(1 / 3)},
        ]
        assert _predictions().per_group() == []

    def test_round_trip(self, tmp_path: Path) -> None:
        made = self._grouped(groups=np.array(self.GROUPS, dtype=np.int32))
        made.write(tmp_path / "p.parquet")
        back = Predictions.read(tmp_path / "p.parquet")
        assert back.groups is not None and back.groups.dtype == np.int64
        np.testing.assert_array_equal(back.groups, self.GROUPS)
        assert back.group_names == ("day", "dusk", "night")
        assert list(pd.read_parquet(tmp_path / "p.parquet")["group"]) == list(self.GROUPS)

    def test_files_without_groups_are_what_they_were(self, tmp_path: Path) -> None:
        _predictions().write(tmp_path / "p.parquet")
        back = Predictions.read(tmp_path / "p.parquet")
        assert back.groups is None and back.group_names == ()
        assert "group" not in pd.read_parquet(tmp_path / "p.parquet")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"groups": [0, 1]}, r"`groups` to have shape \(4,\), but got \(2,\)"),
            ({"groups": [0, 1, 3, 0]}, "`groups` to be at least 0 and less than 3, but got 3 for sample 2"),
            ({"groups": [0, 1, -1, 0]}, "`groups` to be at least 0 and less than 3, but got -1 for sample 2"),
            ({"groups": [0.0, 1, 1, 0]}, "`groups` to be integers, but got float64"),
            ({"group_names": []}, "`groups` to be at least 0 and less than 0"),
        ],
    )
    def test_bad_groups(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(UserError, match=f"Expected .*{message}"):
            self._grouped(**changes)
