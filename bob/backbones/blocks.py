"""The blocks of any `nn.Module` and where its maps come out, found by one blank forward pass."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.autograd.graph import Node, saved_tensors_hooks

from bob.backbones.readings import Reading, readings


@dataclass(frozen=True)
class Block:
    """One output of the main chain: of the module `name`, the `call`-th time that it is called."""

    name: str
    call: int
    reading: Reading


@dataclass(frozen=True)
class _Call:
    """One call of a module: what it was the `index`-th call of, and where its output stands in autograd's graph."""

    name: str
    call: int
    index: int
    readings: tuple[Reading, ...]
    node: Node | None


@dataclass(frozen=True)
class _Unit:
    """A candidate for a block; a `composite` is a block of several layers, the others are one layer and its like."""

    call: _Call
    matrices: int

    @property
    def composite(self) -> bool:
        return self.matrices > 1


def find_blocks(model: nn.Module, size: tuple[int, int], device: torch.device) -> list[Block]:
    """Return the blocks of the main chain, first to last; empty if there is none to be told apart.

    A block is what a stage repeats: a child of an `nn.Sequential` or `nn.ModuleList`, not each of its convolutions;
    in networks without such blocks (VGG) it is a convolution with the norm and activation behind it, and so is a stem
    at a stride that has no block, or a pooling at one that has nothing else. Blocks follow one another: every path of
    autograd's graph from the image to a block goes through all blocks before it, so that branches, and what a residual
    connection bypasses, are none.

    Args:
        model: In eval mode; its forward must let gradients through.
        size: (height, width) of the blank image, pixels.
        device: Where the weights are.
    """
    calls, image = _trace(model, size, device)
    graph = _Graph(calls, image)
    output = calls[model][0].node if model in calls else None
    chain = _main_chain(_grouped(_Walk(calls, graph).inside(model, whole=True)), graph, output)
    nhwc_first = _mostly_nhwc(chain)
    blocks = [Block(unit.call.name, unit.call.call, _chosen(unit.call, nhwc_first)) for unit in chain]
    return _worth_reading(list(zip(blocks, chain, strict=True)))


def first_tensor(output: object) -> torch.Tensor | None:
    """The tensor that a module returns, alone or first among others."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, torch.Tensor) else None


# Watching a forward pass.


def _trace(
    model: nn.Module, size: tuple[int, int], device: torch.device
) -> tuple[dict[nn.Module, list[_Call]], Node | None]:
    """Run a blank image, and return each module's calls and the graph's node of the image."""
    calls: dict[nn.Module, list[_Call]] = {}
    count = iter(range(10**9))

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def record(module: nn.Module, _: object, output: object) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                earlier = calls.setdefault(module, [])
                call = _Call(name, len(earlier), next(count), readings(tuple(tensor.shape), size), tensor.grad_fn)
                earlier.append(call)

        return module.register_forward_hook(record)

    handles = [watch(name, module) for name, module in model.named_modules()]
    try:
        with torch.inference_mode(False), torch.enable_grad(), saved_tensors_hooks(_forgotten, _forgotten):
            # Only the graph is wanted, so it keeps no activations; `* 1` because a leaf takes no in-place operation.
            image = torch.zeros(1, 3, *size, device=device).requires_grad_() * 1
            start = image.grad_fn
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return calls, start


def _forgotten(_: torch.Tensor) -> torch.Tensor:
    return torch.empty(0)


class _Graph:
    """Which outputs every path of autograd's graph from the image to another output goes through (dominators)."""

    def __init__(self, calls: dict[nn.Module, list[_Call]], image: Node | None) -> None:
        nodes = {call.node: None for several in calls.values() for call in several if call.node is not None}
        self._bits = {node: 1 << place for place, node in enumerate(nodes)}
        self._masks: dict[Node, int | None] = {}  # None: does not depend on the image
        for node in nodes:
            self._visit(node, image)

    def reaches(self, node: Node | None) -> bool:
        """Whether the image reaches it."""
        return node is not None and self._masks.get(node) is not None

    def all_through(self, earlier: Node | None, later: Node | None) -> bool:
        """Whether every path from the image to `later` goes through `earlier`, or they are the same."""
        mask = self._masks.get(later) if later is not None else None
        return mask is not None and earlier is not None and bool(mask & self._bits[earlier])

    def _visit(self, node: Node, image: Node | None) -> None:
        """Depth first, without recursion: the graph of a deep network is deeper than Python's stack."""
        stack = [node]
        while stack:
            node = stack[-1]
            before = [earlier for earlier, _ in node.next_functions if earlier is not None and node is not image]
            waiting = [earlier for earlier in before if earlier not in self._masks]
            if waiting and node not in self._masks:
                stack += waiting
                continue
            stack.pop()
            paths = [mask for mask in (self._masks[earlier] for earlier in before) if mask is not None]
            if node is image or paths:
                common = functools.reduce(operator.and_, paths) if paths else 0
                self._masks[node] = common | self._bits.get(node, 0)
            else:
                self._masks[node] = None


# From modules to units.


class _Walk:
    """Goes from a model down to its blocks, and no further."""

    def __init__(self, calls: dict[nn.Module, list[_Call]], graph: _Graph) -> None:
        self.calls = calls
        self.graph = graph

    def inside(self, module: nn.Module, whole: bool = False) -> list[_Unit]:
        """The units of a module's children, in the order of their calls; `whole` if it is the whole network."""
        children = list(self._children(module))
        composites = [child for child in children if _matrices(child) > 1 and self._has_maps(child)]
        units: list[_Unit] = []
        for child in children:
            # A wrapper's only part is the whole network too.
            whole_child = whole and len(composites) == 1 and self._is_chain(child)
            if _matrices(child) > 1 and (whole_child or _is_sequence(child) or self._holds_blocks(child)):
                units += self.inside(child, whole_child)
            else:
                units += [_Unit(call, _matrices(child)) for call in self.calls[child] if call.readings]
        if len(children) == 0 and whole:
            units += [_Unit(call, _matrices(module)) for call in self.calls.get(module, []) if call.readings]
        return sorted(units, key=lambda unit: unit.call.index)

    def _children(self, module: nn.Module) -> Iterator[nn.Module]:
        """The modules that it calls; one that is never called itself, such as a ModuleList, stands for its own."""
        for child in module.children():
            if child in self.calls:
                if not isinstance(child, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):  # the end of the maps
                    yield child
            else:
                yield from self._children(child)

    def _has_maps(self, module: nn.Module) -> bool:
        return any(call.readings for part in module.modules() for call in self.calls.get(part, ()))

    def _is_chain(self, module: nn.Module) -> bool:
        return any(_matrices(child) > 1 and self._on_way(child, module) for child in self._children(module))

    def _holds_blocks(self, module: nn.Module) -> bool:
        """Whether it is a stage: its output comes through a list of blocks, itself or in one of its parts."""
        for child in module.children():
            if isinstance(child, nn.ModuleList) or _is_sequence(child):
                blocks = [block for block in child.children() if _matrices(block) > 1]
                one_kind = len(blocks) > 1 and len({type(block) for block in blocks}) == 1
                if one_kind and all(self._on_way(block, module) for block in blocks):
                    return True
        parts = [part for part in self._children(module) if _matrices(part) > 1]
        return any(self._on_way(part, module) and self._holds_blocks(part) for part in parts)

    def _on_way(self, part: nn.Module, module: nn.Module) -> bool:
        """Whether every path to the module's output goes through the part's."""
        if part not in self.calls or module not in self.calls:
            return False
        return self.graph.all_through(self.calls[part][-1].node, self.calls[module][-1].node)


def _is_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _matrices(module: nn.Module) -> int:
    """Number of its weights of convolutions, linear layers and the like; norms and scales have vectors only."""
    return sum(sum(edge > 1 for edge in parameter.shape) > 1 for parameter in module.parameters())


def _grouped(units: list[_Unit]) -> list[_Unit]:
    """Join one layer and what follows it at the same grid without weights of its own: norm, activation, dropout."""
    groups: list[_Unit] = []
    for unit in units:
        last = groups[-1] if groups else None
        if last and last.matrices == 1 and unit.matrices == 0 and last.call.readings == unit.call.readings:
            groups[-1] = replace(last, call=unit.call)
        else:
            groups.append(unit)
    return groups


# From units to blocks.


def _main_chain(units: list[_Unit], graph: _Graph, output: Node | None) -> list[_Unit]:
    """The longest row of units of which each lies on every way to the next.

    Of several rows of one length it is the one that ends on every way to the model's output; if there is none, as in
    two parallel streams, neither is the main one.
    """
    by_node: dict[Node | None, _Unit] = {}
    for unit in units:
        if graph.reaches(unit.call.node):
            by_node.setdefault(unit.call.node, unit)  # an identity has the node of its input
    rows = [[unit for node, unit in by_node.items() if graph.all_through(node, end)] for end in by_node]
    longest = max(map(len, rows), default=0)
    found = [row for row in rows if len(row) == longest]
    if len(found) > 1:
        found = [row for row in found if graph.all_through(row[-1].call.node, output)]
    return found[0] if len(found) == 1 else []


def _worth_reading(chain: list[tuple[Block, _Unit]]) -> list[Block]:
    """Leave out single layers beside blocks of the same stride, and poolings beside anything of the same stride.

    The last one with weights stays, as it is what the network goes on with: the final convolution of a MobileNet.
    """
    with_weights = [(block, unit) for block, unit in chain if unit.matrices]
    if not with_weights:
        return []
    composite = {block.reading.stride for block, unit in with_weights if unit.composite}
    weighted = {block.reading.stride for block, _ in with_weights}
    last = with_weights[-1][0]

    def stays(block: Block, unit: _Unit) -> bool:
        return unit.composite or block is last or block.reading.stride not in (composite if unit.matrices else weighted)

    return [block for block, unit in chain if stays(block, unit)]


def _mostly_nhwc(chain: list[_Unit]) -> bool:
    clear = [unit.call.readings[0].form for unit in chain if len(unit.call.readings) == 1]
    return clear.count("NHWC") > clear.count("NCHW")


def _chosen(call: _Call, nhwc_first: bool) -> Reading:
    """As many channels as columns leave the order of the axes open: then it is that of the other blocks."""
    return call.readings[-1] if nhwc_first else call.readings[0]
