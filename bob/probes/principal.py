"""Training features standardised and turned to their principal directions, in which linear probes are solved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from bob.probes.base import check_features, to_tensor


@dataclass(frozen=True)
class PrincipalFeatures:
    """The training data along the directions in which they vary; at most min(n, D) of them.

    A penalty on the length of the weights does not change under rotation, and the solution of a penalised linear model
    lies in the span of the images, so nothing is lost.

    Attributes:
        x: (n, r), float64 (float32 on a device without it).
        basis: (D, r), the directions; weights on standardised features are `basis @ weights`.
        variance: (r,), mean square of x along each.
        mean: (D,), subtracted from the features.
        scale: (D,), by which they were divided.
    """

    x: torch.Tensor
    basis: torch.Tensor
    variance: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, features: np.ndarray, device: str, center: bool, standardize: bool) -> Self:
        """Turn features (n, D); `standardize` divides by their standard deviations, `center` subtracts their mean."""
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        x = to_tensor(features, device).to(dtype)
        mean = x.mean(dim=0)
        scale = _scale(x, mean) if standardize else torch.ones_like(mean)
        mean = mean if center else torch.zeros_like(mean)
        x = (x - mean) / scale
        basis, variance = _principal_directions(x)
        return cls(x @ basis, basis, variance, mean, scale)

    def scaled(self, features: np.ndarray) -> torch.Tensor:
        """Other features (m, D), shifted and scaled as these were: (m, D) on the same device.

        Raises:
            ValueError: If they are not finite, or have another width.
        """
        check_features(features, width=len(self.mean))
        return (to_tensor(features, self.x.device).to(self.x.dtype) - self.mean) / self.scale


def _principal_directions(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions (D, r) in which x (n, D) varies, and the mean square (r,) of x along each."""
    if len(x) < x.shape[1]:
        _, root, rows = torch.linalg.svd(x, full_matrices=False)
        square, directions = root.square(), rows.T
    else:
        square, directions = torch.linalg.eigh(x.T @ x)
    varies = square > len(square) * torch.finfo(x.dtype).eps * square.max()
    return directions[:, varies], square[varies] / len(x)


def _scale(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each feature; 1 for one that is constant up to rounding, as in StandardScaler."""
    scale = x.std(dim=0, correction=0)
    # Features come in float32, whatever they are computed in here.
    rounding = 10 * torch.finfo(torch.float32).eps * mean.abs()
    return torch.where(scale <= rounding, torch.ones_like(scale), scale)
