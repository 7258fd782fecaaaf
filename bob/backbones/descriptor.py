"""A copy-detection descriptor on a timm ResNet: generalised mean, linear layer, unit length."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

_SMALLEST = 1e-6  # below it a power has no useful gradient; the paper's code has the same floor


class GeneralizedMean(nn.Module):
    """The p-mean over the positions of a map, (B, C, H, W) -> (B, C).

    After Radenović et al., "Fine-tuning CNN image retrieval with no human annotation" (arXiv 1711.02512).

    Args:
        p: 1 is the average; the larger, the nearer to the maximum.
    """

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Pool a batch."""
        return maps.clamp(min=_SMALLEST).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


class UnitLinear(nn.Linear):
    """A linear layer whose outputs have length one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C) -> (B, D)."""
        return F.normalize(super().forward(x))


def add_descriptor(model: Any, width: int) -> None:
    """Give a timm ResNet the head of SSCD (arXiv 2202.10261; facebookresearch/sscd-copy-detection), untrained.

    Args:
        model: With `global_pool`, `fc` and `num_features`.
        width: D of the descriptor.

    Raises:
        AttributeError: If it is no such model.
    """
    if not isinstance(getattr(model, "fc", None), nn.Module) or not hasattr(model, "global_pool"):
        raise AttributeError("it has no `global_pool` and `fc`")
    model.global_pool, model.fc = GeneralizedMean(), UnitLinear(model.num_features, width)
