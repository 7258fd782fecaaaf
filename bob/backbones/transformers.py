"""Backbones from transformers: vision encoders and dual encoders, from the hub, its cache, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bob.backbones import hub
from bob.backbones.base import Backbone
from bob.backbones.image_processor import is_complete, read_preprocess
from bob.backbones.preprocess import Preprocess
from bob.backbones.transformers_backbone import TOKENIZERS, DualEncoder, TransformersBackbone
from bob.backbones.transformers_models import build_random, check_options, declared_config, load_pretrained
from bob.cards import BackboneCard, Weights
from bob.errors import UserError, first_line
from bob.extras import import_extra

_CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_SAFE = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")


def load_transformers(card: BackboneCard) -> Backbone:
    """Load a vision or dual encoder from a repository or folder, or build it at random initialisation.

    Weights are read from safetensors, else from a torch file of tensors alone; code of the repository is never run.
    At random initialisation nothing is downloaded if `weights.options` holds `model_type` and [preprocess] is whole.

    Raises:
        UserError: If the library or the files are missing, the model is no image encoder, a tensor is missing or of
            another shape, an option disagrees with the checkpoint, or the preprocessing cannot be expressed.
    """
    library = import_extra("transformers", "hf")
    weights = card.weights
    with hub.quiet(library):
        folder = _folder(card)
        config = declared_config(weights) if folder is None else _config(library, weights, folder)
        preprocess = read_preprocess(folder, card.preprocess, weights.model)
        if weights.pretrained and folder is not None:
            model = load_pretrained(weights.model, folder, config)
        else:
            model = build_random(weights.model, config)
        code = {"transformers": library.__version__, "revision": (hub.commit_of(folder) if folder else None) or ""}
        backbone = _wrap(card, model, preprocess, code, folder)
        _require_forward(backbone)
    return backbone


def card_for(spec: str) -> BackboneCard:
    """A card for a repository without one, `OWNER/NAME[@REVISION]`, or for a folder that `save_pretrained` made."""
    repository, _, revision = (spec, "", "") if Path(spec).expanduser().is_dir() else spec.partition("@")
    weights = Weights(source="transformers", model=repository, revision=revision)
    card = BackboneCard(name="transformers", weights=weights, architecture=repository.rstrip("/").rpartition("/")[2])
    return card.model_copy(update={"name": f"hf:{spec}"})  # a path may hold characters that a card's name may not


def weights_status(weights: Weights) -> str:
    """Say in words whether the weights of a repository are in the cache."""
    return hub.status(weights, [_SAFE[0], _SAFE[1], _PICKLED[0], _PICKLED[1]])


def _folder(card: BackboneCard) -> Path | None:
    """The folder of the checkpoint's files; None if the card alone says what to build."""
    weights = card.weights
    if not weights.pretrained:
        if "model_type" in weights.options and is_complete(card.preprocess):
            return None
        return hub.fetch(weights, [*_CONFIGS, *TOKENIZERS])
    folder = hub.fetch(weights, [*_CONFIGS, *TOKENIZERS, *_SAFE])
    if not any((folder / file).is_file() for file in _SAFE[:2]):
        folder = hub.fetch(weights, [*_CONFIGS, *TOKENIZERS, *_PICKLED])
        if not any((folder / file).is_file() for file in _PICKLED[:2]):
            raise hub.lacks(weights, folder, _SAFE[0])
    return folder


def _config(library: Any, weights: Weights, folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise hub.lacks(weights, folder, "config.json")
    try:
        config = library.AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # each model's configuration checks its fields in its own way
        raise UserError(
            f"transformers {library.__version__} cannot read the config.json of '{weights.model}' "
            f"({first_line(error)}).",
            "Use a model that this version knows without code of its own, which bob never runs.",
        ) from error
    check_options(weights, config)
    return config


def _wrap(
    card: BackboneCard, model: Any, preprocess: Preprocess, code: dict[str, str], folder: Path | None
) -> TransformersBackbone:
    if hasattr(model, "get_text_features"):
        return DualEncoder(card, model, preprocess, code, folder)
    return TransformersBackbone(card, model, preprocess, code)


def _require_forward(backbone: Backbone) -> None:
    """Embed one black image: which sizes and inputs a model takes shows in its forward pass only."""
    try:
        backbone.width()
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        height, width = backbone.preprocess.size
        raise UserError(
            f"'{backbone.card.weights.model}' does not take one image of {height} x {width} px ({first_line(error)}).",
            "Correct preprocess.size on the card, or use another model.",
        ) from error
