"""A frozen backbone and a fitted linear probe, joined into one classifier that has a gradient."""

from __future__ import annotations

import torch
from torch import nn

from bob.backbones.base import Backbone
from bob.errors import UserError
from bob.probes.logistic import LogisticRegression
from bob.probes.ridge import RidgeClassifier


class LinearClassifier(nn.Module):
    """A frozen backbone and a fitted linear probe as one differentiable classifier, in eval mode.

    Maps (B, 3, h, w) in [0, 1], after the backbone's resize and crop, to logits (B, C) in float32. Its softmax is what
    the probe's `predict_proba` gives for the same images.

    Args:
        backbone: The feature extractor.
        probe: Fitted on its features.
    """

    def __init__(self, backbone: Backbone, probe: LogisticRegression | RidgeClassifier) -> None:
        super().__init__()
        self.backbone = backbone
        # A ridge's scores are no logits; divided by its temperature they are.
        temperature = getattr(probe, "temperature_", 1.0)
        weight = probe.weight_ / probe.scale_[:, None] / temperature
        bias = (probe.bias_ - (probe.mean_ / probe.scale_) @ probe.weight_) / temperature
        constants = {
            **{"mean": torch.tensor(backbone.preprocess.mean), "std": torch.tensor(backbone.preprocess.std)},
            **{"weight": weight.detach().clone(), "bias": bias.detach().clone()},
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant.to(backbone.device, torch.float32))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, C) for images (B, 3, h, w) in [0, 1]."""
        mean, std = (self.get_buffer(name)[:, None, None] for name in ("mean", "std"))
        return self.backbone.embed((images - mean) / std).float() @ self.get_buffer("weight") + self.get_buffer("bias")


def classifier(backbone: Backbone, probe: object) -> LinearClassifier:
    """Join a frozen backbone with a linear probe fitted on its features.

    Raises:
        UserError: If the probe is not linear, such as k-NN: it has no gradient to attack.
        ValueError: If it is not fitted.
    """
    if not isinstance(probe, (LogisticRegression, RidgeClassifier)):
        problem = f"The probe {type(probe).__name__} has no gradient, which these attacks need."
        raise UserError(problem, "Use the protocol linear or ridge.")
    if not hasattr(probe, "weight_"):
        raise ValueError("Expected `probe` to be fitted, but got one without `weight_`.")
    return LinearClassifier(backbone, probe)
