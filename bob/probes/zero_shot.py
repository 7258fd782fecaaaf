"""Zero-shot classification: stored image features compared with texts that name the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import normalize

from bob.probes.base import check_features, to_tensor
from bob.probes.prompts import DEFAULT_TEMPLATES, Template, fill

_CLASSES_AT_ONCE = 16


class EncodesText(Protocol):
    """What maps N prompts to (N, D) in the space of the image features, not normalised."""

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the embeddings of the prompts."""


def zero_shot_weights(
    backbone: EncodesText, classes: Sequence[str], templates: Sequence[Template] = DEFAULT_TEMPLATES
) -> torch.Tensor:
    """Return one direction for each class, float32 (C, D) of length one, on the text tower's device.

    Each class name is put into each template; the embeddings are scaled to length one, averaged, and scaled again.

    Args:
        backbone: Encodes the prompts.
        classes: C names.
        templates: Texts with `{}` for the name, or functions from name to text.

    Raises:
        UserError: If a template has no place for the name, or the backbone has no text tower.
        ValueError: If there are no classes or no templates.

    Source: Radford et al. 2021 (arXiv 2103.00020), section 3.1.4; `build_zero_shot_classifier` of open_clip.
    """
    for name, given in {"classes": classes, "templates": templates}.items():
        if isinstance(given, str) or not len(given):
            raise ValueError(f"Expected `{name}` to be a list of one or more, but got {given!r}.")
    groups = [classes[start : start + _CLASSES_AT_ONCE] for start in range(0, len(classes), _CLASSES_AT_ONCE)]
    with torch.inference_mode():
        directions = torch.cat([_directions(backbone, group, templates) for group in groups])
    return directions.clone()  # outside of inference mode, so that autograd may use it


def zero_shot_logits(
    features: np.ndarray, weights: torch.Tensor, logit_scale: float = 1.0, logit_bias: float = 0.0
) -> np.ndarray:
    """Return logit_scale * cosine + logit_bias, float64 (n, C).

    A softmax over the classes gives CLIP's probabilities, a sigmoid of each those of SigLIP; the most probable class
    is the same.

    Args:
        features: Image embeddings (n, D), normalised or not.
        weights: (C, D) from `zero_shot_weights`.
        logit_scale: The model's own, already exponentiated.
        logit_bias: The model's own; 0 if it has none.

    Raises:
        ValueError: If the features are not finite, or not as wide as the weights.

    Source: arXiv 2103.00020, figure 3; Zhai et al. 2023 (arXiv 2303.15343), algorithm 1 for the bias.
    """
    check_features(features, width=weights.shape[1])
    images = normalize(to_tensor(features, weights.device).to(_precision(weights.device)), dim=1)
    cosine = images @ weights.to(images.dtype).T
    return (logit_scale * cosine + logit_bias).cpu().double().numpy()


def _directions(backbone: EncodesText, classes: Sequence[str], templates: Sequence[Template]) -> torch.Tensor:
    prompts = [fill(template, name) for name in classes for template in templates]
    embeddings = normalize(backbone.encode_text(prompts).float(), dim=-1)
    return normalize(embeddings.reshape(len(classes), len(templates), -1).mean(dim=1), dim=-1)


def _precision(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
