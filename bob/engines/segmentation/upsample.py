"""From coarse logits to the class of each pixel of the original image, in bounded memory."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_MOST = 2**25  # numbers in the upsampled logits of some rows: 128 MiB


def pixel_classes(
    logits: torch.Tensor, size: tuple[int, int], original: tuple[int, int], stride: int, most: int = _MOST
) -> torch.Tensor:
    """Upsample logits bilinearly to the original image, in one step, and take the largest.

    A pixel's centre keeps its place: pixel y of the original lies at (y + 0.5) h / H of the input, and at that divided
    by the stride on the grid of logits. Beyond the outermost centres their logits hold.

    Args:
        logits: (C, ceil(h / stride), ceil(w / stride)).
        size: (h, w), of the input.
        original: (H, W), of the original image.
        stride: Of the logits, in pixels of the input.
        most: Most numbers to hold at a time, if one row of pixels has no more.

    Returns:
        (H, W) int16.
    """
    rows, columns = (
        _places(wanted, have / wanted / stride, cells, logits.device)
        for wanted, have, cells in zip(original, size, logits.shape[-2:], strict=True)
    )
    found = torch.empty(original, dtype=torch.int16, device=logits.device)
    together = max(1, most // (len(logits) * len(columns)))
    for first in range(0, len(rows), together):
        some = rows[first : first + together]
        grid = torch.stack([columns.expand(len(some), -1), some[:, None].expand(-1, len(columns))], dim=-1)
        full = F.grid_sample(
            logits.float()[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
        )
        found[first : first + together] = full[0].argmax(dim=0).to(torch.int16)
    return found


def _places(wanted: int, step: float, cells: int, device: torch.device) -> torch.Tensor:
    """Where pixels lie on an axis of so many cells, which `grid_sample` has from -1 to 1."""
    return (torch.arange(wanted, device=device, dtype=torch.float64).add(0.5) * (2 * step / cells) - 1).float()
