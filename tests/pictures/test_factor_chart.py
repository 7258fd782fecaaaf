"""The chart of error ratios: a bar for each factor and model, at the height of the table's number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.pictures.factor_chart import draw_error_ratios
from bob.results.factor_table import Correctness, factor_table

NAMES = ("dark", "small")


def _table(models: list[str], right_share: float = 0.7) -> pd.DataFrame:
    tables = []
    for seed, model in enumerate(models):
        rng = np.random.default_rng(seed)
        flags, right = rng.random((200, 2)) < 0.3, rng.random(200) < right_share
        tables.append(factor_table(Correctness(np.zeros(200, np.int64), right, flags, NAMES), resamples=50))
        tables[-1].insert(0, "model", model)
    return pd.concat(tables, ignore_index=True)


def test_bars_are_the_ratios() -> None:
    table = _table(["a", "b"])
    figure = draw_error_ratios(table, "title")
    [axes] = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        f"{name} ({n})" for name, n in zip(NAMES, table["n"][:2], strict=True)
    ]
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, table[table["factor"].isin(NAMES)]["error_ratio"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    figure.draw_without_rendering()


def test_nothing_wrong_leaves_bars_out() -> None:
    figure = draw_error_ratios(_table(["a"], right_share=1.1), "title")
    assert all(np.isnan(bar.get_width()) for bar in figure.axes[0].patches)
    figure.draw_without_rendering()


def test_too_many_models() -> None:
    with pytest.raises(UserError, match="at most 6 models"):
        draw_error_ratios(_table(list("abcdefg")), "title")
