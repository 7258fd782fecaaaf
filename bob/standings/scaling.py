"""What size buys: how a backbone's standing goes with its parameters and with the images it was pretrained on."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from scipy import stats

from bob.standings.aggregate import Floats
from bob.standings.correlation import FEWEST, spearman_matrix

AGAINST = ("parameters", "pretraining_images")
ALL = "all"
_FAMILIES = {
    "CNN": r"resnet|resnext|convnext|regnet|efficientnet|mobilenet|densenet|vgg|inception|nfnet",
    "hierarchical transformer": r"swin|\bpvt|\bmvit|hiera|twins",
    "ViT": r"\b(vit|deit|beit|eva|aimv2|cait)",
}


def family(architecture: str) -> str:
    """The kind of network, from a card's `architecture`: CNN, ViT (plain), hierarchical transformer, other.

    The paper compares the first two. Swin and its like are apart: their maps shrink as a CNN's do. Attention added to a
    CNN, as in the ResNets of CLIP, leaves it one; so does convolution in a transformer, which stays `other`.
    """
    name = architecture.lower()
    return next((kind for kind, pattern in _FAMILIES.items() if re.search(pattern, name)), "other")


def scaling(
    table: pd.DataFrame, value: str = "mean_z", *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How a value goes with size, over all backbones and by family.

    Args:
        table: One row a backbone: the column `value`, and `architecture`, `parameters`, `pretraining_images`. Rows
            where the value or the size is unknown, or the size is 0, are left out: nothing is filled in.
        value: What goes with size; more is better.
        confidence: Of the intervals.
        resamples: Of the backbones, for the interval of the rank correlation; see `correlations` for its limits.
        seed: Equal seeds give equal intervals.

    Returns:
        One row a family and size: family ("all" first), against ("parameters" or "pretraining_images"), n, spearman,
        spearman_low, spearman_high, and of the least-squares line of the value on log10 of the size: slope (gain for a
        tenfold size), slope_low, slope_high (Student's t of n - 2 degrees of freedom), intercept, r_squared. NaN where
        there are fewer than 4 backbones or they do not differ in size.

    Source: Goldblum et al. 2023, Battle of the Backbones, arXiv 2310.19909 (Spearman of z with size, ViT against CNN).
    """
    kinds = table["architecture"].fillna("").map(family)
    rows = []
    for name in (ALL, *_FAMILIES, "other"):
        own = table if name == ALL else table[kinds == name]
        for against in AGAINST:
            pair = own[[against, value]].apply(pd.to_numeric).dropna()
            pair = pair[pair[against] > 0]
            if len(pair) or name == ALL:
                found = _fit(pair.to_numpy(dtype=np.float64), confidence, resamples, seed)
                rows.append({"family": name, "against": against, "n": len(pair), **found})
    return pd.DataFrame(rows)


def _fit(pair: Floats, confidence: float, resamples: int, seed: int) -> dict[str, float]:
    """Rank correlation and line of (n, 2): size and value."""
    names = ("spearman", "spearman_low", "spearman_high", "slope", "slope_low", "slope_high", "intercept", "r_squared")
    if len(pair) < FEWEST or np.ptp(pair[:, 0]) == 0:
        return dict.fromkeys(names, float("nan"))
    bounds = spearman_matrix(pair, resamples=resamples, confidence=confidence, seed=seed)
    line = stats.linregress(np.log10(pair[:, 0]), pair[:, 1])
    half = float(stats.t.ppf((1 + confidence) / 2, len(pair) - 2)) * line.stderr
    numbers = (line.slope, line.slope - half, line.slope + half, line.intercept, line.rvalue**2)
    return dict(zip(names, (*(float(matrix[0, 1]) for matrix in bounds), *map(float, numbers)), strict=True))
