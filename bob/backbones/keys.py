"""From a publisher's names and shapes of tensors to those of a timm architecture, with nothing missing or left over."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from bob.backbones import timm as timm_source
from bob.cards import BackboneCard
from bob.errors import UserError, did_you_mean, first_line

Tensors = dict[str, torch.Tensor]
_log = logging.getLogger(__name__)


def fit(tensors: Tensors, model: nn.Module, card: BackboneCard, path: Path) -> Tensors:
    """Return the file's tensors under the names of the card's timm model, exactly those of its state dict.

    The card's `drop` and `rename` come first, then timm's own conversion of other layouts (its `checkpoint_filter_fn`,
    as for its own downloads: it also resamples position embeddings to the model's input size), or the card's `order`.

    Args:
        tensors: Name -> tensor of the file at `path`.
        model: The classifier-free timm model that they are for.
        card: Whose weights and architecture these are.
        path: The file, for messages.

    Raises:
        UserError: If a tensor is missing, left over or of another shape (names the first), if a pattern of the card
            matches nothing, or if two tensors would get one name.
    """
    classifier = _classifier(card)
    tensors = _rename(_drop(tensors, card, path), card, path)
    if card.weights.keys == "order":
        tensors = _rename_by_order(tensors, card, path)
    else:
        tensors = _through_timm(tensors, model, classifier)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in classifier}
    expected = model.state_dict()
    for name in _absent(model, card):
        if name in tensors:
            raise _misfit(path, card, f"has '{name}', which weights.absent says it lacks")
        tensors[name] = expected[name]
    _require_fit(expected, tensors, card, path)
    return tensors


def freeze_fixed(model: nn.Module, card: BackboneCard) -> None:
    """Turn off the gradient of the parameters that the card calls `fixed` or `absent`.

    Raises:
        UserError: If the architecture has no such parameter.
    """
    parameters = dict(model.named_parameters())
    for name in [*card.weights.fixed, *_absent(model, card)]:
        if name not in parameters:
            raise UserError(
                f"Backbone '{card.name}': {card.weights.model} has no parameter '{name}'.",
                f"{did_you_mean(name, parameters)} Correct weights.fixed on the card.",
            )
        parameters[name].requires_grad = False


def _drop(tensors: Tensors, card: BackboneCard, path: Path) -> Tensors:
    for pattern in card.weights.drop:
        kept = {name: tensor for name, tensor in tensors.items() if not re.search(pattern, name)}
        _require_match(len(kept) < len(tensors), "drop", pattern, tensors, path)
        tensors = kept
    return tensors


def _rename(tensors: Tensors, card: BackboneCard, path: Path) -> Tensors:
    for pattern, replacement in card.weights.rename.items():
        _require_match(any(re.search(pattern, name) for name in tensors), "rename", pattern, tensors, path)
        renamed: dict[str, str] = {}
        for name in tensors:
            new = _substitute(pattern, replacement, name)
            if new in renamed:
                raise UserError(
                    f"{path}: weights.rename '{pattern}' makes '{new}' of both '{renamed[new]}' and '{name}'.",
                    "Correct the pattern, or drop one of the two.",
                )
            renamed[new] = name
        tensors = {new: tensors[name] for new, name in renamed.items()}
    return tensors


def _substitute(pattern: str, replacement: str, name: str) -> str:
    try:
        return re.sub(pattern, replacement, name)
    except (re.error, IndexError) as error:
        raise UserError(
            f"weights.rename: '{replacement}' cannot replace '{pattern}' ({first_line(error)}).",
            "Use the groups that the pattern has, as in '\\\\1'.",
        ) from error


def _require_match(matches: bool, key: str, pattern: str, names: Iterable[str], path: Path) -> None:
    # A pattern that does nothing is a typo, or the file is another one than the card's author saw.
    if not matches:
        raise UserError(
            f"{path}: weights.{key} '{pattern}' matches none of its tensors ({', '.join([*names][:3])}, ...).",
            "Correct the pattern on the card, or get the right file.",
        )


def _classifier(card: BackboneCard) -> Mapping[str, torch.Tensor]:
    """The tensors, without data, of the full architecture that its trunk lacks."""
    with torch.device("meta"):
        full = timm_source.create(card, pretrained=False, num_classes=1000).state_dict()
        trunk = timm_source.create(card, pretrained=False).state_dict()
    return {name: tensor for name, tensor in full.items() if name not in trunk}


def _absent(model: nn.Module, card: BackboneCard) -> list[str]:
    """The parameters that the card calls `absent`, in the model's order."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in card.weights.absent:
        if not any(re.search(pattern, name) for name in names):
            raise UserError(
                f"Backbone '{card.name}': weights.absent '{pattern}' matches no parameter of {card.weights.model}.",
                "Correct the pattern on the card.",
            )
    return [name for name in names if any(re.search(pattern, name) for pattern in card.weights.absent)]


def _through_timm(tensors: Tensors, model: nn.Module, classifier: Mapping[str, torch.Tensor]) -> Tensors:
    """Convert with the `checkpoint_filter_fn` of the architecture's module, unless the tensors fit as they are."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    trunk = {name: tensor.shape for name, tensor in tensors.items() if name not in classifier}
    if convert is None or trunk == expected:
        return tensors
    if trunk.keys() == expected.keys():
        # timm's own names in another size: several filters know them by their classifier, which a trunk has not.
        tensors = {name: torch.zeros(like.shape) for name, like in classifier.items()} | tensors
    try:
        return dict(convert(dict(tensors), model))
    except Exception as error:  # whatever a filter raises on a layout that it does not know
        _log.debug("timm's checkpoint_filter_fn failed", exc_info=error)
        return tensors  # which do not fit, as the caller will say in the file's own names


def _rename_by_order(tensors: Tensors, card: BackboneCard, path: Path) -> Tensors:
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


def _require_fit(expected: Tensors, found: Tensors, card: BackboneCard, path: Path) -> None:
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
