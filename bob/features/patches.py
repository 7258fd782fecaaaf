"""Fixed-scale crops on an even grid, the same for every image, so that their features can be averaged."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from bob.backbones.preprocess import Preprocess
from bob.errors import UserError

MOST = 400  # crops of an image; each costs what an image costs
SCALE = 0.5  # side of a crop as a share of the image's


def check_patches(patches: int) -> None:
    """Fail unless the crops form a square grid.

    Raises:
        UserError: If the number is no square from 1 to 400.
    """
    if patches > MOST:
        raise UserError(f"{patches} patches of every image are too many.", f"Take patches{MOST} or fewer.")
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        raise UserError(f"Expected a square number of patches (4, 9, 16, ...), but got {patches}.", "Take patches9.")


def crop_patches(image: torch.Tensor, preprocess: Preprocess, patches: int) -> torch.Tensor:
    """Crop an even grid of patches, half as high and wide as the image, each resized to the network's input.

    Args:
        image: uint8 (3, H, W).
        preprocess: Gives size and interpolation; each patch is used whole, without a further centre crop.
        patches: A square number.

    Returns:
        uint8 (patches, 3, h, w).

    Source: Chen et al. 2022, BagSSL (arXiv 2206.08954), section 3, which draws the positions at random; a grid needs
        fewer patches for the same cover, and is the same on every machine.
    """
    side = math.isqrt(patches)
    whole = replace(preprocess, crop_fraction=1.0, crop_mode="squash")
    height, width = (max(1, round(SCALE * edge)) for edge in image.shape[-2:])
    tops, lefts = (_starts(edge, part, side) for edge, part in zip(image.shape[-2:], (height, width), strict=True))
    return torch.stack(
        [whole.crop(image[:, top : top + height, left : left + width]) for top in tops for left in lefts]
    )


def _starts(edge: int, part: int, count: int) -> list[int]:
    """Even positions from one end to the other; the middle for a single one."""
    if count == 1:
        return [(edge - part) // 2]
    return [round(i * (edge - part) / (count - 1)) for i in range(count)]
