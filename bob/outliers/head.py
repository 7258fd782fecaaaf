"""The linear classifier of the known classes, as scores of outliers read it: on the features as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from bob.probes.logistic import LogisticRegression


@dataclass(frozen=True)
class LinearHead:
    """A linear layer on features, as the last layer of a network is one on its penultimate features.

    Attributes:
        weight: (C, D) float64 (float32 on a device without it), on features as they are stored.
        bias: (C,).
        mean: (D,), of the training features.
        scale: (D,), their standard deviation; 1 for a feature that is constant.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, probe: LogisticRegression) -> Self:
        """Take a fitted probe, its standardisation folded into weight and bias."""
        mean, scale = probe.mean_, probe.scale_
        weight = (probe.weight_.to(scale.dtype) / scale[:, None]).T.contiguous()
        return cls(weight, probe.bias_.to(scale.dtype) - weight @ mean, mean, scale)

    @property
    def dtype(self) -> torch.dtype:
        """Of everything in it."""
        return self.weight.dtype

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, D) -> (n, C)."""
        return features.to(self.dtype) @ self.weight.T + self.bias

    def standardized(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, D) with mean 0 and variance 1 over the training images."""
        return (features.to(self.dtype) - self.mean) / self.scale

    def logits_of_standardized(self, features: torch.Tensor) -> torch.Tensor:
        """Standardised features (n, D) -> (n, C), the logits of the features that they were made of."""
        return self.logits(features * self.scale + self.mean)
