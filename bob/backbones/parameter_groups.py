"""Parameter groups for training: layer decay and weight decay for every architecture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import torch
from timm.models._manipulate import group_with_matcher
from torch import nn
from torch.autograd.graph import Node, saved_tensors_hooks

from bob.backbones.blocks import Block, find_blocks, first_tensor
from bob.backbones.freeze import evaluating
from bob.errors import UserError, first_line

if TYPE_CHECKING:
    from bob.backbones.base import Backbone

# Matrices of position and of single tokens, which a model that has no `no_weight_decay()` cannot name.
_NO_DECAY = (
    "pos_embed", "position_embedding", "positional_embedding", "pos_embedding", "relative_position", "rel_pos",
    "cls_token", "class_token", "class_embedding", "mask_token", "register_token", "reg_token", "dist_token",
    "distillation_token", "logit_scale",
)  # fmt: skip


def parameter_groups(
    backbone: Backbone,
    head: nn.Module | None,
    *,
    lr: float,
    weight_decay: float,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Group every trainable parameter once, from the stem to the head.

    Layer i of L has `lr_scale` layer_decay ** (L - i): the head, which is layer L, has 1 and the stem, layer 0, the
    least. The layers of a timm model are those of its `group_matcher`, also where another module wraps it; of other
    models they are the blocks of the main chain, a parameter belonging to the first block that depends on it.
    Vectors (norms, biases, layer scales) and what a model's `no_weight_decay` names have no weight decay.

    Args:
        backbone: Of its model, the trainable parameters; a text tower beside it has no part in images.
        head: Of the new task; None for none.
        lr: Of the head.
        weight_decay: Of matrices.
        layer_decay: Factor from each layer to the one below; None or 1 for one rate everywhere.

    Returns:
        Of each group `params`, `lr`, `lr_scale`, `weight_decay` and `name`, ready for an optimizer. `lr` is not
        scaled: timm's schedulers multiply it by `lr_scale`.

    Raises:
        UserError: If the blocks of a model that is not of timm cannot be told apart; no layer decay needs none.

    Source: arXiv 2106.08254 (BEiT), timm/optim/_param_groups.py.
    """
    learns = any(parameter.requires_grad for parameter in backbone.model.parameters())
    layers, top = _layers(backbone) if learns and layer_decay not in (None, 1) else ({}, 1)
    exempt = _no_weight_decay(backbone.model)
    groups = _Groups(lr, weight_decay, 1.0 if layer_decay is None else layer_decay, top)
    for name, parameter in backbone.model.named_parameters():
        if parameter.requires_grad:
            groups.add(layers.get(name, 0), parameter, parameter.ndim > 1 and name not in exempt)
    for parameter in head.parameters() if head is not None else ():
        if parameter.requires_grad:
            groups.add(None, parameter, parameter.ndim > 1)
    return groups.ordered()


class _Groups:
    """Parameters by layer and weight decay."""

    def __init__(self, lr: float, weight_decay: float, layer_decay: float, top: int) -> None:
        self._lr, self._weight_decay, self._layer_decay, self._top = lr, weight_decay, layer_decay, top
        self._groups: dict[tuple[int, bool, bool], dict[str, Any]] = {}

    def add(self, layer: int | None, parameter: nn.Parameter, decays: bool) -> None:
        """Put a parameter into its group; the layer None is the new head."""
        depth = self._top if layer is None else layer
        group = self._groups.setdefault((depth, layer is None, not decays), self._new(depth, layer is None, decays))
        group["params"].append(parameter)

    def ordered(self) -> list[dict[str, Any]]:
        """The groups, deepest first."""
        return [self._groups[key] for key in sorted(self._groups)]

    def _new(self, depth: int, is_head: bool, decays: bool) -> dict[str, Any]:
        place = "head" if is_head else f"layer_{depth}"
        return {
            "params": [],
            "lr": self._lr,
            "lr_scale": self._layer_decay ** (self._top - depth),
            "weight_decay": self._weight_decay if decays else 0.0,
            "name": f"{place}.{'decay' if decays else 'no_decay'}",
        }


def _no_weight_decay(model: nn.Module) -> set[str]:
    """Names of the parameters that a model and its parts exempt; where none of them says, those of a kind to be."""
    exempt: set[str] = set()
    says = [(f"{name}." if name else "", part) for name, part in model.named_modules() if _method(part)]
    for prefix, part in says:
        patterns = list(part.no_weight_decay())
        own = [name for name, _ in part.named_parameters()]
        exempt.update(prefix + name for name in own if any(fnmatch(name, pattern) for pattern in patterns))
    owners = tuple(prefix for prefix, _ in says)
    rest = [name for name, _ in model.named_parameters() if not name.startswith(owners)]
    return exempt | {name for name in rest if any(word in name for word in _NO_DECAY)}


def _method(part: nn.Module) -> bool:
    return callable(getattr(part, "no_weight_decay", None))


# Layers.


def _layers(backbone: Backbone) -> tuple[dict[str, int], int]:
    """Layer of each parameter of the backbone's model, and that of the head."""
    matched = [(name, part) for name, part in backbone.model.named_modules() if hasattr(part, "group_matcher")]
    # A matcher inside the first one's model is its business; one beside it is of a network that no matcher covers.
    if matched and all(name.startswith(matched[0][0]) for name, _ in matched):
        return _timm_layers(backbone.model, *matched[0])
    return _chain_layers(backbone)


def _timm_layers(whole: nn.Module, prefix: str, model: Any) -> tuple[dict[str, int], int]:
    """As timm counts a model with its classifier: what no pattern matches is of the classifier's layer.

    What a wrapper adds behind the model is of that layer too, and what it has before it of the deepest.
    """
    own = [name for name, _ in model.named_parameters()]
    beyond = "\0classifier"
    layers = group_with_matcher(((name, None) for name in [*own, beyond]), model.group_matcher(), reverse=True)
    top = layers.pop(beyond)
    found = {f"{prefix}.{name}".lstrip("."): layer for name, layer in layers.items()}
    outside = 0
    for name, _ in whole.named_parameters():
        outside = top if name in found else outside
        found.setdefault(name, outside)
    return found, top


def _chain_layers(backbone: Backbone) -> tuple[dict[str, int], int]:
    """Layer 0 is the stem, the others are blocks; what joins between two blocks is of the later one's layer."""
    network = _Embedding(backbone)
    try:
        with evaluating(backbone):
            blocks = find_blocks(network, backbone.preprocess.size, backbone.device)
            nodes = _outputs(network, blocks, backbone) if blocks else []
    except Exception as error:
        raise _untold(backbone, f" ({first_line(error)})") from error
    if not blocks:
        raise _untold(backbone)
    names = {id(parameter): name for name, parameter in backbone.model.named_parameters()}
    first = f"{blocks[0].name.removeprefix('model.')}."
    layers: dict[str, int] = {}
    for number, parameters in enumerate(_new_parameters(nodes), 1):
        for name in (names[id(parameter)] for parameter in parameters if id(parameter) in names):
            is_stem = number == 1 and not name.startswith(first)
            layers[name] = 0 if is_stem else min(number, len(blocks))
    for name in names.values():
        layers.setdefault(name, len(blocks))  # not part of the feature, like a pooler that nobody reads
    # A stem may itself be the first block, or spread over the first few, so that numbers are missing.
    order = {layer: place for place, layer in enumerate(sorted(set(layers.values())))}
    return {name: order[layer] for name, layer in layers.items()}, len(order)


def _untold(backbone: Backbone, why: str = "") -> UserError:
    return UserError(
        f"Backbone '{backbone.card.name}' has no blocks that could be told apart{why}, so none can learn slower.",
        "Train it with layer_decay = 1, or give the model timm's `group_matcher`.",
    )


class _Embedding(nn.Module):
    """A backbone's model whose forward pass is `embed`, as some models' own forward is another, or none."""

    _backbone: Backbone

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model = backbone.model
        self.__dict__["_backbone"] = backbone  # no submodule: it may hold the model a second time

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised (B, 3, H, W) -> (B, D)."""
        return self._backbone.embed(images)


def _outputs(network: nn.Module, blocks: Sequence[Block], backbone: Backbone) -> list[Node]:
    """Where the output of each block, and that of the whole, stand in autograd's graph of a blank image."""
    nodes: dict[Block, Node] = {}

    def watch(block: Block) -> torch.utils.hooks.RemovableHandle:
        calls = iter(range(10**9))

        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            tensor = first_tensor(output)
            if next(calls) == block.call and tensor is not None and tensor.grad_fn is not None:
                nodes[block] = tensor.grad_fn

        return network.get_submodule(block.name).register_forward_hook(keep)

    with ExitStack() as hooks, torch.inference_mode(False), torch.enable_grad():
        hooks.enter_context(saved_tensors_hooks(_forgotten, _forgotten))
        for block in blocks:
            hooks.callback(watch(block).remove)
        blank = torch.zeros(1, 3, *backbone.preprocess.size, device=backbone.device).requires_grad_() * 1
        end = network(blank).grad_fn
    return [*(nodes[block] for block in blocks), *([end] if end is not None else [])]


def _forgotten(_: torch.Tensor) -> torch.Tensor:
    return torch.empty(0)  # only the graph is wanted, so it keeps no activations


def _new_parameters(nodes: Iterable[Node]) -> Iterator[list[torch.Tensor]]:
    """The parameters that each node depends on and none before it does."""
    seen: set[Node] = set()
    for node in nodes:
        found: list[torch.Tensor] = []
        waiting = [node]
        while waiting:
            here = waiting.pop()
            if here in seen:
                continue
            seen.add(here)
            if hasattr(here, "variable"):  # a leaf of the graph
                found.append(here.variable)
            waiting += [before for before, _ in here.next_functions if before is not None]
        yield found
