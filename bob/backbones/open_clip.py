"""Backbones from open_clip: published weights, a file's, or random initialisation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

from bob.backbones import open_clip_weights as where
from bob.backbones.base import Backbone
from bob.backbones.open_clip_backbone import OpenClipBackbone
from bob.cards import BackboneCard, Feature, Weights
from bob.errors import UserError, did_you_mean, first_line

# What a card may say in weights.options, of the arguments of `open_clip.create_model`.
_OPTIONS = ("force_quick_gelu", "force_custom_text", "force_context_length")


def load_open_clip(card: BackboneCard) -> Backbone:
    """Build `ARCHITECTURE/TAG` with its published weights or a file's, or at random initialisation.

    A tag that was trained with QuickGELU gets it, also on an architecture whose default is GELU.

    Raises:
        UserError: If open_clip has no such architecture or tag, or the weights cannot be had or do not fit.
    """
    architecture, tag = where.split(card.weights)
    where.require_known(architecture, tag, needs_tag=card.weights.pretrained and not card.weights.file)
    published = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    path = where.find_or_download(card, published) if card.weights.pretrained else None
    where.require_text_config(architecture)
    clip = _create(card, architecture, published, path)
    _keep_feature(card, clip.visual)
    backbone = OpenClipBackbone(card, clip)
    if card.preprocess.size:
        with _blamed_on_size(card):
            backbone.width()  # some towers find out in their forward pass only
    return backbone


def card_for(spec: str) -> BackboneCard:
    """A card for an open_clip model without one: `ARCHITECTURE/TAG`, `ARCHITECTURE@FILE` or `ARCHITECTURE/TAG@FILE`.

    The last takes preprocessing and activation from the tag and the weights from the file.

    Raises:
        UserError: If open_clip has no such architecture or tag.
    """
    model, _, file = spec.partition("@")
    weights = Weights(source="open_clip", model=model, file=file or None)
    architecture, tag = where.split(weights)
    where.require_known(architecture, tag, needs_tag=not file)
    card = BackboneCard(
        name=f"open_clip:{architecture}",
        weights=weights,
        paradigm="vlm",
        architecture=architecture,
        feature=Feature(layer="image_embedding"),
    )
    return card.model_copy(update={"name": f"open_clip:{spec}"})  # a path may hold characters that a name may not


def weights_status(weights: Weights) -> str:
    """Say in words whether the weights are on this machine, and if not how they get here."""
    architecture, tag = where.split(weights)
    return where.status(weights, open_clip.get_pretrained_cfg(architecture, tag) if tag else {})


def _create(card: BackboneCard, architecture: str, published: dict[str, Any], path: Path | None) -> Any:
    options: dict[str, Any] = dict(card.weights.options)
    if unknown := next((key for key in options if key not in _OPTIONS), None):
        remedy = did_you_mean(unknown, _OPTIONS) or f"Use {', '.join(_OPTIONS)}."
        raise UserError(f"Backbone '{card.name}': open_clip has no option '{unknown}'.", remedy)
    # open_clip only warns where a tag's activation differs from the architecture's.
    if published.get("quick_gelu"):
        options["force_quick_gelu"] = True
    size = card.preprocess.size
    with where.quietly(), _as_mistake(card, architecture, path):
        return open_clip.create_model(
            architecture,
            pretrained=str(path) if path else None,
            device=torch.get_default_device(),
            pretrained_text=False,
            force_image_size=size[0] if size and size[0] == size[1] else size,
            force_preprocess_cfg=published,  # of which open_clip takes what is about preprocessing
            **options,
        )


@contextlib.contextmanager
def _as_mistake(card: BackboneCard, architecture: str, path: Path | None) -> Iterator[None]:
    """Blame the card's size, or the file, for what open_clip refuses in the block."""
    try:
        yield
    except Exception as error:
        about_positions = "size mismatch" in str(error) and "positional_embedding" in str(error)
        if card.preprocess.size and (path is None or about_positions):
            raise _size_refused(card, error) from error
        if path is None:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = lines[1] if len(lines) > 1 else first_line(error)
        raise UserError(
            f"{path} does not fit open_clip's {architecture} ({detail[:200].rstrip('. ')}).",
            "Correct the architecture, or save the state dict of that model.",
        ) from error


@contextlib.contextmanager
def _blamed_on_size(card: BackboneCard) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _size_refused(card, error) from error


def _size_refused(card: BackboneCard, error: Exception) -> UserError:
    problem = f"open_clip's {card.weights.model} does not take preprocess.size = {card.preprocess.size}"
    return UserError(f"{problem} ({first_line(error)[:200].rstrip('.: ')}).", "Correct preprocess.size on the card.")


def _keep_feature(card: BackboneCard, tower: Any) -> None:
    """Make the tower end where the card's feature is."""
    tower.output_tokens = False  # of CoCa, whose caption decoder is not used
    layer, pooling = card.feature.layer, card.feature.pooling
    if pooling != "default":
        raise UserError(f"Backbone '{card.name}': open_clip has no choice of pooling.", "Leave feature.pooling out.")
    if layer == "image_embedding":
        return
    if layer != "pre_logits" or not _drop_projection(tower):
        raise UserError(
            f"Backbone '{card.name}': open_clip's {card.weights.model} has no feature '{layer}', "
            "as its image tower does not end in a projection.",
            'Set feature.layer = "image_embedding".',
        )


def _drop_projection(tower: Any) -> bool:
    """Take the projection into the shared space off the tower; False if pooling and projection are one, or none is."""
    if isinstance(tower, VisionTransformer):
        tower.proj = None
        return True
    if not isinstance(tower, TimmModel):
        return False
    named = [name for name in ("proj", "mlp") if hasattr(tower.head, name)]
    for name in named:
        delattr(tower.head, name)
    if not named and not tower.trunk.num_classes:
        return False
    if not named:
        tower.trunk.reset_classifier(0)  # the trunk's own classifier was the projection
    return True
