"""Scores that shape a feature before the head reads it, or compare it with patterns: ReAct, ASH, SHE and another."""

from __future__ import annotations

import numpy as np
import torch

from bob.errors import UserError
from bob.outliers.base import Score, detectors, sample_rows
from bob.probes.base import to_tensor
from bob.probes.minibatch import exact, runs


class React(Score):
    """Energy after activations are clipped at a percentile of the training features.

    Args:
        percentile: As a fraction, over all values of all training features.
        device: Where to compute.

    Source: Sun et al. 2021, arXiv 2111.12797; computed by pytorch-ood's `ReAct`.
    """

    def __init__(self, percentile: float = 0.9, device: str = "cpu") -> None:
        super().__init__(device)
        self.percentile = percentile

    def _fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
        rows = sample_rows(features)
        known = torch.zeros(len(rows), dtype=torch.long)  # pytorch-ood leaves out negative labels
        self.react_ = detectors().ReAct(None, self.head_.logits, percentile=self.percentile)
        self.react_.fit_feature_maps(to_tensor(rows, "cpu"), known)

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.react_.predict_feature_maps(x)
        return scores


class Ash(Score):
    """Energy after all but the largest activations are set to zero, and these to one value that keeps the sum (ASH-B).

    It was made for activations that are not negative, as ReLU leaves them. Features of other networks are shaped by the
    same rule, where the sum may be negative.

    Args:
        percentile: Fraction of the activations that is set to zero.
        device: Where to compute.

    Source: Djurisic et al. 2023, arXiv 2209.09858, with its percentile for ImageNet; computed by pytorch-ood's `ASH`.
    """

    def __init__(self, percentile: float = 0.65, device: str = "cpu") -> None:
        super().__init__(device)
        self.percentile = percentile

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        ash = detectors().ASH(None, lambda maps: self.head_.logits(maps.flatten(1)), "ash-b", self.percentile)
        scores: torch.Tensor = ash.predict_feature_maps(x[:, :, None, None])
        return scores


class She(Score):
    """Negative inner product with the predicted class's pattern: the mean of its rightly predicted training images.

    Source: Zhang et al. 2023 (ICLR, openreview KkazG4lgKL); computed by pytorch-ood's `SHE`.
    """

    def _fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
        right = np.concatenate(
            [self.head_.logits(self._tensor(features[run])).argmax(dim=1).cpu().numpy() for run in runs(features)]
        )
        hits = np.bincount(labels[right == labels], minlength=n_classes)
        if not hits.all():
            raise UserError(
                f"SHE is not defined here: of class {int(np.argmin(hits))} (counted from 0) no training image is "
                f"predicted rightly, as of {int((hits == 0).sum())} of {n_classes} classes.",
                "Take another score.",
            )
        self.she_ = detectors().SHE(None, self.head_.logits)
        self.she_.fit_features(to_tensor(features, self.device), torch.from_numpy(np.array(labels)).to(self.device))

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.she_.predict_features(x)
        return scores


class FeatureShaping(Score):
    """Negative logit of the predicted class, each activation weighed by how much its size helps training images.

    The range of activations is cut into bins of equal width. A bin's weight is the closed form that maximises the mean
    logit of the training images' predicted classes under a norm: what activations of that size add to it on average.
    Activations beyond the range count for nothing. The norm only scales the score.

    Args:
        bins: Number of bins.
        tail: Fraction of the activations that is left out at either end.
        device: Where to compute.

    Attributes:
        edges_: (bins + 1,).
        weights_: (bins,), of norm sqrt(bins).

    Source: Zhao et al. 2024, arXiv 2402.00865, the variant that sees the known classes alone; github.com/
    Qinyu-Allen-Zhao/OptFSOOD.
    """

    def __init__(self, bins: int = 100, tail: float = 1e-3, device: str = "cpu") -> None:
        super().__init__(device)
        self.bins = bins
        self.tail = tail

    def _fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
        low, high = np.quantile(sample_rows(features), [self.tail, 1 - self.tail])
        dtype = exact(self.device)
        self.edges_ = torch.linspace(float(low), float(high), self.bins + 1, dtype=dtype, device=self.device)
        sums = torch.zeros(self.bins, dtype=dtype, device=self.device)
        for run in runs(features):
            x = self._tensor(features[run])
            bins, inside = self._bins(x)
            sums.index_add_(0, bins[inside], self._added(x)[inside])
        length = sums.norm()
        self.weights_ = sums / length * self.bins**0.5 if length > 0 else sums

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        bins, inside = self._bins(x)
        return -(self._added(x) * self.weights_[bins] * inside).sum(dim=1)

    def _bins(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The bin of each activation, and whether it is in the range."""
        bins = torch.bucketize(x, self.edges_, right=True) - 1
        inside = (bins >= 0) & (bins < self.bins)
        return bins.clamp(0, self.bins - 1), inside

    def _added(self, x: torch.Tensor) -> torch.Tensor:
        """(m, D): what each activation adds to the logit of the predicted class."""
        return self.head_.weight[self.head_.logits(x).argmax(dim=1)] * x
