"""How transformers' vision models are built: declared or checkpoint's configuration, random or loaded weights."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from bob.cards import Weights
from bob.errors import UserError, did_you_mean, first_line
from bob.extras import import_extra

# Their top-level norm is applied to the pooled output alone.
_NORM_POOLS = {"convnext", "convnextv2"}


def declared_config(weights: Weights) -> Any:
    """Build the configuration that `weights.options` declares: `model_type` and fields that differ from its defaults.

    A dot reaches into a part: `vision_config.hidden_size`.

    Raises:
        UserError: If transformers has no such model type or field, or refuses a value.
    """
    library = import_extra("transformers", "hf")
    kind = str(weights.options["model_type"])
    if kind not in library.CONFIG_MAPPING:
        raise UserError(f"transformers has no model type '{kind}'.", did_you_mean(kind, library.CONFIG_MAPPING.keys()))
    fields: dict[str, Any] = {}
    for option, value in weights.options.items():
        *parts, last = option.split(".")
        table = fields
        for part in parts:
            table = table.setdefault(part, {})
        table[last] = value
    fields.pop("model_type")
    try:
        config = library.AutoConfig.for_model(kind, **fields)
    except Exception as error:  # each model's configuration checks its fields in its own way
        raise UserError(f"{kind} refuses its options ({first_line(error)}).", "Correct weights.options.") from error
    known = library.CONFIG_MAPPING[kind]()
    for option in weights.options:
        _value_at(known, option)
    return config


def check_options(weights: Weights, config: Any) -> None:
    """Compare what the card declares with a checkpoint's own configuration.

    Raises:
        UserError: Naming the first option that differs.
    """
    for option, declared in weights.options.items():
        found = _value_at(config, option)
        if found != declared:
            raise UserError(
                f"'{weights.model}' has {option} = {found!r}, but its card says {declared!r}.",
                "Correct weights.options or weights.model on the card.",
            )


def build_random(name: str, config: Any) -> Any:
    """Build a model at random initialisation; a pooler with weights of its own is left out.

    Raises:
        UserError: If the model is no image encoder.
    """
    library = import_extra("transformers", "hf")
    config = _image_config(library, name, config)
    try:
        model = library.AutoModel.from_config(config).float()
    except ImportError as error:
        problem = f"{config.model_type} needs a library that is not installed ({first_line(error)})."
        raise UserError(problem, "Install it, or use another model.") from error
    return _completed(name, model, {key for key in model.state_dict() if key.startswith("pooler.")})


def load_pretrained(name: str, folder: Path, config: Any) -> Any:
    """Load a model from a folder, as float32; a pooler that the checkpoint lacks is left out.

    Raises:
        UserError: If the model is no image encoder, or a file is damaged, unsafe, or lacks a tensor.
    """
    library = import_extra("transformers", "hf")
    config = _image_config(library, name, config)
    try:
        model, report = library.AutoModel.from_pretrained(
            str(folder),
            config=config,
            dtype=torch.float32,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported, and refused below
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"The weights of '{name}' cannot be read ({_reason(error)}).",
            "They must be whole safetensors files, or torch files of tensors alone.",
        ) from error
    for key, found, expected in report["mismatched_keys"]:
        raise UserError(
            f"The checkpoint of '{name}' has '{key}' of shape {tuple(found)}, expected {tuple(expected)}.",
            "Its config.json belongs to other weights.",
        )
    return _completed(name, model, set(report["missing_keys"]))


def _completed(name: str, model: Any, missing: set[str]) -> Any:
    """Take out the pooler if its weights are missing, so that random numbers are never read.

    Raises:
        UserError: If anything else is missing.
    """
    if any(key.startswith("pooler.") for key in missing):
        model.pooler = None
    pooling = ("pooler.", "layernorm.") if model.config.model_type in _NORM_POOLS else ("pooler.",)
    if any(key.startswith("layernorm.") for key in missing) and "layernorm." in pooling:
        model.layernorm = nn.Identity()
    other = sorted(key for key in missing if not key.startswith(pooling))
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise UserError(
            f"The checkpoint of '{name}' lacks '{other[0]}'{more}, which {type(model).__name__} needs.",
            "Use a whole checkpoint: bob does not fill it in with random numbers.",
        )
    return model


def _image_config(library: Any, name: str, config: Any) -> Any:
    """The configuration of the part that sees images, ready for `AutoModel`.

    Raises:
        UserError: If there is none.
    """
    if config.model_type == "timm_wrapper":
        raise UserError(f"'{name}' is a timm model.", f"Use `timm:{name.rpartition('/')[2]}`.")
    kind: Callable[..., Any] | None = library.MODEL_MAPPING.get(type(config), None)
    if hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features"):
        return config
    if getattr(kind, "main_input_name", "") != "pixel_values" or hasattr(config, "vision_config"):
        config = getattr(config, "vision_config", None)
        kind = library.MODEL_MAPPING.get(type(config), None)
    if getattr(kind, "main_input_name", "") != "pixel_values":
        raise UserError(f"'{name}' is no image encoder that transformers can load alone.", "Use a vision model.")
    if config.model_type == "vit_mae":
        config.mask_ratio = 0.0
    return config


def _value_at(config: Any, option: str) -> Any:
    """The value of a configuration's field, which may lie in a part of it.

    Raises:
        UserError: If there is no such field.
    """
    for part in option.split("."):
        if not hasattr(config, part):
            known = [key for key in config.to_dict() if not key.startswith("_")]
            raise UserError(f"A {config.model_type} has no option '{option}'.", did_you_mean(part, known))
        config = getattr(config, part)
    return config


def _reason(error: Exception) -> str:
    # torch's message on a pickle is a page on how to load it nevertheless.
    return "it is no file of tensors alone" if isinstance(error, pickle.UnpicklingError) else first_line(error)
