"""Scenes of several silhouettes that hide each other in part, for detection and segmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bob.data import silhouettes
from bob.data.layout import Layout, Space, draw_layout
from bob.data.rendered import Recipe, check_seed, content_hash, ensure_rendered, open_array, open_table, rows_of
from bob.data.silhouettes import CLASSES

VERSION = 1
"""Raised whenever the same seed would give other scenes or factors."""

HEIGHT, WIDTH = 160, 192
"""Size of every scene, in pixels."""

SPLITS = {"train": 400, "val": 100, "test": 200}
"""Number of scenes per split, in the order in which they are stored."""

MIN_VISIBLE_FRACTION = 0.25
"""Every object shows at least this fraction of its area, ..."""

MIN_VISIBLE_AREA = 40
"""... and at least this many pixels."""

_OBJECTS = (2, 6)
_SPACE = Space(HEIGHT, WIDTH, (0.13 * HEIGHT, 0.28 * HEIGHT), (0.05, 0.95), MIN_VISIBLE_FRACTION, MIN_VISIBLE_AREA)
# Keeps the stream of random numbers apart from that of `shapes` with the same seed, split and index.
_STREAM = 1


@dataclass(frozen=True, eq=False)
class Scenes:
    """One split of the rendered scenes, memory-mapped; what is pickled is only where they lie.

    Attributes:
        folder: Where they lie.
        split: `train`, `val` or `test`.
        images: (n, 160, 192, 3) uint8, RGB.
        instances: (n, 160, 192) uint8: 0 is background, k the k-th object of the scene. Objects are numbered in the
            order in which they were painted, so a higher one hides a lower one.
        objects: One row per object, in order: `image` (position in this split), `instance` (its number in the map),
            `label`, `class`, `x0`, `y0`, `x1`, `y1` (box of the visible part in pixels, ends exclusive),
            `visible_area` and `full_area` (pixels), `occlusion` (hidden fraction of the full area), and its factors.
        classes: Class names; label i is `classes[i]`.
    """

    folder: Path
    split: str
    images: np.ndarray
    instances: np.ndarray
    objects: pd.DataFrame
    classes: tuple[str, ...] = CLASSES

    @property
    def names(self) -> list[str]:
        """What a person calls each scene."""
        return [f"scenes/{self.split}/{index:05d}" for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> torch.Tensor:
        """Return scene `index` as uint8 (3, 160, 192), RGB; the tensor is the caller's own."""
        return torch.from_numpy(self.images[index].transpose(2, 0, 1).copy())

    def objects_of(self, index: int) -> pd.DataFrame:
        """Return the rows of `objects` that belong to scene `index`, in painting order."""
        return self.objects[self.objects["image"] == index]

    def semantic(self, index: int) -> np.ndarray:
        """Return the class of each pixel of scene `index`, (160, 192) uint8: 0 is background, label + 1 an object."""
        labels = self.objects_of(index)["label"].to_numpy()
        values = np.concatenate([[0], labels + 1]).astype(np.uint8)
        semantic: np.ndarray = values[self.instances[index]]
        return semantic

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the bytes of the split's images, in order."""
        return content_hash(self.images)

    def __reduce__(self) -> tuple[Callable[[Path, str], Scenes], tuple[Path, str]]:
        # A pickled memory map would carry all pixels to every worker; a reopened one carries none.
        return _open, (self.folder, self.split)


def load_scenes(seed: int = 0) -> dict[str, Scenes]:
    """Return the splits `train` (400 scenes), `val` (100) and `test` (200), each scene with two to six objects.

    They are drawn at the first call (some seconds) and kept under `bob.places.home()`.

    Args:
        seed: Seed of everything random. Another seed gives other scenes of the same kind.

    Raises:
        UserError: If `seed` is not a non-negative integer, or the cache cannot be written.
    """
    seed = check_seed(seed)
    folder = ensure_rendered(Recipe("scenes", VERSION, seed, ("images", "instances"), partial(_render_all, seed)))
    return {split: _open(folder, split) for split in SPLITS}


def _open(folder: Path, split: str) -> Scenes:
    rows = rows_of(SPLITS, split)
    images, instances = (open_array(folder, name, rows) for name in ("images", "instances"))
    return Scenes(folder, split, images, instances, open_table(folder, split))


@dataclass(frozen=True)
class Drawing:
    """One scene as drawn.

    Attributes:
        image: (160, 192, 3) uint8, RGB.
        instances: (160, 192) uint8, as in `Scenes`.
        rows: One table row per object, in painting order.
    """

    image: np.ndarray
    instances: np.ndarray
    rows: list[dict[str, object]]


def draw(seed: int, split: str, index: int) -> Drawing:
    """Draw scene `index` of a split, the same whether or not any other is drawn."""
    rng = np.random.default_rng([VERSION, seed, list(SPLITS).index(split), index, _STREAM])
    layout = _draw_layout(rng)
    canvas, background = silhouettes.draw_background(rng, HEIGHT, WIDTH)
    fills = []
    for alpha in layout.alphas:
        fill, texture = silhouettes.draw_fill(rng, HEIGHT, WIDTH)
        canvas = silhouettes.paint(canvas, fill, alpha)
        fills.append(texture)
    light = silhouettes.draw_light(rng)
    image = silhouettes.expose(rng, canvas, light)
    shared = {**asdict(light), **background.factors("background")}
    rows = [
        {"split": split, "image": index, **_object_row(layout, k, image), **texture.factors("fill"), **shared}
        for k, texture in enumerate(fills, start=1)
    ]
    return Drawing(image, layout.instances, rows)


def _draw_layout(rng: np.random.Generator) -> Layout:
    # Number and classes are drawn once: were they drawn again too, crowded scenes and small silhouettes would be rarer.
    count = int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))
    labels = [int(label) for label in rng.integers(len(CLASSES), size=count)]
    return draw_layout(rng, labels, _SPACE)


def _object_row(layout: Layout, instance: int, image: np.ndarray) -> dict[str, object]:
    label, visible = layout.labels[instance - 1], layout.instances == instance
    seen, full = layout.areas(instance)
    return {
        **{"instance": instance, "label": label, "class": CLASSES[label]},
        **dict(zip(("x0", "y0", "x1", "y1"), silhouettes.tight_box(visible), strict=True)),
        **{"visible_area": seen, "full_area": full, "occlusion": 1 - seen / full},
        **asdict(layout.poses[instance - 1]),
        **silhouettes.measured_factors(image, visible),
    }


def _render_all(seed: int) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    drawings = [draw(seed, split, index) for split, count in SPLITS.items() for index in range(count)]
    images = np.stack([drawing.image for drawing in drawings])
    instances = np.stack([drawing.instances for drawing in drawings])
    rows = [row for drawing in drawings for row in drawing.rows]
    return {"images": images, "instances": instances}, pd.DataFrame(rows)
