"""Backbones from a checkpoint file, on disk or in an installed package, loaded strictly into a timm architecture."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from bob.backbones import timm as timm_source
from bob.backbones.base import Backbone
from bob.cards import BackboneCard, Weights
from bob.errors import UserError, first_line

# Where training scripts commonly nest the tensors.
_NESTS = ("state_dict", "model", "model_state_dict")


def load_checkpoint(card: BackboneCard) -> Backbone:
    """Build the card's timm architecture and load its file into it; only the classifier may be left over.

    Raises:
        UserError: If the file is missing, damaged, unsafe, or does not fit (names the first tensor that differs).
    """
    path = locate(card)
    tensors = read_tensors(path)
    model = timm_source.create(card, pretrained=False)
    classifier = _classifier_keys(card)
    if card.weights.keys == "order":
        tensors = _rename_by_order(tensors, card, path)
    tensors = {key: tensor for key, tensor in tensors.items() if key not in classifier}
    _require_fit(model.state_dict(), tensors, card, path)
    model.load_state_dict(tensors, strict=True)
    return timm_source.wrap(card, model)


def weights_status(weights: Weights) -> str:
    """Say in words whether the checkpoint file is on this machine, and if not how it gets here."""
    path = find(weights)
    return f"here, {path}" if path and path.is_file() else f"not here; {weights.install or weights.file}"


def locate(card: BackboneCard) -> Path:
    """Path of the card's checkpoint file, checked against its SHA-256 if the card has one.

    Raises:
        UserError: If it is not there or differs; says how to get it.
    """
    weights = card.weights
    path = find(weights)
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
    """Path that `weights.file` stands for; None if it lies in a package that is not installed."""
    file = weights.file or ""
    if not file.startswith("package:"):
        return Path(file).expanduser()
    package, _, inside = file.removeprefix("package:").partition("/")
    # Found, not imported: a package that only carries weights may have dependencies that nobody needs.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / inside


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read name -> tensor from a safetensors or torch file, the latter weights-only.

    Raises:
        UserError: If the file is damaged, holds more than tensors, or holds none.
    """
    try:
        content = _read(path)
    except Exception as error:
        raise UserError(
            f"Cannot read the checkpoint {path}: {_reason(error)}.",
            "It must be a whole file of safetensors, or of tensors alone: `torch.save(model.state_dict(), FILE)`.",
        ) from error
    for nest in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
    if not isinstance(content, dict) or not content or not all(isinstance(t, torch.Tensor) for t in content.values()):
        found = f"a dict of {[*content][:5]}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise UserError(
            f"Expected the checkpoint {path} to hold a state dict, but got {found}.",
            "Save it again: `torch.save(model.state_dict(), FILE)`.",
        )
    return content


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _classifier_keys(card: BackboneCard) -> set[str]:
    """Keys of the full architecture that its trunk lacks."""
    with torch.device("meta"):
        full = timm_source.create(card, pretrained=False, num_classes=1000)
        trunk = timm_source.create(card, pretrained=False)
    return set(full.state_dict()) - set(trunk.state_dict())


def _rename_by_order(tensors: dict[str, torch.Tensor], card: BackboneCard, path: Path) -> dict[str, torch.Tensor]:
    """Give the checkpoint's tensors, in order, the names of the architecture's, with or without classifier."""
    with torch.device("meta"):
        candidates = [timm_source.create(card, pretrained=False, num_classes=n) for n in (0, 1000)]
    expected = next((m.state_dict() for m in candidates if len(m.state_dict()) == len(tensors)), None)
    if expected is None:
        sizes = " or ".join(str(len(model.state_dict())) for model in candidates)
        raise UserError(
            f"{path} holds {len(tensors)} tensors, but {card.weights.model} has {sizes}.",
            "Correct weights.model on the card.",
        )
    for ours, theirs in zip(expected, tensors, strict=True):
        if ours.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise UserError(
                f"{path}: by order '{theirs}' would become {card.weights.model}'s '{ours}', another kind of tensor.",
                "Correct weights.model, or use weights.keys = 'name'.",
            )
    return dict(zip(expected, tensors.values(), strict=True))


def _require_fit(
    expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor], card: BackboneCard, path: Path
) -> None:
    """Fail on the first tensor that is missing, left over or of another shape."""
    for key, tensor in expected.items():
        if key not in found:
            spare = next((k for k in found if k not in expected), None)
            raise _misfit(path, card, f"lacks '{key}'" + (f" (it has '{spare}' instead)" if spare else ""))
        if found[key].shape != tensor.shape:
            raise _misfit(path, card, f"has '{key}' of shape {_shape(found[key])}, expected {_shape(tensor)}")
    extra = next((key for key in found if key not in expected), None)
    if extra is not None:
        raise _misfit(path, card, f"has '{extra}', which the architecture does not")


def _misfit(path: Path, card: BackboneCard, difference: str) -> UserError:
    return UserError(
        f"{path} does not fit timm's {card.weights.model}: it {difference}.",
        "Correct the architecture, or rename the checkpoint's keys.",
    )


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """Why a file cannot be read; of torch's page on unsafe pickles, the one sentence that says what is in it."""
    if not isinstance(error, pickle.UnpicklingError):
        return first_line(error)
    if unsafe := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
        return f"loading it would run code ({unsafe[1]}), which bob refuses"
    detail = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
    return f"it is no torch file of tensors alone ({detail[1].rstrip('.') if detail else first_line(error)})"
