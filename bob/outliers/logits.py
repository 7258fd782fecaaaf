"""Scores that read the logits of the known classes: maximum softmax probability, maximum logit, energy and ODIN."""

from __future__ import annotations

import torch

from bob.outliers.base import Score, detectors


class MaximumSoftmax(Score):
    """Negative probability of the most probable class.

    Source: Hendrycks and Gimpel 2017, arXiv 1610.02136; computed by pytorch-ood's `MaxSoftmax`.
    """

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = detectors().MaxSoftmax.score(self.head_.logits(x))
        return scores


class MaximumLogit(Score):
    """Negative largest logit.

    Source: Hendrycks et al. 2022, arXiv 1911.11132; computed by pytorch-ood's `MaxLogit`.
    """

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = detectors().MaxLogit.score(self.head_.logits(x))
        return scores


class Energy(Score):
    """Free energy of the logits, -log sum exp, at temperature 1.

    Source: Liu et al. 2020, arXiv 2010.03759; computed by pytorch-ood's `EnergyBased`.
    """

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = detectors().EnergyBased.score(self.head_.logits(x))
        return scores


class Odin(Score):
    """Negative probability of the most probable class at a high temperature, after a small step that raises it.

    ODIN takes the step in the image, along the sign of the gradient through the whole network. Stored features have no
    gradient to the image, so the step here is taken in what the linear head reads: the feature, standardised as the
    published step is taken in a standardised image. Numbers are therefore not those of ODIN on images.

    Args:
        temperature: Divides the logits.
        eps: Length of the step in each dimension, in standard deviations of the training features.
        device: Where to compute.

    Source: Liang et al. 2018, arXiv 1706.02690, with its temperature and step; computed by pytorch-ood's `ODIN`.
    """

    def __init__(self, temperature: float = 1000.0, eps: float = 0.0014, device: str = "cpu") -> None:
        super().__init__(device)
        self.temperature = temperature
        self.eps = eps

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        model = self.head_.logits_of_standardized
        odin = detectors().ODIN(model, eps=self.eps, temperature=self.temperature)
        scores: torch.Tensor = odin.predict(self.head_.standardized(x))
        return scores
