"""Blocks and maps of any `nn.Module`, read by forward hooks while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from bob.backbones.base import Backbone, LayerOutput
from bob.backbones.blocks import Block, find_blocks, first_tensor
from bob.backbones.freeze import evaluating
from bob.errors import UserError, first_line

T = TypeVar("T")
_REMEDY = "Use a backbone whose stages lie in nn.Sequential or nn.ModuleList, or give it `layers` of its own."


@dataclass(frozen=True)
class _Plan:
    """What one model gives to read, learnt once.

    Attributes:
        blocks: Of the main chain, first to last.
        changed: Those whose output the model changes in place afterwards, so that it must be copied.
        token: Whether the model's feature is the first token of its last block.
    """

    blocks: tuple[Block, ...]
    changed: frozenset[Block]
    token: bool


class HookedBackbone(Backbone):
    """A plain module, whose blocks are found by one blank forward pass when they are first asked for."""

    _plan: _Plan | None = None

    def layers(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> list[LayerOutput]:
        """See `Backbone.layers`; blocks in the order of `blocks`.

        A block is pooled by averaging its map, or by its class token where the model's own feature is that token.
        """
        plan = self._learnt()
        wanted = plan.blocks if indices is None else [self._block(index) for index in indices]
        _, outputs = _read(self.model, wanted, lambda: self.model(images), plan.changed)
        return [self._layer(block, outputs[block], images) for block in wanted]

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, list[LayerOutput]]:
        """See `Backbone.read`; one pass."""
        plan = self._learnt()
        feature, outputs = _read(self.model, plan.blocks, lambda: self.embed(images), plan.changed)
        return feature, [self._layer(block, outputs[block], images) for block in plan.blocks]

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """See `Backbone.feature_maps`: the last map of each stride, finest first."""
        plan, wanted = self._learnt(), self._last_block_of_each_stride()
        _, outputs = _read(self.model, wanted, lambda: self.model(images), plan.changed)
        return [self._map(block, outputs[block], images) for block in wanted]

    @property
    def strides(self) -> list[int]:
        """See `Backbone.strides`; a plain ViT has one, its patch size."""
        return [block.reading.stride for block in self._last_block_of_each_stride()]

    @property
    def blocks(self) -> list[str]:
        """Names, in the model, of the modules that `layers` reads.

        Raises:
            UserError: If they cannot be told apart.
        """
        return [block.name for block in self._learnt().blocks]

    def _last_block_of_each_stride(self) -> list[Block]:
        last = {block.reading.stride: block for block in self._learnt().blocks}
        return [last[stride] for stride in sorted(last)]

    def _block(self, index: int) -> Block:
        blocks = self._learnt().blocks
        if not -len(blocks) <= index < len(blocks):
            raise UserError(
                f"Backbone '{self.card.name}' has no block {index}: it has {len(blocks)}.",
                f"Take one of 0 to {len(blocks) - 1}.",
            )
        return blocks[index]

    def _layer(self, block: Block, output: torch.Tensor, images: torch.Tensor) -> LayerOutput:
        map_ = self._map(block, output, images)
        by_token = self._learnt().token and block.reading.extra > 0
        return LayerOutput(pooled=output[:, 0] if by_token else map_.mean(dim=(2, 3)), map=map_)

    def _map(self, block: Block, output: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) from whatever form the block gives."""
        reading = block.reading
        if reading.form == "NCHW":
            return output
        if reading.form == "NHWC":
            return output.permute(0, 3, 1, 2)
        rows, columns = (edge // reading.stride for edge in images.shape[-2:])
        patches = output[:, reading.extra :]
        if rows * columns != patches.shape[1]:
            raise UserError(
                f"Backbone '{self.card.name}': expected {rows} x {columns} patches in block '{block.name}' for images "
                f"of {images.shape[-2]} x {images.shape[-1]} px, but got {patches.shape[1]}.",
                f"Give images of {self.preprocess.size[0]} x {self.preprocess.size[1]} px.",
            )
        return patches.transpose(1, 2).reshape(len(output), -1, rows, columns)

    def _learnt(self) -> _Plan:
        if self._plan is None:
            with evaluating(self.model):
                self._plan = self._learn()
        return self._plan

    def _learn(self) -> _Plan:
        """Find the blocks, then run them twice more without a graph."""
        size, device = self.preprocess.size, self.device
        try:
            blocks = find_blocks(self.model, size, device)
        except Exception as error:
            # As forward has run before, it is the watching that it does not bear: `.numpy()`, a scripted module.
            raise self._lacks(f"blocks to read one by one ({first_line(error)})", _REMEDY) from error
        if not blocks:
            raise self._lacks("blocks to read one by one that could be told apart", _REMEDY)
        blank = torch.zeros(1, 3, *size, device=device)
        with torch.inference_mode(False), torch.no_grad():
            changed = _changed_in_place(self.model, blank, blocks)
            token = blocks[-1].reading.extra > 0 and _is_token(self.model, blank, blocks[-1])
        return _Plan(tuple(blocks), changed, token)


def _read(
    model: nn.Module, blocks: Sequence[Block], run: Callable[[], T], copied: frozenset[Block]
) -> tuple[T, dict[Block, torch.Tensor]]:
    """Let `run` run the model once; return what it returns, and what each of the blocks gave."""
    outputs: dict[Block, torch.Tensor] = {}

    def keep(block: Block, tensor: torch.Tensor) -> None:
        outputs[block] = tensor.clone() if block in copied else tensor

    with ExitStack() as hooks:
        for block in dict.fromkeys(blocks):
            hooks.enter_context(_hook(model, block, keep))
        result = run()
    return result, outputs


def _hook(model: nn.Module, block: Block, then: Callable[[Block, torch.Tensor], object]) -> RemovableHandle:
    """Call `then` with the block's output; what it returns, unless None, takes the output's place."""
    seen = 0

    def hook(_module: nn.Module, _inputs: object, output: object) -> object:
        nonlocal seen
        seen += 1
        tensor = first_tensor(output)
        changed = then(block, tensor) if seen == block.call + 1 and tensor is not None else None
        return (changed, *output[1:]) if changed is not None and isinstance(output, (tuple, list)) else changed

    return model.get_submodule(block.name).register_forward_hook(hook)


def _changed_in_place(model: nn.Module, blank: torch.Tensor, blocks: Sequence[Block]) -> frozenset[Block]:
    """The blocks whose output is another by the end of the pass, as behind an in-place ReLU."""
    versions: dict[Block, int] = {}
    outputs: dict[Block, torch.Tensor] = {}

    def keep(block: Block, tensor: torch.Tensor) -> None:
        outputs[block], versions[block] = tensor, tensor._version

    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(_hook(model, block, keep))
        model(blank)
    return frozenset(block for block, tensor in outputs.items() if tensor._version != versions[block])


def _is_token(model: nn.Module, blank: torch.Tensor, last: Block) -> bool:
    """Whether the feature changes with the first token of the last block, and with no other."""
    if blank.is_meta:
        return True  # no numbers to compare, and only shapes are asked of a model without memory
    expected = model(blank)

    def changes(part: slice) -> bool:
        def disturb(_: Block, tokens: torch.Tensor) -> torch.Tensor:
            disturbed = tokens.clone()
            disturbed[:, part] = tokens[:, part].flip(2) + 1
            return disturbed

        with _hook(model, last, disturb):
            return not torch.equal(model(blank), expected)

    return changes(slice(0, 1)) and not changes(slice(1, None))
