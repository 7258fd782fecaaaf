"""Histograms of colours and of gradient directions."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class ColourHistogram(nn.Module):
    """Soft histogram of each colour channel over the whole image: (B, 3, H, W) -> (B, 3 * bins)."""

    def __init__(self, bins: int = 16) -> None:
        super().__init__()
        # Normalised images lie between about -2.2 and 2.7.
        self.register_buffer("centres", torch.linspace(-2.2, 2.7, bins))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        distance = images.flatten(2)[..., None] - self.centres
        width = self.centres[1] - self.centres[0]
        return torch.clamp(1 - distance.abs() / width, min=0).mean(dim=2).flatten(1)


class GradientHistogram(nn.Module):
    """Histogram of unsigned gradient directions in cells, (B, 3, H, W) -> (B, directions, cells, cells) flattened.

    After Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005, without their
    normalisation over blocks of cells.
    """

    def __init__(self, directions: int = 9, cells: int = 8) -> None:
        super().__init__()
        self.directions, self.cells = directions, cells
        self.register_buffer("slope", torch.tensor([[-1.0, 0.0, 1.0]]).view(1, 1, 1, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = images.mean(dim=1, keepdim=True)
        dx = F.conv2d(grey, self.slope, padding=(0, 1))
        dy = F.conv2d(grey, self.slope.transpose(2, 3), padding=(1, 0))
        angle = torch.atan2(dy, dx) % math.pi
        which = (angle / math.pi * self.directions).long().clamp(max=self.directions - 1)
        votes = F.one_hot(which[:, 0], self.directions).permute(0, 3, 1, 2) * torch.hypot(dx, dy)
        pooled = F.adaptive_avg_pool2d(votes, self.cells)
        return F.normalize(pooled.flatten(1), dim=1)


def colour_histogram() -> nn.Module:
    """Make the backbone of the entry point `colour_histogram`."""
    return ColourHistogram()


def gradient_histogram() -> nn.Module:
    """Make the backbone of the card `gradient_histogram`."""
    return GradientHistogram()
