"""Every number that is taken of one set of features without training on it."""

from __future__ import annotations

import numpy as np

from bob.analysis.geometry import class_alignment, uniformity
from bob.analysis.moments import Floats
from bob.analysis.rows import Features
from bob.analysis.spectrum import rank_me, spectrum
from bob.analysis.transfer import COMPONENTS, h_score, log_me, nleep

# By what they need: nothing, views, or labels.
FREE = ("rank_me", "alpha", "participation", "directions_90", "directions_99", "collapsed", "uniformity")
OF_VIEWS = ("lidar", "view_alignment")
OF_LABELS = ("class_alignment", "log_me", "h_score", "h_score_regularised", "nleep")
MEASURES = (*FREE, *OF_VIEWS, *OF_LABELS)
_SHARE = 2  # images that NLEEP's mixture needs for each of its components


def measure(
    features: Features, labels: np.ndarray | None, classes: int, drawn: np.ndarray, seed: int
) -> tuple[dict[str, float], Floats]:
    """The measures of features (n, D) that need no views, and the eigenvalues of their covariance.

    What is not defined is NaN: everything but `collapsed` where all features are the same; the plain H-score where
    there are no more images than features, as it is the number of classes less one then; NLEEP where there are fewer
    than 10 images a class; and what needs labels where there is not one for each image, or one class alone.

    Args:
        features: May be memory-mapped.
        labels: (n,) integers in [0, classes), or None.
        classes: C.
        drawn: Positions of the images whose pairs are looked at.
        seed: Of NLEEP's mixture.

    Raises:
        ValueError: If features are not finite, or there are fewer than two images.
    """
    found = dict.fromkeys((*FREE, *OF_LABELS), float("nan"))
    spread = spectrum(features)
    if spread.collapsed == 1:
        return found | {"collapsed": 1.0}, spread.eigenvalues
    own = ("alpha", "participation", "directions_90", "directions_99", "collapsed")
    found |= {name: float(getattr(spread, name)) for name in own}
    some = features[drawn]
    found |= {"rank_me": rank_me(features), "uniformity": uniformity(some)}
    if labels is not None and (present := len(np.unique(labels))) > 1:
        found |= {
            "class_alignment": class_alignment(some, labels[drawn]),
            "log_me": log_me(features, labels, classes),
            "h_score_regularised": h_score(features, labels, classes, regularised=True),
        }
        if len(features) > features.shape[1]:
            found["h_score"] = h_score(features, labels, classes)
        if len(features) >= _SHARE * COMPONENTS * present:
            found["nleep"] = nleep(features, labels, classes, seed)
    return found, spread.eigenvalues
