"""Which of `shapes`' images are unusual, and in what: flags from the factors that each image was drawn with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bob.data.shapes import SIZE

Rule = Callable[[pd.DataFrame], ArrayLike]

# Thresholds are fixed, so that a flag means the same in every split and with every seed. Each is set to flag between a
# tenth and a quarter of the images. Where ImageNet-X has a factor of the same meaning, it has the same name here.
_FLAGS: dict[str, Rule] = {
    "pose": lambda drawn: drawn["angle"].abs() > 28,
    "background": lambda drawn: drawn["background_clutter"] > 0.24,
    "pattern": lambda drawn: drawn["fill_pattern"] > 0.1,
    "color": lambda drawn: _cast(drawn) > 185,
    "smaller": lambda drawn: drawn["scale"] < 27.5,
    "shape": lambda drawn: np.maximum(drawn["stretch"], 1 / drawn["stretch"]) > 1.2,
    "larger": lambda drawn: drawn["scale"] > 36,
    "darker": lambda drawn: drawn["brightness"] < 0.7,
    "brighter": lambda drawn: drawn["brightness"] > 1.1,
    "off_centre": lambda drawn: np.hypot(drawn["centre_x"] - SIZE / 2, drawn["centre_y"] - SIZE / 2) > 9.5,
    "low_contrast": lambda drawn: drawn["contrast"].abs() < 0.05,
    "noise": lambda drawn: drawn["noise"] > 8.8,
}

SHAPE_FACTORS = tuple(_FLAGS)
"""Names of the factors, in the order of the columns of `shape_flags`."""


def shape_flags(drawn: pd.DataFrame) -> np.ndarray:
    """Return (n, F) bool, which of `SHAPE_FACTORS` each image has; an image may have several, or none.

    `pose`: turned by more than 28 degrees, of at most 35. `background`: cluttered. `pattern`: patterned inside.
    `color`: its cast has much of one channel and little of another. `smaller`, `larger`: in size. `shape`: stretched or
    squeezed by more than a fifth. `darker`, `brighter`: exposed so. `off_centre`: by more than 9.5 pixels of 96.
    `low_contrast`: about as light as its background. `noise`: the sensor's, more than 8.8 of 255 levels.

    Args:
        drawn: `ShapesImages.factors`, n rows.
    """
    return np.stack([np.asarray(rule(drawn), dtype=bool) for rule in _FLAGS.values()], axis=1)


def _cast(drawn: pd.DataFrame) -> pd.Series[float]:
    """How far apart the strongest and the weakest channel of the colour mixed in are, in grey levels."""
    channels = drawn[["fill_red", "fill_green", "fill_blue"]]
    return channels.max(axis=1) - channels.min(axis=1)
