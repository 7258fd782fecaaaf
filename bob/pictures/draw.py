"""Drawing boxes, masks and class maps over an image, in colours that stay apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bob.data.objects import IGNORE, RLE, decode_masks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRONGEST = 0.55  # how much of a mask's colour covers the image
# Okabe and Ito's, which colour-blind people tell apart, without black and yellow, which many images have much of.
_BASE = ((0.90, 0.62, 0), (0.34, 0.71, 0.91), (0, 0.62, 0.45), (0, 0.45, 0.70), (0.84, 0.37, 0), (0.80, 0.47, 0.65))
_GREY = (0.5, 0.5, 0.5)


def colours(count: int) -> np.ndarray:
    """(count, 3) floats from 0 to 1, RGB; beyond the first six they are lighter and darker again."""
    shades = np.array([_BASE[index % len(_BASE)] for index in range(count)])
    rounds = np.arange(count)[:, None] // len(_BASE)
    lighter = shades + (1 - shades) * 0.5
    return np.where(rounds % 3 == 1, lighter, np.where(rounds % 3 == 2, shades * 0.6, shades))


def draw_objects(
    axes: Axes,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    scores: np.ndarray | None = None,
    rles: Sequence[RLE] | None = None,
) -> None:
    """Draw an image with a box, a mask if there is one, the class and the score of each object.

    Args:
        axes: Where to draw.
        image: (H, W, 3) uint8.
        boxes: (k, 4) left, top, right, bottom in pixels.
        labels: (k,) classes.
        classes: Names of all classes.
        scores: (k,); None for ground truth.
        rles: A mask for each object.
    """
    palette = colours(len(classes))
    shown = image.astype(float) / 255
    for mask, label in zip(decode_masks(tuple(rles or ()), image.shape[:2]), labels, strict=False):
        shown[mask] = shown[mask] * (1 - _STRONGEST) + palette[label] * _STRONGEST
    _show(axes, shown)
    for row, (left, top, right, bottom) in enumerate(boxes):
        colour = tuple(palette[labels[row]])
        corners = [left, right, right, left, left], [top, top, bottom, bottom, top]
        axes.plot(*corners, color=colour, linewidth=1.5)
        text = classes[labels[row]] + ("" if scores is None else f" {scores[row]:.2f}")
        style = {"facecolor": colour, "edgecolor": "none", "alpha": 0.85, "pad": 1}
        axes.text(left, top, text, fontsize=6, color="black", verticalalignment="bottom", bbox=style)


def draw_classes(axes: Axes, image: np.ndarray, map_: np.ndarray, classes: Sequence[str]) -> None:
    """Draw an image under the colours of its pixels' classes, which a legend names; ignored pixels are grey.

    Args:
        axes: Where to draw.
        image: (H, W, 3) uint8.
        map_: (H, W) integers, a class or `IGNORE`.
        classes: Names of all classes.
    """
    palette = np.vstack([colours(len(classes)), _GREY])  # IGNORE, as an index, is the last
    _show(axes, image / 255 * (1 - _STRONGEST) + palette[map_] * _STRONGEST)
    present, counts = np.unique(map_, return_counts=True)
    for label in present[np.argsort(-counts)][:8]:
        name = "ignored" if label == IGNORE else classes[label]
        axes.plot([], [], color=tuple(palette[label]), linewidth=4, label=name)
    axes.legend(fontsize=5, loc="lower right", framealpha=0.7)


def draw_label(axes: Axes, image: np.ndarray, text: str) -> None:
    """Draw an image (H, W, 3) uint8 with a line of text above it."""
    _show(axes, image)
    axes.set_title(text, fontsize=7)


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)
    axes.set_axis_off()
