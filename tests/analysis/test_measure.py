"""Every number of one set of features: what is defined when, and rows read from a larger array."""

from __future__ import annotations

import numpy as np
import pytest

from bob.analysis.geometry import class_alignment
from bob.analysis.measure import FREE, OF_LABELS, measure
from bob.analysis.rows import Rows
from bob.analysis.spectrum import rank_me
from bob.analysis.transfer import h_score, log_me, nleep

RNG = np.random.default_rng(0)
LABELS = np.arange(90) % 3


def features(width: int) -> np.ndarray:
    return (RNG.normal(size=(90, width)) + 2 * np.eye(3, width)[LABELS]).astype(np.float32)


def undefined(*given: object) -> set[str]:
    return {name for name, value in measure(*given, np.arange(90), 0)[0].items() if np.isnan(value)}  # type: ignore[call-arg]


def test_all() -> None:
    own, drawn = features(8), np.arange(0, 90, 2)
    found, eigenvalues = measure(own, LABELS, 3, drawn, seed=5)
    assert set(found) == {*FREE, *OF_LABELS} and len(eigenvalues) == 8
    assert found["rank_me"] == rank_me(own) and found["log_me"] == log_me(own, LABELS, 3)
    assert found["h_score"] == h_score(own, LABELS, 3) and found["nleep"] == nleep(own, LABELS, 3, seed=5)
    assert found["class_alignment"] == class_alignment(own[drawn], LABELS[drawn])


def test_defined() -> None:
    assert undefined(features(8), LABELS, 3) == set()
    assert undefined(features(5), LABELS, 3) == {"alpha"}
    assert undefined(features(120), LABELS, 3) == {"h_score"}
    assert undefined(features(20), np.arange(90) % 12, 12) == {"nleep"}
    assert undefined(features(20), None, 3) == set(OF_LABELS)
    assert undefined(features(20), np.zeros(90, dtype=int), 3) == set(OF_LABELS)
    same = np.full((90, 4), 0.1, dtype=np.float32)
    assert undefined(same, LABELS, 3) == {*FREE, *OF_LABELS} - {"collapsed"}
    assert measure(same, LABELS, 3, np.arange(90), 0)[0]["collapsed"] == 1


def test_rows() -> None:
    stored, indices = RNG.normal(size=(200, 30)).astype(np.float32), RNG.permutation(200)[:90]
    rows, whole = Rows(stored, indices, slice(5, 17)), stored[indices][:, 5:17]
    assert rows.shape == whole.shape and len(rows) == 90
    np.testing.assert_array_equal(rows[10:30], whole[10:30])
    np.testing.assert_array_equal(rows[np.array([3, 1])], whole[[3, 1]])
    drawn = np.arange(40)
    given, expected = measure(rows, LABELS, 3, drawn, 0)[0], measure(whole, LABELS, 3, drawn, 0)[0]
    assert given == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_not_finite() -> None:
    broken = features(5)
    broken[7, 2] = np.inf
    with pytest.raises(ValueError, match="row 7 is not"):
        measure(broken, LABELS, 3, np.arange(90), 0)
