"""A contact sheet of what the backbone really sees: each image before, after the crop, and as the numbers it gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from bob import places
from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.check.base import natural_images
from bob.data.shapes import load_shapes
from bob.errors import UserError

CELL, GAP, LINE = 224, 12, 16
RANGE = 2.5
"""Normalised values from -RANGE to RANGE are shown from black to white, whatever the normalisation."""


def require_png(path: Path) -> Path:
    """Return the path of a sheet to be.

    Raises:
        UserError: If the name is not that of a PNG.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"Expected --sheet to end in .png, but got {path}.", "Give NAME.png.")
    return path


def write_sheet(backbone: Backbone, path: Path) -> None:
    """Write the sheet as a PNG, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    sheet = draw_sheet(backbone.preprocess, examples(), backbone.card.name)
    with places.atomic_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def examples() -> list[torch.Tensor]:
    """Images of many forms: landscape, portrait, panorama, a ring in a frame, and two shapes; uint8 (3, H, W)."""
    china, flower = natural_images()[:2]
    shapes = load_shapes().splits["test"].images
    return [china, flower[:, :, 240:440], china[:, 120:300], _ring(), shapes.read(0), shapes.read(4)]


def draw_sheet(preprocess: Preprocess, images: list[torch.Tensor], title: str) -> Image.Image:
    """Draw a row for each image: as it is, as it is cropped (uint8), and as the network gets it.

    Args:
        preprocess: The backbone's.
        images: uint8 (3, H, W), any sizes.
        title: Stands at the top.
    """
    head = [title, *_captions(preprocess)]
    top = GAP + LINE * (len(head) + 1)
    width = 3 * CELL + 4 * GAP
    sheet = Image.new("RGB", (width, top + len(images) * (CELL + LINE + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(head):
        pen.text((GAP, GAP + number * LINE), line.encode("ascii", "replace").decode(), fill="black")
    for row, image in enumerate(images):
        cropped = preprocess.crop(image)
        seen = preprocess.normalize(cropped[None])[0]
        cells = [
            (image, f"image {_size(image)}"),
            (cropped, f"cropped {_size(cropped)}"),
            (
                displayed(seen),
                f"input, {float(seen.min()):.2f} to {float(seen.max()):.2f}, mean {float(seen.mean()):.2f}",
            ),
        ]
        for column, (pixels, caption) in enumerate(cells):
            left, upper = GAP + column * (CELL + GAP), top + row * (CELL + LINE + GAP)
            sheet.paste(_thumbnail(pixels), (left, upper))
            pen.text((left, upper + CELL + 1), caption, fill="black")
    return sheet


def displayed(normalised: torch.Tensor) -> torch.Tensor:
    """Map -RANGE..RANGE to 0..255, so that a wrong normalisation looks wrong: float (3, h, w) -> uint8."""
    return ((normalised + RANGE) * (255 / (2 * RANGE))).round().clamp(0, 255).to(torch.uint8)


def _captions(preprocess: Preprocess) -> list[str]:
    height, width = preprocess.size
    return [
        f"{height} x {width}, {preprocess.crop_mode}, crop {preprocess.crop_fraction:g}, {preprocess.interpolation}",
        f"mean {_numbers(preprocess.mean)}, std {_numbers(preprocess.std)}",
        f"right: what the network gets, -{RANGE} black, {RANGE} white, in each channel",
    ]


def _thumbnail(pixels: torch.Tensor) -> Image.Image:
    """The image inside a square cell, enlarged without smoothing or shrunk with it."""
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    scale = CELL / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    cell = Image.new("RGB", (CELL, CELL), (230, 230, 230))
    cell.paste(picture.resize(size, method), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def _ring() -> torch.Tensor:
    """A ring and a red frame on grey, 240 x 320: it shows what is squashed and what is cut off."""
    picture = Image.new("RGB", (320, 240), (128, 128, 128))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, 319, 239), outline=(255, 0, 0), width=6)
    pen.ellipse((70, 30, 250, 210), outline=(255, 255, 255), width=8)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _size(image: torch.Tensor) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
