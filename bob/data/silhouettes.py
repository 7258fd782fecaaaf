"""The ten silhouettes of the built-in data sets: their outlines, poses, textures and light, drawn at random."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

PHOTOS = ("china", "flower")
"""The two scikit-learn photographs that textures are cut from."""

_SUPERSAMPLING = 4
_FILL_COLOUR_SHARE = 0.5


def _star() -> np.ndarray:
    angles = np.arange(10) * math.pi / 5
    return _polar(angles, np.where(np.arange(10) % 2 == 0, 1.0, 0.42))


def _heart() -> np.ndarray:
    t = _turn()
    lobes = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.column_stack([16 * np.sin(t) ** 3, -lobes])


def _gear() -> np.ndarray:
    # Four corners per tooth: two on the rim, two at the root, flanks slightly sloped.
    offsets = np.array([-0.32, -0.18, 0.18, 0.32])
    angles = (np.arange(9)[:, None] + offsets).ravel() * 2 * math.pi / 9
    return _polar(angles, np.tile([0.74, 1.0, 1.0, 0.74], 9))


def _flower() -> np.ndarray:
    t = _turn()
    return _polar(t, 0.65 + 0.35 * np.cos(5 * t))


def _crescent() -> np.ndarray:
    # The unit disc less a disc of radius r about (d, 0); both arcs end where the two circles meet.
    r, d = 0.78, 0.45
    meet = (1 + d**2 - r**2) / (2 * d)
    outer, inner = math.acos(meet), math.acos((meet - d) / r)
    rim = _polar(np.linspace(outer, 2 * math.pi - outer, 90), 1.0)
    hollow = _polar(np.linspace(2 * math.pi - inner, inner, 90), r) + np.array([d, 0])
    return np.concatenate([rim, hollow])


def _arrow() -> np.ndarray:
    return np.array([[-1, -0.25], [0.2, -0.25], [0.2, -0.7], [1, 0], [0.2, 0.7], [0.2, 0.25], [-1, 0.25]])


def _cross() -> np.ndarray:
    arm = np.array([[0.3, -1], [0.3, -0.3], [1, -0.3]])
    quarter_turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter_turn, k) for k in range(4)])


def _house() -> np.ndarray:
    return np.array([[-0.8, 1], [-0.8, -0.1], [0, -1], [0.8, -0.1], [0.8, 1]])


def _fish() -> np.ndarray:
    t = np.linspace(0.35, 2 * math.pi - 0.35, 120)
    body = np.column_stack([0.7 * np.cos(t) - 0.2, 0.5 * np.sin(t)])
    return np.concatenate([body, [[1, -0.6], [0.75, 0], [1, 0.6]]])


def _drop() -> np.ndarray:
    t = _turn()
    return np.column_stack([np.sin(t) * np.sin(t / 2) ** 1.5, -np.cos(t)])


def _turn() -> np.ndarray:
    return np.linspace(0, 2 * math.pi, 240, endpoint=False)


def _polar(angles: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
    return np.column_stack([radius * np.cos(angles), radius * np.sin(angles)])


_OUTLINES: dict[str, Callable[[], np.ndarray]] = {
    "star": _star,
    "heart": _heart,
    "gear": _gear,
    "flower": _flower,
    "crescent": _crescent,
    "arrow": _arrow,
    "cross": _cross,
    "house": _house,
    "fish": _fish,
    "drop": _drop,
}

CLASSES: tuple[str, ...] = tuple(_OUTLINES)
"""Names of the ten silhouettes; label i is `CLASSES[i]`."""


@cache
def outline(name: str) -> np.ndarray:
    """Return the upright outline of a silhouette as a polygon, (k, 2) float64 of x and y, y pointing down.

    It is centred on its bounding box and its farthest corner lies at distance 1, so that how far a posed silhouette
    reaches tells nothing about its class.
    """
    points = _OUTLINES[name]().astype(np.float64)
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    points /= np.linalg.norm(points, axis=1).max()
    points.flags.writeable = False  # it is shared by every caller
    return points


@dataclass(frozen=True)
class Pose:
    """Where and how a silhouette lies in the image.

    Attributes:
        angle: Clockwise rotation, in degrees.
        scale: Distance of the farthest corner from the centre before stretching, in pixels.
        stretch: Factor on the silhouette's own width; its height is divided by it, so the area stays.
        centre_x: Centre, in pixels from the left edge.
        centre_y: Centre, in pixels from the top edge.
    """

    angle: float
    scale: float
    stretch: float
    centre_x: float
    centre_y: float

    def place(self, name: str) -> np.ndarray:
        """Return the polygon of silhouette `name` in this pose, (k, 2) float64 of x and y in pixels."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        stretched = outline(name) * [self.stretch, 1 / self.stretch]
        turned: np.ndarray = stretched @ np.array([[cos, sin], [-sin, cos]])
        return turned * self.scale + [self.centre_x, self.centre_y]


def draw_pose(
    rng: np.random.Generator, height: int, width: int, scales: tuple[float, float], centres: tuple[float, float]
) -> Pose:
    """Draw a pose in which any silhouette lies wholly inside an image of `height` x `width` pixels.

    Args:
        rng: Source of chance.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        scales: Smallest and largest scale, in pixels; at most 0.4 of the shorter side, or some poses would not fit.
        centres: Smallest and largest centre, as fractions of the side; narrowed where the silhouette would stick out.
    """
    angle = rng.uniform(-35, 35)
    scale = rng.uniform(*scales)
    stretch = rng.uniform(0.8, 1.25)
    reach = scale * max(stretch, 1 / stretch)
    x, y = (rng.uniform(max(centres[0] * s, reach), min(centres[1] * s, s - reach)) for s in (width, height))
    return Pose(angle, scale, stretch, x, y)


def coverage(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the fraction of each pixel that a polygon covers, (height, width) float32 in [0, 1]."""
    # Pillow counts a pixel's centre as whole number, the polygon counts its left edge: hence half a pixel.
    corners = polygon * _SUPERSAMPLING - 0.5
    canvas = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in corners], fill=255)
    return np.asarray(canvas.reduce(_SUPERSAMPLING), dtype=np.float32) / 255


@dataclass(frozen=True)
class Texture:
    """A crop of a photograph with a colour cast.

    Attributes:
        photo: Which of `PHOTOS`.
        x: Left edge of the crop, in pixels of the photograph.
        y: Top edge of the crop.
        size: Width of the crop; its height follows from the image it fills. A wide crop makes a fine texture.
        red: Strength of the red cast; what it does depends on how the texture is used. Likewise green and blue.
    """

    photo: str
    x: int
    y: int
    size: int
    red: float
    green: float
    blue: float

    @property
    def colour(self) -> np.ndarray:
        """The cast as (3,) float32."""
        return np.array([self.red, self.green, self.blue], dtype=np.float32)

    def factors(self, role: str) -> dict[str, object]:
        """Return the attributes as table columns, each prefixed with `role`."""
        return {f"{role}_{name}": value for name, value in asdict(self).items()}

    def crop(self, height: int, width: int) -> np.ndarray:
        """Return the crop resized to the image, (height, width, 3) float32 in [0, 255], without the cast."""
        box = (self.x, self.y, self.x + self.size, self.y + _crop_height(self.size, height, width))
        photo = _photos()[self.photo]
        return np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC, box=box), dtype=np.float32)


def draw_texture(rng: np.random.Generator, height: int, width: int, cast: tuple[float, float]) -> Texture:
    """Draw a texture for an image of `height` x `width` pixels, its cast uniform per channel between two strengths."""
    photo = PHOTOS[int(rng.integers(len(PHOTOS)))]
    size = int(rng.integers(60, 300))
    room_x = _photos()[photo].width - size
    room_y = _photos()[photo].height - _crop_height(size, height, width)
    x, y = int(rng.integers(0, room_x)), int(rng.integers(0, room_y))
    red, green, blue = (float(c) for c in rng.uniform(*cast, 3))
    return Texture(photo, x, y, size, red, green, blue)


def draw_background(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, Texture]:
    """Draw a background: its pixels, (height, width, 3) float32 in [0, 255], and its texture (cast: channel gains)."""
    texture = draw_texture(rng, height, width, cast=(0.6, 1.3))
    return np.clip(texture.crop(height, width) * texture.colour, 0, 255), texture


def draw_fill(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, Texture]:
    """Draw a fill: its pixels, (height, width, 3) float32 in [0, 255], and its texture (cast: the colour mixed in)."""
    texture = draw_texture(rng, height, width, cast=(0, 255))
    mixed = (1 - _FILL_COLOUR_SHARE) * texture.crop(height, width) + _FILL_COLOUR_SHARE * texture.colour
    return mixed, texture


def paint(canvas: np.ndarray, fill: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay `fill` over `canvas`, both (H, W, 3), where `alpha`, (H, W) in [0, 1], says how much of it."""
    painted: np.ndarray = canvas + (fill - canvas) * alpha[..., None]
    return painted


@dataclass(frozen=True)
class Light:
    """How a scene is exposed.

    Attributes:
        brightness: Factor on all pixel values.
        noise: Standard deviation of the sensor noise, in grey levels of 255.
    """

    brightness: float
    noise: float


def draw_light(rng: np.random.Generator) -> Light:
    """Draw brightness and noise."""
    return Light(rng.uniform(0.6, 1.2), rng.uniform(2, 10))


def expose(rng: np.random.Generator, canvas: np.ndarray, light: Light) -> np.ndarray:
    """Turn a painted canvas, (H, W, 3) float32, into the uint8 image that a camera would give."""
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(canvas * light.brightness + noise * light.noise, 0, 255).round().astype(np.uint8)


def measured_factors(image: np.ndarray, mask: np.ndarray) -> dict[str, object]:
    """Return what the finished image says of an object: how it stands out, how patterned it and its background are.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (H, W), neither empty nor full.

    Returns:
        `contrast` (mean luminance of the object less that of the rest, in [-1, 1]), `fill_pattern` and
        `background_clutter` (standard deviations of luminance inside and outside). Luminance is Rec. 601 luma.
    """
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    inside, outside = grey[mask], grey[~mask]
    return {
        "contrast": float(inside.mean() - outside.mean()),
        "fill_pattern": float(inside.std()),
        "background_clutter": float(outside.std()),
    }


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the extent (x0, y0, x1, y1) of a non-empty bool (H, W) mask, in pixels, ends exclusive."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _crop_height(size: int, height: int, width: int) -> int:
    return size * height // width


@cache
def _photos() -> dict[str, Image.Image]:
    # scikit-learn takes about a second to import, and a rendered data set is read without it.
    from sklearn.datasets import load_sample_image

    return {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in PHOTOS}
