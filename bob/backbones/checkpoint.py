"""Backbones from a checkpoint file: a path, an https URL, or in a package; loaded strictly into a timm architecture."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bob.backbones import timm as timm_source
from bob.backbones.base import Backbone
from bob.backbones.download import cached, fetch, is_url
from bob.backbones.keys import fit, freeze_fixed
from bob.cards import BackboneCard, Weights
from bob.errors import UserError, first_line

# Where training scripts commonly nest the tensors.
_NESTS = ("state_dict", "model", "model_state_dict")
# What training scripts leave beside the tensors: their arguments, and NumPy numbers such as a loss. They run no code.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bhilqBHILQefd"),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def load_checkpoint(card: BackboneCard) -> Backbone:
    """Build the card's timm architecture and load its file into it; only the classifier may be left over.

    Raises:
        UserError: If the file is missing, cannot be downloaded, is damaged or unsafe, or does not fit (names the first
            tensor that differs).
    """
    path = locate(card)
    tensors = read_tensors(path, card.weights.nest)
    model = timm_source.create(card, pretrained=False)
    model.load_state_dict(fit(tensors, model, card, path), strict=True)
    freeze_fixed(model, card)
    return timm_source.wrap(card, model)


def weights_status(weights: Weights) -> str:
    """Say in words whether the checkpoint file is on this machine, and if not how it gets here."""
    path = find(weights)
    if path and path.is_file():
        return f"here, {path}"
    if is_url(weights.file):
        return f"not here; downloaded from {weights.file} when first used"
    return f"not here; {weights.install or weights.file}"


def locate(card: BackboneCard) -> Path:
    """Path of the card's checkpoint file, downloaded if need be and checked against its SHA-256 if the card has one.

    Raises:
        UserError: If it is not there, cannot be downloaded, or differs; says how to get it.
    """
    weights = card.weights
    path = fetch(weights.file, weights.sha256) if is_url(weights.file) else find(weights)
    if path is None or not path.is_file():
        remedy = f"Run `{weights.install}`." if weights.install else "Put the file there, or correct weights.file."
        raise UserError(f"Backbone '{card.name}': no weights at {weights.file}.", remedy)
    if weights.sha256 and (found := _sha256(path)) != weights.sha256:
        raise UserError(
            f"Backbone '{card.name}': {path} has SHA-256 {found[:12]}..., but its card says {weights.sha256[:12]}....",
            f"Get the file again: {weights.install}." if weights.install else "Get the file again.",
        )
    return path


def find(weights: Weights) -> Path | None:
    """Path that `weights.file` stands for, there or not; None if it lies in a package that is not installed."""
    file = weights.file or ""
    if is_url(file):
        return cached(file)
    if not file.startswith("package:"):
        return Path(file).expanduser()
    package, _, inside = file.removeprefix("package:").partition("/")
    # Found, not imported: a package that only carries weights may have dependencies that nobody needs.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / inside


def read_tensors(path: Path, nest: str = "") -> dict[str, torch.Tensor]:
    """Read name -> tensor from a safetensors or torch file, the latter weights-only.

    Args:
        path: Of the file; `.safetensors` is one, every other name is a torch file.
        nest: Dotted key under which the tensors lie; where training scripts usually put them if empty.

    Raises:
        UserError: If the file is damaged, holds more than tensors, or holds none there.
    """
    try:
        content = _read(path)
    except Exception as error:
        raise UserError(
            f"Cannot read the checkpoint {path}: {_reason(error)}.",
            "It must be a whole file of safetensors, or of tensors alone: `torch.save(model.state_dict(), FILE)`.",
        ) from error
    content = _unnested(content, nest, path) if nest else _unwrapped(content)
    if not isinstance(content, dict) or not content or not all(isinstance(t, torch.Tensor) for t in content.values()):
        raise UserError(
            f"Expected the checkpoint {path} to hold a state dict, but got {_described(content)}.",
            "Save it again: `torch.save(model.state_dict(), FILE)`.",
        )
    return content


def _unwrapped(content: Any) -> Any:
    for nest in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
    return content


def _unnested(content: Any, nest: str, path: Path) -> Any:
    for part in nest.split("."):
        if not isinstance(content, dict) or part not in content:
            raise UserError(
                f"{path} has nothing at weights.nest '{nest}': where '{part}' should be is {_described(content)}.",
                "Correct weights.nest on the card.",
            )
        content = content[part]
    return content


def _described(content: Any) -> str:
    return f"a dict of {[*content][:5]}" if isinstance(content, dict) else f"a {type(content).__name__}"


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    # The warning is about TorchScript, which the error after it says as well.
    with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_HARMLESS):
        return torch.load(path, map_location="cpu", weights_only=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """Why a file cannot be read; of torch's page on unsafe pickles, the one sentence that says what is in it."""
    if "TorchScript archive" in str(error):
        return "it is TorchScript, a program rather than tensors; take the publisher's file of weights"
    if not isinstance(error, pickle.UnpicklingError):
        return first_line(error)
    if unsafe := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
        return f"loading it would run code ({unsafe[1]}), which bob refuses"
    detail = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
    return f"it is no torch file of tensors alone ({detail[1].rstrip('.') if detail else first_line(error)})"
