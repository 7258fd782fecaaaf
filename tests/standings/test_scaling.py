"""What size buys: scipy's correlation and line, by family, over what is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bob.catalogue import load_backbone_cards
from bob.standings.scaling import family, scaling


def test_every_card_has_its_family() -> None:
    found = {card.architecture: family(card.architecture) for card in load_backbone_cards().values()}
    others = {name for name, kind in found.items() if kind == "other"}
    assert others == {"none", "Stable Diffusion v1 encoder"}
    assert {kind for name, kind in found.items() if "Swin" in name} == {"hierarchical transformer"}
    assert {found[name] for name in ("EVA02-B/14", "AIMv2-L/14", "ViT-L/16 (BEiT)")} == {"ViT"}
    cnns = ("ResNet-50 (CLIP)", "EfficientNet-B0", "MobileNetV2 1.0", "RegNetX-400MF", "ConvNeXt-XL")
    assert {found[name] for name in cnns} == {"CNN"}
    assert family("MobileViT-S") == family("") == "other"


def test_a_line_by_decade() -> None:
    sizes = np.array([1e6, 1e7, 1e8, 1e9, 3e9])
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "architecture": ["ViT-B/16", "ViT-S/16", "ResNet-50", "ResNet-50", "ViT-L/16"],
            "parameters": sizes,
            "pretraining_images": [0, np.nan, 1e6, 2e6, 3e6],
            "mean_z": 0.5 * np.log10(sizes) - 3 + rng.normal(scale=0.1, size=5),
        }
    )
    rows = scaling(table).set_index(["family", "against"])
    row = rows.loc[("all", "parameters")]
    line = stats.linregress(np.log10(sizes), table["mean_z"])
    half = stats.t.ppf(0.975, 3) * line.stderr
    assert row["n"] == 5 and row["slope"] == pytest.approx(line.slope) and 0.3 < row["slope"] < 0.7
    assert (row["slope_low"], row["slope_high"]) == pytest.approx((line.slope - half, line.slope + half))
    assert row["spearman"] == pytest.approx(stats.spearmanr(sizes, table["mean_z"]).statistic)
    assert row["r_squared"] == pytest.approx(line.rvalue**2) and row["intercept"] == pytest.approx(line.intercept)
    # Neither 0 images nor an unknown number has a logarithm; of three one can say nothing.
    few = rows.loc[("all", "pretraining_images")]
    assert few["n"] == 3 and few.drop("n").isna().all()
    assert rows.loc[("CNN", "parameters"), "n"] == 2 and rows.loc[("ViT", "parameters"), "n"] == 3
    assert "hierarchical transformer" not in rows.index.get_level_values(0)


def test_all_of_one_size() -> None:
    table = pd.DataFrame(
        {"architecture": "ViT", "parameters": 5.0, "pretraining_images": 5.0, "mean_z": [1.0, 2.0, 3.0, 4.0]}
    )
    assert scaling(table)["slope"].isna().all()
