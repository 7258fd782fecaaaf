"""Where several silhouettes lie in one image, so that enough of each can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bob.data import silhouettes
from bob.data.silhouettes import CLASSES

_ATTEMPTS = 1000


@dataclass(frozen=True)
class Space:
    """What a layout must keep to.

    Attributes:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        scales: Smallest and largest scale of a silhouette, in pixels.
        centres: Smallest and largest centre, as fractions of the side.
        min_visible_fraction: Every object shows at least this fraction of its area, ...
        min_visible_area: ... and at least this many pixels.
    """

    height: int
    width: int
    scales: tuple[float, float]
    centres: tuple[float, float]
    min_visible_fraction: float
    min_visible_area: int


@dataclass(frozen=True)
class Layout:
    """Silhouettes in painting order.

    Attributes:
        labels: Class of each.
        poses: Pose of each.
        alphas: (height, width) float32 in [0, 1] of each: how much of a pixel it covers.
        instances: (height, width) uint8: 0 is background, k the k-th object where nothing hides it.
    """

    labels: list[int]
    poses: list[silhouettes.Pose]
    alphas: list[np.ndarray]
    instances: np.ndarray

    def areas(self, instance: int) -> tuple[int, int]:
        """Return the visible and the full area of an object, in pixels."""
        return int((self.instances == instance).sum()), int((self.alphas[instance - 1] >= 0.5).sum())

    def shows_all(self, space: Space) -> bool:
        """Tell whether enough of every object is visible."""
        areas = [self.areas(k) for k in range(1, len(self.labels) + 1)]
        return all(seen >= max(space.min_visible_area, space.min_visible_fraction * full) for seen, full in areas)


def draw_layout(rng: np.random.Generator, labels: Sequence[int], space: Space) -> Layout:
    """Draw poses for silhouettes of the given classes until enough of each is visible."""
    for _ in range(_ATTEMPTS):
        poses = [silhouettes.draw_pose(rng, space.height, space.width, space.scales, space.centres) for _ in labels]
        alphas = [
            silhouettes.coverage(pose.place(CLASSES[label]), space.height, space.width)
            for label, pose in zip(labels, poses, strict=True)
        ]
        layout = Layout(list(labels), poses, alphas, _instance_map(alphas))
        if layout.shows_all(space):
            return layout
    raise RuntimeError(f"No layout of {len(labels)} objects shows all of them after {_ATTEMPTS} draws.")


def _instance_map(alphas: Sequence[np.ndarray]) -> np.ndarray:
    instances = np.zeros(alphas[0].shape, dtype=np.uint8)
    for k, alpha in enumerate(alphas, start=1):
        instances[alpha >= 0.5] = k
    return instances
