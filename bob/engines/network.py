"""What is trained: a copy of a backbone, a new head on it, and blocks that are dropped now and then."""

from __future__ import annotations

import copy
import re
from typing import Literal

import torch
from timm.layers import DropPath
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.freeze import evaluating, freeze
from bob.errors import UserError, first_line

# What timm, transformers and torchvision call the place where a residual branch may be dropped.
_PLACE = re.compile(r"(drop_path|stochastic_depth)\d*")
_KINDS = ("DropPath", "StochasticDepth", "Identity")


class Network(nn.Module):
    """A backbone with a head: normalised images (B, 3, H, W) -> logits (B, C).

    Args:
        backbone: The caller gives it away.
        head: Maps (B, D) to (B, C).
        frozen: Whether the backbone gets no gradients, its BatchNorm statistics staying as they are.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, frozen: bool = False) -> None:
        super().__init__()
        self.backbone = freeze(backbone) if frozen else backbone
        self.head = head
        self.frozen = frozen

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone.embed(images)
        if features.is_inference() and not torch.is_inference_mode_enabled():
            features = features.clone()  # a frozen model may compute as it likes; the head cannot learn from that
        return self.head(features).float()

    def learnt(self) -> nn.ModuleDict:
        """What training changes, sharing its tensors: a text tower is not part of it, nor a frozen backbone."""
        return nn.ModuleDict(
            {"head": self.head} if self.frozen else {"backbone": self.backbone.model, "head": self.head}
        )


def copy_backbone(backbone: Backbone, device: torch.device) -> Backbone:
    """A copy to train, on the device and channels-last; the original, from which others take features, stays.

    Raises:
        UserError: If the backbone cannot be copied.
    """
    try:
        copied = copy.deepcopy(backbone)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"Backbone '{backbone.card.name}' cannot be copied for training ({first_line(error)}).",
            "Keep its tensors as parameters or buffers, and nothing that cannot be copied.",
        ) from error
    copied.to(device)
    seeing = {id(parameter) for parameter in copied.model.parameters()}
    for parameter in copied.parameters():
        if id(parameter) not in seeing:  # a text tower's
            parameter.requires_grad_(False)
    for parameter in copied.parameters():
        if parameter.ndim == 4:  # convolutions run faster that way
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return copied


def require_gradients(backbone: Backbone) -> None:
    """Make sure that a backbone with weights can be trained: that the feature of an image has a gradient.

    Raises:
        UserError: If none of its parameters is to be trained, or the forward pass cuts the gradient off.
    """
    why = "none of its parameters takes a gradient"
    if any(parameter.requires_grad for parameter in backbone.model.parameters()):
        blank = torch.zeros(1, 3, *backbone.preprocess.size, dtype=torch.uint8, device=backbone.device)
        try:
            with evaluating(backbone), torch.enable_grad():
                if backbone.embed(backbone.preprocess.normalize(blank)).requires_grad:
                    return
            why = "its forward pass cuts the gradient off, as torch.no_grad, detach and NumPy do"
        except RuntimeError as error:
            why = f"its forward pass fails where gradients are wanted ({first_line(error)})"
    raise UserError(
        f"Backbone '{backbone.card.name}' cannot be trained: {why}.",
        "Mend that, or take a protocol that leaves it as it is, such as frozen or linear.",
    )


def make_head(kind: Literal["linear", "batchnorm_linear"], width: int, n_classes: int) -> nn.Module:
    """A linear layer that starts small, after MAE's affine-free BatchNorm if that is asked for.

    Source: https://github.com/facebookresearch/mae, main_linprobe.py.
    """
    linear = nn.Linear(width, n_classes)
    nn.init.trunc_normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear if kind == "linear" else nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=1e-6), linear)


def set_drop_path(model: nn.Module, rate: float) -> int:
    """Drop residual branches with a probability that rises from 0 in the first block to `rate` in the last.

    timm builds an identity where a model was made to drop nothing; these places are found by their names.

    Returns:
        Number of blocks with such a place; 0 if the architecture has none.

    Source: arXiv 1603.09382; timm's `drop_path_rate`.
    """
    blocks = [(module, places) for module in model.modules() if (places := _places(module))]
    for (module, places), probability in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        for place in places:
            setattr(module, place, DropPath(probability) if probability else nn.Identity())
    return len(blocks)


def _places(module: nn.Module) -> list[str]:
    """Names of the module's attributes that drop a branch, or would: timm's ResNets have None there."""
    found = {**module.__dict__, **module._modules}
    return [
        name
        for name, value in found.items()
        if _PLACE.fullmatch(name) and (value is None or type(value).__name__.endswith(_KINDS))
    ]
