"""The built-in data set `shapes_multilabel`: which of the ten silhouettes, one to four, are in the image."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from bob.data import silhouettes
from bob.data.base import Dataset, Split
from bob.data.layout import Space, draw_layout
from bob.data.rendered import Recipe, RenderedImages, check_seed, ensure_rendered
from bob.data.silhouettes import CLASSES, PHOTOS

VERSION = 1
"""Raised whenever the same seed would give other images or labels."""

SIZE = 96
"""Height and width of every image, in pixels."""

SPLITS = {"train": 900, "val": 300, "test": 600}
"""Number of images per split, in the order in which they are stored."""

_OBJECTS = (1, 4)
_SPACE = Space(SIZE, SIZE, (0.17 * SIZE, 0.26 * SIZE), (0.1, 0.9), min_visible_fraction=0.5, min_visible_area=40)
# Keeps the stream of random numbers apart from those of `shapes` and the scenes with the same seed, split and index.
_STREAM = 2


class MultilabelImages(RenderedImages):
    """The images of one split, memory-mapped; what is pickled is only where they lie.

    Attributes:
        labels: (n, 10) int64, 1 where a silhouette of the class is in the image.
        groups: (n,) int64, the photograph behind: 0 `china`, 1 `flower`.

    Args:
        folder: A folder made by `load_shapes_multilabel`.
        split: `train`, `val` or `test`.
    """

    source = "shapes_multilabel"

    def __init__(self, folder: Path, split: str) -> None:
        super().__init__(folder, split, SPLITS)
        self.labels = self.table[list(CLASSES)].to_numpy(np.int64)


def load_shapes_multilabel(seed: int = 0) -> Dataset:
    """Return the built-in data set: 900 train, 300 val and 600 test images of ten labels.

    Any number from one to four is as likely as another, and so is any class. It is drawn at the first call (a few
    seconds) and kept under `bob.places.home()`.

    Args:
        seed: Seed of everything random. Another seed gives other images of the same kind.

    Raises:
        UserError: If `seed` is not a non-negative integer, or the cache cannot be written.
    """
    seed = check_seed(seed)
    folder = ensure_rendered(Recipe("shapes_multilabel", VERSION, seed, ("images",), partial(_render_all, seed)))
    splits = {name: Split(MultilabelImages(folder, name), np.arange(count)) for name, count in SPLITS.items()}
    facts: dict[str, str | int | float] = {"splits": "generated", "seed": seed, "version": VERSION}
    return Dataset("shapes_multilabel", CLASSES, splits, facts, PHOTOS)


def draw(seed: int, split: str, index: int) -> tuple[np.ndarray, dict[str, object]]:
    """Draw image `index` of a split, the same whether or not any other is drawn.

    Returns:
        The image, (96, 96, 3) uint8, RGB, and its row of the table: split, index, background, 0 or 1 for each class.
    """
    rng = np.random.default_rng([VERSION, seed, list(SPLITS).index(split), index, _STREAM])
    labels = rng.permutation(len(CLASSES))[: int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))].tolist()
    layout = draw_layout(rng, labels, _SPACE)
    canvas, background = silhouettes.draw_background(rng, SIZE, SIZE)
    for alpha in layout.alphas:
        fill, _ = silhouettes.draw_fill(rng, SIZE, SIZE)
        canvas = silhouettes.paint(canvas, fill, alpha)
    image = silhouettes.expose(rng, canvas, silhouettes.draw_light(rng))
    present = {name: int(label in labels) for label, name in enumerate(CLASSES)}
    return image, {"split": split, "index": index, "background_photo": background.photo, **present}


def _render_all(seed: int) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    drawings = [draw(seed, split, index) for split, count in SPLITS.items() for index in range(count)]
    return {"images": np.stack([image for image, _ in drawings])}, pd.DataFrame([row for _, row in drawings])
