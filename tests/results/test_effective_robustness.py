"""Effective robustness against scikit-learn's line and hand-worked cases."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LinearRegression

from bob.errors import UserError
from bob.results.effective_robustness import effective_robustness, shift_table

CLEAN = np.array([0.6, 0.7, 0.75, 0.8])


def _table(shifted: np.ndarray, name: str = "sketch") -> pd.DataFrame:
    rows = {"backbone": [f"b{i}" for i in range(len(shifted))], "set": name, "clean_top1": CLEAN[: len(shifted)]}
    return pd.DataFrame({**rows, "shifted_top1": shifted, "clean_n": 1000, "n": 500})


def test_on_the_line_nothing_is_gained() -> None:
    found = effective_robustness(_table(expit(0.9 * logit(CLEAN) - 1.2)))
    assert found["effective_robustness"].to_numpy() == pytest.approx(np.zeros(4), abs=1e-10)
    assert found["slope"].iloc[0] == pytest.approx(0.9) and found["intercept"].iloc[0] == pytest.approx(-1.2)


def test_points_above_a_baseline() -> None:
    shifted = expit(logit(CLEAN) - 1)
    shifted[3] += 0.08
    found = effective_robustness(_table(shifted), baseline=["b0", "b1", "b2"])
    assert found["effective_robustness"].to_numpy() == pytest.approx([0, 0, 0, 8], abs=1e-9)
    assert (found["fitted_on"] == 3).all()


def test_the_line_is_least_squares_on_logits() -> None:
    shifted = np.array([0.3, 0.45, 0.41, 0.6])
    found = effective_robustness(pd.concat([_table(shifted), _table(shifted[:2], "few")]))
    line = LinearRegression().fit(logit(CLEAN)[:, None], logit(shifted))
    expected = expit(line.predict(logit(CLEAN)[:, None]))
    own = found[found["set"] == "sketch"]
    assert own["expected"].to_numpy() == pytest.approx(expected)
    assert own["effective_robustness"].to_numpy() == pytest.approx(100 * (shifted - expected))
    assert found[found["set"] == "few"]["effective_robustness"].isna().all()


def test_seeds_are_averaged_and_bounds_are_half_an_image() -> None:
    table = _table(np.array([0.0, 0.4, 0.5, 1.0]))
    twice = pd.concat([table.assign(shifted_top1=table["shifted_top1"]), table])
    assert len(effective_robustness(twice)) == 4
    found = effective_robustness(table)
    assert np.isfinite(found["effective_robustness"]).all()
    ends = np.array([0.001, 0.4, 0.5, 0.999])
    assert found["slope"].iloc[0] == pytest.approx(np.polyfit(logit(CLEAN), logit(ends), 1)[0])


@pytest.mark.parametrize(
    ("table", "baseline", "said"),
    [
        (_table(CLEAN[:2]), (), "needs 3 backbones"),
        (_table(CLEAN).assign(clean_top1=0.5), (), "different clean accuracy"),
        (_table(CLEAN).drop(columns="n"), (), "no column 'n'"),
        (_table(CLEAN).iloc[:0], (), "no rows"),
        (_table(CLEAN * 100), (), "between 0 and 1"),
        (_table(CLEAN), ("b9",), "'b9' is not in the table"),
    ],
)
def test_wrong_tables(table, baseline, said) -> None:
    with pytest.raises(UserError) as caught:
        effective_robustness(table, baseline)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_of_records() -> None:
    def record(backbone: str, shifted: float, breakdown: dict) -> SimpleNamespace:
        request = SimpleNamespace(task="t", protocol={"name": "linear"}, backbone=backbone, seed=0)
        row = {"set": "s", "n": 50, "classes": 3, "top1": shifted, "clean_n": 80, "clean_top1": 0.75, "drop": 0.1}
        return SimpleNamespace(request=request, breakdown={name: [{**row, **more}] for name, more in breakdown.items()})

    outliers = SimpleNamespace(request=None, breakdown={"per_set": [{"set": "o", "auroc": 0.9}]})
    plain = SimpleNamespace(request=None, breakdown={})
    records = [record("a", 0.5, {"per_set": {}}), record("b", 0.6, {"per_set": {"clean_top1": 0.8}}), outliers, plain]
    table = shift_table(records)
    assert table["backbone"].tolist() == ["a", "b"] and table["shifted_top1"].tolist() == [0.5, 0.6]
    assert table["clean_top1"].tolist() == [0.75, 0.8] and table["n"].tolist() == [50, 50]
    with pytest.raises(UserError, match="needs 3 backbones"):
        effective_robustness(table)
    assert shift_table([plain]).empty
