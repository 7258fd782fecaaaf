"""Training features standardised and turned to their principal directions, in which linear probes are solved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from bob.probes.base import check_features
from bob.probes.minibatch import Standardizer, exact, runs


@dataclass(frozen=True)
class PrincipalFeatures:
    """The directions in which the training data vary; at most min(n, D) of them.

    A penalty on the length of the weights does not change under rotation, and the solution of a penalised linear model
    lies in the span of the images, so nothing is lost.

    Attributes:
        basis: (D, r), the directions; weights on standardised features are `basis @ weights`. Float64 (float32 on a
            device without it), as are the others.
        variance: (r,), mean square of the features along each.
        standardizer: What was done to the features before.
    """

    basis: torch.Tensor
    variance: torch.Tensor
    standardizer: Standardizer

    @classmethod
    def of(cls, features: np.ndarray, device: str, center: bool, standardize: bool) -> Self:
        """Turn features (n, D), which may be memory-mapped and are copied whole only if n < D.

        `standardize` divides by their standard deviations, `center` subtracts their mean.
        """
        standardizer = standardizer_of(features, device, center, standardize)
        if len(features) < features.shape[1]:
            _, root, rows = torch.linalg.svd(standardizer(features, exact(device)), full_matrices=False)
            square, directions = root.square(), rows.T
        else:
            chunks = (standardizer(features[run], exact(device)) for run in runs(features))
            square, directions = torch.linalg.eigh(gram(chunks))
        varies = square > len(square) * torch.finfo(square.dtype).eps * square.max()
        return cls(directions[:, varies], square[varies] / len(features), standardizer)

    def scaled(self, features: np.ndarray) -> torch.Tensor:
        """Other features (m, D), shifted and scaled as these were: (m, D) on the same device.

        Raises:
            ValueError: If they are not finite, or have another width.
        """
        check_features(features, width=len(self.basis))
        return self.standardizer(features, self.basis.dtype)


def standardizer_of(features: np.ndarray, device: str, center: bool, standardize: bool) -> Standardizer:
    """Settle how features (n, D) are standardised; see `PrincipalFeatures.of`."""
    if not (center or standardize):
        return Standardizer.none(features, device)
    both = Standardizer.of(features, device)
    mean = both.mean if center else torch.zeros_like(both.mean)
    return replace(both, mean=mean, scale=both.scale if standardize else torch.ones_like(both.scale))


def gram(chunks: Iterable[torch.Tensor]) -> torch.Tensor:
    """x^T x, (D, D), of x in chunks (m, D); multiplied as exactly as the chunks are, added up as exactly as can be."""
    chunks = iter(chunks)
    first = next(chunks)
    total = (first.T @ first).to(exact(first.device))
    for chunk in chunks:
        total += chunk.T @ chunk
    return total
