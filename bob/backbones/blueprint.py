"""What can be known of a backbone before its weights are here: its architecture, built without memory for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.backbones.sources import open_backbone
from bob.cards import BackboneCard
from bob.errors import UserError


@dataclass(frozen=True)
class Blueprint:
    """The shape of a backbone.

    Attributes:
        preprocess: What its images go through.
        parameters: Their number, without classifier.
        width: D of the global feature.
        strides: Of its feature maps, in input pixels; empty if it has none.
        channels: Of each of these maps.
    """

    preprocess: Preprocess
    parameters: int
    width: int
    strides: tuple[int, ...]
    channels: tuple[int, ...]


def blueprint(card: BackboneCard) -> Blueprint:
    """Build a card's architecture on the meta device and push one image through it.

    Raises:
        UserError: If the architecture is known only with its weights, or is a user's own code, which is not run here.
    """
    if card.weights.source == "custom":
        raise UserError(f"The shape of '{card.name}' is known when its code is run.", "Run `bob check` on it.")
    with torch.device("meta"):
        backbone = open_backbone(card.random_twin() if card.has_random_twin else card)
    images = torch.empty(1, 3, *backbone.preprocess.size, device="meta")
    with torch.inference_mode():
        maps = _maps(backbone, images)
        width = backbone.embed(images).shape[1]
    return Blueprint(
        preprocess=backbone.preprocess,
        parameters=backbone.parameter_count(),
        width=width,
        strides=tuple(backbone.strides) if maps else (),
        channels=tuple(map_.shape[1] for map_ in maps),
    )


def _maps(backbone: Backbone, images: torch.Tensor) -> list[torch.Tensor]:
    try:
        return backbone.feature_maps(images)
    except UserError:
        return []  # not every backbone has maps, and that is worth knowing too
