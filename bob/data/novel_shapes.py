"""Outliers for `shapes`, drawn by bob itself: silhouettes of other outlines, backgrounds without any, and noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from bob.data import silhouettes
from bob.data.rendered import Recipe, RenderedImages, check_seed, ensure_rendered, open_table, rows_of
from bob.data.shapes import SIZE
from bob.data.silhouettes import Pose

VERSION = 1
"""Raised whenever the same seed would give other images."""

COUNTS = {"novel": 300, "backgrounds": 300, "noise": 300}
"""Number of images of each set, in the order in which they are stored."""

SOURCES = {f"shapes_{name}": name for name in COUNTS}
"""What a task card calls each set."""

_SCALES, _CENTRES = (0.26 * SIZE, 0.4 * SIZE), (0.4, 0.6)  # as in `shapes`


def _regular(corners: int, turn: float = 0.0) -> np.ndarray:
    angles = (np.arange(corners) + turn) * 2 * math.pi / corners - math.pi / 2
    return np.column_stack([np.cos(angles), np.sin(angles)])


def _propeller() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 240, endpoint=False)
    radius = 0.12 + 0.88 * np.abs(np.cos(1.5 * t)) ** 1.5
    return np.column_stack([radius * np.cos(t), radius * np.sin(t)])


def _mushroom() -> np.ndarray:
    t = np.linspace(math.pi, 2 * math.pi, 90)
    cap = np.column_stack([np.cos(t), np.sin(t)])
    return np.concatenate([cap, [[0.28, 0], [0.28, 0.9], [-0.28, 0.9], [-0.28, 0]]])


def _ellipse() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 120, endpoint=False)
    return np.column_stack([np.cos(t), 0.55 * np.sin(t)])


_OUTLINES: dict[str, np.ndarray] = {
    "triangle": _regular(3),
    "hexagon": _regular(6),
    "square": _regular(4, 0.5),
    "kite": np.array([[0, -0.7], [0.6, -0.2], [0, 1], [-0.6, -0.2]]),
    "crown": np.array([[-1, 0.6], [-1, -0.6], [-0.5, 0], [0, -0.8], [0.5, 0], [1, -0.6], [1, 0.6]]),
    "bolt": np.array([[0.3, -1], [-0.6, 0.15], [-0.05, 0.15], [-0.3, 1], [0.6, -0.25], [0.05, -0.25]]),
    "hourglass": np.array([[-0.8, -1], [0.8, -1], [0.12, 0], [0.8, 1], [-0.8, 1], [-0.12, 0]]),
    "chevron": np.array([[-1, -0.6], [0, 0.1], [1, -0.6], [1, 0], [0, 0.7], [-1, 0]]),
    "mushroom": _mushroom(),
    "propeller": _propeller(),
    "ellipse": _ellipse(),
}

NOVEL: tuple[str, ...] = tuple(_OUTLINES)
"""Names of the outlines; none is one of `silhouettes.CLASSES`."""


class OutlierImages(RenderedImages):
    """The images of one set, memory-mapped; all labels are 0 and mean nothing.

    Attributes:
        table: A row for each image; `outline` names what it shows, if anything.

    Args:
        folder: A folder made by `load_outliers`.
        split: One of `COUNTS`.
    """

    source = "shapes_outliers"

    def __init__(self, folder: Path, split: str) -> None:
        # Not the parent's, which wants the photograph behind each image: noise has none.
        self.folder, self.split = folder, split
        self.table = open_table(folder, split)
        self.labels = np.zeros(len(self.table), dtype=np.int64)
        self.names = [f"{self.source}/{split}/{index:05d}" for index in self.table["index"]]
        self._rows = rows_of(COUNTS, split)
        self._images = self._open("images")


def load_outliers(source: str, seed: int = 0) -> OutlierImages:
    """Return one of the three sets of 300 images, 96 px: `shapes_novel`, `shapes_backgrounds` or `shapes_noise`.

    They are drawn at the first call and kept under `bob.places.home()`.

    Args:
        source: One of `SOURCES`.
        seed: Seed of everything random.

    Raises:
        UserError: If `seed` is not a non-negative integer, or the cache cannot be written.
    """
    seed = check_seed(seed)
    folder = ensure_rendered(Recipe(OutlierImages.source, VERSION, seed, ("images",), partial(_render_all, seed)))
    return OutlierImages(folder, SOURCES[source])


def draw_novel(rng: np.random.Generator, index: int) -> tuple[np.ndarray, str]:
    """Draw an image as `shapes` are drawn, but of outline `index % 11` of `NOVEL`: uint8 (96, 96, 3), and its name."""
    name = NOVEL[index % len(NOVEL)]
    background, _ = silhouettes.draw_background(rng, SIZE, SIZE)
    fill, _ = silhouettes.draw_fill(rng, SIZE, SIZE)
    pose = silhouettes.draw_pose(rng, SIZE, SIZE, _SCALES, _CENTRES)
    light = silhouettes.draw_light(rng)
    alpha = silhouettes.coverage(_placed(_OUTLINES[name], pose), SIZE, SIZE)
    return silhouettes.expose(rng, silhouettes.paint(background, fill, alpha), light), name


def draw_backgrounds(rng: np.random.Generator, index: int) -> tuple[np.ndarray, str]:
    """Draw what lies behind the silhouettes, and no silhouette."""
    background, _ = silhouettes.draw_background(rng, SIZE, SIZE)
    return silhouettes.expose(rng, background, silhouettes.draw_light(rng)), ""


def draw_noise(rng: np.random.Generator, index: int) -> tuple[np.ndarray, str]:
    """Draw coloured noise of a random grain, from single pixels to a quarter of the image."""
    cells = round(SIZE / 2 ** rng.uniform(0, math.log2(SIZE / 4)))
    mean, spread = rng.uniform(60, 195, size=3), rng.uniform(20, 70)
    coarse = np.clip(mean + spread * rng.standard_normal((cells, cells, 3)), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)), ""


_DRAW: dict[str, Callable[[np.random.Generator, int], tuple[np.ndarray, str]]] = {
    "novel": draw_novel,
    "backgrounds": draw_backgrounds,
    "noise": draw_noise,
}


def _placed(points: np.ndarray, pose: Pose) -> np.ndarray:
    """The polygon of an outline in a pose, centred and brought to reach 1 first, as those of the classes are."""
    centred = points - (points.min(axis=0) + points.max(axis=0)) / 2
    reach = np.linalg.norm(centred, axis=1).max()
    angle = math.radians(pose.angle)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    shape = np.diag([pose.stretch, 1 / pose.stretch]) @ turn * pose.scale / reach
    placed: np.ndarray = centred @ shape + [pose.centre_x, pose.centre_y]
    return placed


def _render_all(seed: int) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    images, rows = [], []
    for number, (name, count) in enumerate(COUNTS.items()):
        for index in range(count):
            # A first number that no version of `shapes` has, so that no background is drawn twice.
            image, outline = _DRAW[name](np.random.default_rng([10_000 + VERSION, seed, number, index]), index)
            images.append(image)
            rows.append({"split": name, "index": index, "outline": outline})
    return {"images": np.stack(images)}, pd.DataFrame(rows)
