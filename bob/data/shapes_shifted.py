"""The silhouettes of `shapes` drawn in other manners: what a classifier learnt on `shapes` can be tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw

from bob.data import shapes, silhouettes
from bob.data.base import ImageSet
from bob.data.rendered import Recipe, check_seed, content_hash, ensure_rendered, open_array, open_table
from bob.data.silhouettes import CLASSES

VERSION = 1
"""Raised whenever the same seed would give other images."""

COUNTS = {"test": 300}
"""Number of images; each manner has its own."""

_SIZE = shapes.SIZE
_SUPERSAMPLING = 4
_LINE = 10  # thickness of an outline, in pixels of the supersampled canvas
_PAPER = (200.0, 250.0)  # grey levels between which the paper of a drawing lies
_INK = (10.0, 90.0)
_SCALES, _CENTRES = (0.26 * _SIZE, 0.4 * _SIZE), (0.4, 0.6)  # as in `shapes`


class ShiftedShapes(ImageSet):
    """Silhouettes drawn in one manner, memory-mapped; what is pickled is only where they lie.

    Args:
        folder: A folder made by `load_shifted_shapes`.
        source: Name of the manner.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._place = (folder, source)
        self.labels = open_table(folder, "test")["label"].to_numpy(np.int64)
        self.names = [f"{source}/{index:05d}" for index in range(len(self.labels))]
        self._images = open_array(folder, "images", slice(None))
        self._content_hash: str | None = None

    def read(self, index: int) -> torch.Tensor:
        """See `ImageSet.read`; the tensor is the caller's own."""
        return torch.from_numpy(self._images[index].transpose(2, 0, 1).copy())

    def fingerprint(self) -> str:
        """See `ImageSet.fingerprint`."""
        if self._content_hash is None:
            self._content_hash = content_hash(self._images)
        return self._content_hash

    def __reduce__(self) -> tuple[type[ShiftedShapes], tuple[Path, str]]:
        # A pickled memory map would carry all pixels to every worker.
        return type(self), self._place


def load_shifted_shapes(source: str, seed: int = 0) -> tuple[tuple[str, ...], dict[str, ImageSet]]:
    """Return 300 silhouettes of ten classes in one manner, drawn at the first call and kept under `bob.places.home()`.

    Args:
        source: One of `SOURCES`: `shapes_outline` (ink on paper, no texture), `shapes_grey` (as `shapes`, without
            colour) or `shapes_turned` (as `shapes`, upside down).
        seed: Seed of everything random.

    Raises:
        UserError: If `seed` is not a non-negative integer, or the cache cannot be written.
    """
    seed = check_seed(seed)
    folder = ensure_rendered(Recipe(source, VERSION, seed, ("images",), partial(_render, source, seed)))
    return CLASSES, {"test": ShiftedShapes(folder, source)}


def _render(source: str, seed: int) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    draw, number = SOURCES[source], list(SOURCES).index(source)
    labels = [index % len(CLASSES) for index in range(COUNTS["test"])]
    images = [
        draw(np.random.default_rng([VERSION, seed, 1000 + number, index]), CLASSES[label])
        for index, label in enumerate(labels)
    ]
    return {"images": np.stack(images)}, pd.DataFrame({"split": "test", "label": labels})


def _outline(rng: np.random.Generator, name: str) -> np.ndarray:
    """The silhouette's edge in dark ink on light paper."""
    pose = silhouettes.draw_pose(rng, _SIZE, _SIZE, _SCALES, _CENTRES)
    paper, ink = np.full((_SIZE, _SIZE, 3), rng.uniform(*_PAPER)), np.full((_SIZE, _SIZE, 3), rng.uniform(*_INK))
    painted = silhouettes.paint(paper, ink, _edge(pose.place(name)))
    return silhouettes.expose(rng, painted, silhouettes.Light(1.0, 2.0))


def _edge(polygon: np.ndarray) -> np.ndarray:
    """How much of each pixel the line along a polygon covers, (96, 96) in [0, 1]."""
    canvas = Image.new("L", (_SIZE * _SUPERSAMPLING, _SIZE * _SUPERSAMPLING))
    corners = [(float(x), float(y)) for x, y in polygon * _SUPERSAMPLING - 0.5]
    ImageDraw.Draw(canvas).line([*corners, *corners[:2]], fill=255, width=_LINE, joint="curve")
    return np.asarray(canvas.reduce(_SUPERSAMPLING), dtype=np.float32) / 255


def _grey(rng: np.random.Generator, name: str) -> np.ndarray:
    """As `shapes` draws it, without colour (Rec. 601 luma)."""
    luma = np.asarray(Image.fromarray(_textured(rng, name, turn=0.0)).convert("L"))
    return np.repeat(luma[..., None], 3, axis=2)


def _turned(rng: np.random.Generator, name: str) -> np.ndarray:
    """As `shapes` draws it, upside down: turned by 145 to 215 degrees, where `shapes` has -35 to 35."""
    return _textured(rng, name, turn=180.0)


def _textured(rng: np.random.Generator, name: str, turn: float) -> np.ndarray:
    """As `shapes` draws it, turned by so many degrees more."""
    background, _ = silhouettes.draw_background(rng, _SIZE, _SIZE)
    fill, _ = silhouettes.draw_fill(rng, _SIZE, _SIZE)
    pose = silhouettes.draw_pose(rng, _SIZE, _SIZE, _SCALES, _CENTRES)
    light = silhouettes.draw_light(rng)
    alpha = silhouettes.coverage(replace(pose, angle=pose.angle + turn).place(name), _SIZE, _SIZE)
    return silhouettes.expose(rng, silhouettes.paint(background, fill, alpha), light)


SOURCES: dict[str, Callable[[np.random.Generator, str], np.ndarray]] = {
    "shapes_outline": _outline,
    "shapes_grey": _grey,
    "shapes_turned": _turned,
}
"""Manners by name, and what draws one image of them."""
