"""The page's sentences, which say no more than the numbers do."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bob.report.words import leading, listed


def ranking(ranks: list[float], groups: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"backbone": list("abcdefghij")[: len(ranks)], "rank": ranks, "group": groups})


def test_leading() -> None:
    assert leading(ranking([1, 2, 3], [1, 1, 2]), "mean_z") == (
        "a leads 3 ranked backbones by mean z; not surely worse is b."
    )
    assert leading(ranking([1, 2, 3], [1, 1, 1]), "win_rate") == (
        "a leads 3 ranked backbones by win rate; not surely worse are b and c."
    )
    assert leading(ranking([1, 2, np.nan], [1, 2, np.nan]), "mean_z") == (
        "a leads 2 ranked backbones by mean z, surely better than every other one (95%)."
    )


def test_leading_unsure() -> None:
    assert "How sure that is remains unknown" in leading(ranking([1, 2], [np.nan, np.nan]), "mean_z")
    assert leading(ranking([1.5, 1.5, 3], [1, 1, 2]), "mean_z") == "a and b lead 3 ranked backbones by mean z."
    assert leading(ranking([1, np.nan], [1, np.nan]), "mean_z") == "a is the only backbone that is ranked."
    assert leading(ranking([np.nan], [np.nan]), "mean_z").startswith("No backbone has a score in every setting")


def test_listed() -> None:
    assert listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdef")) == "a, b, c, d, e and f"
    assert listed(list("abcdefgh")) == "a, b, c, d, e and 3 others"
