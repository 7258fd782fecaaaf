"""The built-in data set `shapes`: ten silhouettes, with exact masks, boxes and the factors that made each image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from bob.data import silhouettes
from bob.data.base import Dataset, Split
from bob.data.rendered import Recipe, RenderedImages, check_seed, ensure_rendered
from bob.data.silhouettes import CLASSES, PHOTOS

VERSION = 1
"""Raised whenever the same seed would give other images or factors."""

SIZE = 96
"""Height and width of every image, in pixels."""

SPLITS = {"train": 800, "val": 200, "test": 600}
"""Number of images per split, in the order in which they are stored."""

_BOX = ["x0", "y0", "x1", "y1"]
_NOT_FACTORS = ["index", "label", "class", *_BOX]
_SCALES = (0.26 * SIZE, 0.4 * SIZE)
_CENTRES = (0.4, 0.6)


class ShapesImages(RenderedImages):
    """The images of one split of a rendered `shapes`, memory-mapped; what is pickled is only where they lie.

    Attributes:
        groups: (n,) int64, the photograph behind: 0 `china`, 1 `flower`. It is drawn independently of the class, so a
            worst group far below the mean tells of the backbone.
        masks: (n, 96, 96) uint8, 1 on the silhouette and 0 elsewhere.
        boxes: (n, 4) int64, the masks' extents (x0, y0, x1, y1) in pixels, ends exclusive.
        factors: n rows, the factors that made each image; `bob.data.silhouettes` says what they mean.

    Args:
        folder: A folder made by `load_shapes`.
        split: `train`, `val` or `test`.
    """

    source = "shapes"

    def __init__(self, folder: Path, split: str) -> None:
        super().__init__(folder, split, SPLITS)
        self.masks = self._open("masks")
        self.labels = self.table["label"].to_numpy(np.int64)
        self.boxes = self.table[_BOX].to_numpy(np.int64)
        self.factors = self.table.drop(columns=_NOT_FACTORS)


def load_shapes(seed: int = 0) -> Dataset:
    """Return the built-in data set: 800 train, 200 val and 600 test images of ten classes, balanced in each split.

    It is drawn at the first call (a few seconds) and kept under `bob.places.home()`.

    Args:
        seed: Seed of everything random. Another seed gives other images of the same kind.

    Raises:
        UserError: If `seed` is not a non-negative integer, or the cache cannot be written.
    """
    seed = check_seed(seed)
    folder = ensure_rendered(Recipe("shapes", VERSION, seed, ("images", "masks"), partial(_render_all, seed)))
    splits = {name: Split(ShapesImages(folder, name), np.arange(count)) for name, count in SPLITS.items()}
    return Dataset("shapes", CLASSES, splits, {"splits": "generated", "seed": seed, "version": VERSION}, PHOTOS)


@dataclass(frozen=True)
class Drawing:
    """One image as drawn.

    Attributes:
        image: (96, 96, 3) uint8, RGB.
        mask: (96, 96) bool, the pixels of which the silhouette covers at least half.
        row: Its row of the table: split, index, label, class, box and factors.
    """

    image: np.ndarray
    mask: np.ndarray
    row: dict[str, object]


def draw(seed: int, split: str, index: int) -> Drawing:
    """Draw image `index` of a split, the same whether or not any other is drawn; its label is `index % 10`."""
    rng = np.random.default_rng([VERSION, seed, list(SPLITS).index(split), index])
    label = index % len(CLASSES)
    background, background_texture = silhouettes.draw_background(rng, SIZE, SIZE)
    fill, fill_texture = silhouettes.draw_fill(rng, SIZE, SIZE)
    pose = silhouettes.draw_pose(rng, SIZE, SIZE, _SCALES, _CENTRES)
    light = silhouettes.draw_light(rng)
    alpha = silhouettes.coverage(pose.place(CLASSES[label]), SIZE, SIZE)
    image = silhouettes.expose(rng, silhouettes.paint(background, fill, alpha), light)
    mask = alpha >= 0.5
    row = {
        **{"split": split, "index": index, "label": label, "class": CLASSES[label]},
        **dict(zip(_BOX, silhouettes.tight_box(mask), strict=True)),
        **{**asdict(pose), **asdict(light)},
        **{**fill_texture.factors("fill"), **background_texture.factors("background")},
        **silhouettes.measured_factors(image, mask),
    }
    return Drawing(image, mask, row)


def _render_all(seed: int) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    drawings = [draw(seed, split, index) for split, count in SPLITS.items() for index in range(count)]
    images = np.stack([drawing.image for drawing in drawings])
    masks = np.stack([drawing.mask for drawing in drawings]).astype(np.uint8)
    return {"images": images, "masks": masks}, pd.DataFrame([drawing.row for drawing in drawings])
