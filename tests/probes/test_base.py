"""What probes check is checked a few rows at a time, and means the same for one label and for several."""

from __future__ import annotations

import numpy as np
import pytest

from bob.probes import base
from bob.probes.base import check_features, check_grid, check_training


def test_not_finite_rows_are_named_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_CHUNK_ELEMENTS", 7)
    x = np.ones((20, 3))
    check_features(x)
    x[[11, 17], 1] = np.nan
    with pytest.raises(ValueError, match=r"row 11 is not \(2 rows in all\)"):
        check_features(x)


@pytest.mark.parametrize("labels", [[[1, 0], [-1, -1], [0, 1]], [[1, 1], [1, 1], [1, 1]], [[-1, 0], [-1, -1], [-1, 0]]])
def test_multi_label_takes_unknown_labels_and_labels_of_one_value(labels: list[list[int]]) -> None:
    check_training(np.ones((3, 4)), np.array(labels), 2, multi_label=True)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (np.zeros(3, dtype=int), r"shape \(3, 2\), but got \(3,\)"),
        (np.zeros((3, 3), dtype=int), r"shape \(3, 2\), but got \(3, 3\)"),
        (np.zeros((3, 2)), "integer labels"),
        (np.full((3, 2), 2), r"in \[-1, 2\), but got 2 to 2"),
        (np.full((3, 2), -2), r"in \[-1, 2\), but got -2 to -2"),
        (np.full((3, 2), -1), "at least one known label"),
    ],
)
def test_bad_multi_label_training_data(labels: np.ndarray, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_training(np.ones((3, 4)), labels, 2, multi_label=True)


def test_grid_may_vary_in_what_is_named() -> None:
    points = [{"lr": 1, "decay": 2, "seed": 0}, {"lr": 3, "decay": 4, "seed": 0}]
    check_grid(points, "lr", "decay")
    with pytest.raises(ValueError, match="differ in `lr` alone"):
        check_grid(points, "lr")
    with pytest.raises(ValueError, match="differ in `lr` and `seed` alone"):
        check_grid(points, "lr", "seed")
