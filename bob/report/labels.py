"""Where the names beside the points of a scatter plot go, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Sides of a point in plotly's words, preferred ones first; where the label's centre lies, in half labels.
SIDES = {
    "middle right": (1, 0),
    "top center": (0, 1),
    "bottom center": (0, -1),
    "middle left": (-1, 0),
    "top right": (1, 1),
    "bottom right": (1, -1),
    "top left": (-1, 1),
    "bottom left": (-1, -1),
}
_CHARACTER, _LINE = 6.6, 15.0  # pixels of a letter's width and of a line's height at 11 to 12 points
_GAP = 7.0  # pixels between a point and its label
_THIN = 2.0  # pixels of half a line's width
_OUTSIDE = 4.0  # how much worse a pixel beyond the edge is than one on another label


def label_sides(x: Floats, y: Floats, names: Sequence[str], lines: Floats, size: tuple[float, float]) -> list[str]:
    """Choose a side for each label, one after the other from left to right, where it covers least.

    Args:
        x: (n,) positions from 0, the left edge, to 1, the right one.
        y: (n,) positions from 0, the bottom, to 1.
        names: n labels.
        lines: (m, 4) x, y of one end and x, y of the other of upright or level lines, such as error bars, in the same
            units; those with a NaN are not there.
        size: Width and height of the plot, in pixels.

    Returns:
        n names of sides, as plotly's `textposition` has them; "" for a label that has no place beside the others.
    """
    points = np.column_stack([x, y]) * size
    marks = np.hstack([points - _GAP, points + _GAP])
    ends = lines[~np.isnan(lines).any(axis=1)].reshape(-1, 2, 2) * size
    thin = np.hstack([ends.min(axis=1) - _THIN, ends.max(axis=1) + _THIN])
    labels = np.empty((0, 4))
    sides = [""] * len(names)
    for index in np.argsort(x, kind="stable"):
        others = np.vstack([np.delete(marks, index, axis=0), thin])
        boxes = {side: _box(points[index], names[index], step) for side, step in SIDES.items()}
        free = {side: box for side, box in boxes.items() if not _overlap(box, labels)}
        if free:
            sides[index] = min(free, key=lambda side: _overlap(boxes[side], others) + _beyond(boxes[side], size))
            labels = np.vstack([labels, boxes[sides[index]]])
    return sides


def _box(point: Floats, name: str, step: tuple[int, int]) -> Floats:
    """Left, bottom, right and top of a label on one side of a point."""
    half = np.array([len(name) * _CHARACTER / 2, _LINE / 2])
    centre = point + np.array(step) * (half + _GAP)
    return np.concatenate([centre - half, centre + half])


def _overlap(box: Floats, others: Floats) -> float:
    """The area of the box that lies on others."""
    inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return float(np.clip(inner, 0, None).prod(axis=1).sum())


def _beyond(box: Floats, size: tuple[float, float]) -> float:
    """The area beyond the edges of the plot, counted more."""
    inside = np.clip(np.minimum(box[2:], size) - np.maximum(box[:2], 0), 0, None).prod()
    return float(_OUTSIDE * ((box[2:] - box[:2]).prod() - inside))
