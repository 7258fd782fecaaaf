"""PCA whitening of features, learnt on the database that is searched."""

from __future__ import annotations

import torch

from bob.errors import UserError
from bob.retrieval.search import Features, Space

_ROWS = 8192  # in one step
# Directions with less variance than this share of the largest are rounding, which whitening would blow up.
_LEAST = 1e-7


class Whitening:
    """Centred features in the directions of most variance, each scaled to variance 1.

    Equals scikit-learn's `PCA(whiten=True)` up to the directions' signs; learnt in double precision from mean and
    covariance alone, which take D x D numbers whatever the number of images.

    How many directions are kept decides more than the rest, and with as many as images all images become equally far
    from each other, whatever they show. If it is not said it is the effective rank, the exponential of the entropy of
    the variances' shares.

    Args:
        features: (m, D) of the database; placed by `space` (normalised) first.
        space: Without a transform.
        dims: How many directions to keep; None for the effective rank.

    Raises:
        UserError: If fewer directions than `dims` have variance, or none has.

    Source: Jegou & Chum 2012, doi:10.1007/978-3-642-33709-3_55; Roy & Vetterli 2007, EUSIPCO (effective rank).
    """

    def __init__(self, features: Features, space: Space, dims: int | None = None) -> None:
        self.mean, covariance = _moments(features, space)
        values, vectors = torch.linalg.eigh(covariance)
        rank = 0 if values[-1] <= torch.finfo(values.dtype).eps else int((values > values[-1] * _LEAST).sum())
        rank = min(rank, len(features) - 1)
        if rank < max(dims or 1, 1):
            fewer = f" ({dims} were asked for)" if dims else ""
            raise UserError(
                f"The features of the {len(features)} database images vary in {max(rank, 0)} directions only{fewer}.",
                f"Take --set dims={rank} or less." if rank > 0 else "Take the protocol cosine.",
            )
        kept = dims or min(rank, _effective_rank(values))
        # The largest come last.
        self.projection = (vectors[:, -kept:] / values[-kept:].sqrt()).flip(1)

    @property
    def dims(self) -> int:
        """How many directions are kept."""
        return int(self.projection.shape[1])

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, D) normalised float64 -> (n, dims)."""
        return (rows - self.mean) @ self.projection


def _effective_rank(variances: torch.Tensor) -> int:
    """At least 1; as many as there are where all are equal."""
    shares = variances.clamp(min=0) / variances.clamp(min=0).sum()
    return max(1, round(float(torch.special.entr(shares).sum().exp())))


def _moments(features: Features, space: Space) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and covariance (D, D) of placed features, with m - 1."""
    parts = range(0, len(features), _ROWS)
    mean = torch.stack([space.place(features[i : i + _ROWS]).sum(dim=0) for i in parts]).sum(dim=0) / len(features)
    covariance = torch.zeros((len(mean), len(mean)), dtype=mean.dtype, device=mean.device)
    for i in parts:
        # Centred first: a difference of large sums would lose the small variances.
        centred = space.place(features[i : i + _ROWS]) - mean
        covariance += centred.T @ centred
    return mean, covariance / max(len(features) - 1, 1)
