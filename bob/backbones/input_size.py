"""A backbone that was built for images of one size, read at another for as long as a block lasts."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from timm.layers import Format, resample_abs_pos_embed
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import nn
from torch.nn import functional
from torchvision.models.vision_transformer import VisionTransformer

from bob.backbones.base import Backbone

Size = tuple[int, int]
# More tokens than this before those of the patches, and a table is none of the patches' positions.
_MOST_EXTRA_TOKENS = 16
# Added to the logits of what a patch must not attend to, as timm has it.
_HIDDEN = -100.0
# From one of the spread distances to the next, at most; beyond the last all are the last, as in BEiT.
_WIDEST = 1.5


@contextmanager
def resized(backbone: Backbone, size: Size, tables: bool = False) -> Iterator[None]:
    """Let a backbone take images of `size` (height, width) inside the block; after it, it is as it was.

    At its own size nothing is touched. At another, what the model holds for its own is resampled on the way, so that
    gradients reach the weights themselves and a state dict stays as it is:

    - timm's ViT, DeiT and EVA, and whatever has their `dynamic_img_size`: absolute and rotary positions;
    - BEiT and timm's other models whose relative positions span the whole image: their tables;
    - Swin and SwinV2: windows stay as large as in training, a map is padded to whole windows, and no patch attends to
      padding, nor over the edge that the shift closes; the last stage shifts where its map is larger than its window;
    - torchvision's ViT: the check of the size;
    - with `tables`, every parameter or buffer named after positions that has an entry for each patch.

    Other models take what they take: convolutional ones any size, and transformers' interpolate by themselves.

    Args:
        backbone: No thread may use it otherwise meanwhile.
        size: A multiple of the strides.
        tables: Whether position tables are resampled here; False for a model that does it by itself.

    Source: arXiv 2010.11929 (positions), 2106.08254 (BEiT), 2103.14030 (Swin); timm/layers/pos_embed.py.
    """
    own = backbone.preprocess.size
    if tuple(size) == tuple(own):
        yield
        return
    with ExitStack() as stack:
        for module in list(backbone.model.modules()):
            for change in _changes(module, size):
                stack.enter_context(change)
        if tables:
            for change in _position_tables(backbone, size):
                stack.enter_context(change)
        yield


def _changes(module: nn.Module, size: Size) -> Iterator[AbstractContextManager[Any]]:
    """What one part needs for images of this size."""
    values: dict[str, Any] = vars(module)
    if values.get("strict_img_size"):
        yield _swapped(values, "strict_img_size", False)
    if isinstance(module, (SwinTransformerBlock, SwinTransformerV2Block)):
        yield _shifting(module)
    elif values.get("dynamic_img_size") is False and hasattr(module, "_pos_embed"):
        yield from _dynamic(module)
    elif hasattr(module, "patch_embed") and hasattr(module.patch_embed, "dynamic_feat_size"):
        yield from _relative_tables(module, size)
    elif isinstance(module, VisionTransformer):
        yield _swapped(values, "_process_input", _Patches(module))


# timm's ViT and EVA.


def _dynamic(model: Any) -> Iterator[AbstractContextManager[Any]]:
    """What timm itself sets for `dynamic_img_size` when it builds the model."""
    yield _swapped(vars(model), "dynamic_img_size", True)
    yield _swapped(vars(model.patch_embed), "flatten", False)
    yield _swapped(vars(model.patch_embed), "output_fmt", Format.NHWC)
    for part in model.modules():
        if vars(part).get("_use_cached_embed"):  # rotary positions of one grid
            yield _swapped(vars(part), "_use_cached_embed", False)


# Relative positions over the whole image.


def _relative_tables(model: Any, size: Size) -> Iterator[AbstractContextManager[Any]]:
    own, grid = tuple(model.patch_embed.grid_size), tuple(model.patch_embed.dynamic_feat_size(size))
    windowed = (SwinTransformerBlock, SwinTransformerV2Block)
    if own == grid or any(isinstance(part, windowed) for part in model.modules()):
        return
    twins: dict[type, Any] = {}
    for part in model.modules():
        if not hasattr(part, "set_window_size") or tuple(getattr(part, "window_size", None) or ()) != own:
            continue
        table = getattr(part, "relative_position_bias_table", None)
        if table is None:
            yield _held(part, _at_window(part, dict(part._parameters), grid))
            continue
        if type(part) not in twins:
            # One for all parts of a kind, because its index has an entry for each pair of patches; its own table of
            # one head is not used.
            unused = nn.Parameter(torch.zeros_like(table[:, :1], device="cpu"), requires_grad=False)
            twins[type(part)] = _at_window(part, {"relative_position_bias_table": unused}, grid)
        yield _held(part, _with_table(part, table, grid, twins[type(part)]))


def _at_window(part: Any, parameters: dict[str, Any], grid: Size) -> dict[str, Any]:
    """The state of a part after timm's `set_window_size`, which must not reach the part itself."""
    twin = copy.copy(part)
    twin._parameters, twin._buffers = parameters, dict(part._buffers)
    twin.set_window_size(grid)
    return vars(twin)


def _with_table(part: Any, table: torch.Tensor, grid: Size, twin: dict[str, Any]) -> dict[str, Any]:
    """The state of a part at another window, its table made from the one that is learnt."""
    own, heads = tuple(part.window_size), table.shape[1]
    inner = (2 * own[0] - 1) * (2 * own[1] - 1)
    rows, columns = (_stretched(2 * a - 1, 2 * b - 1).to(table) for a, b in zip(own, grid, strict=True))
    grown = rows @ table[:inner].T.reshape(heads, 2 * own[0] - 1, 2 * own[1] - 1) @ columns.T
    new = torch.cat([grown.flatten(1).T, table[inner:]])  # behind the patches' distances those to a class token
    state: dict[str, Any] = {
        key: twin[key] for key in ("window_size", "window_area", "num_relative_distance") if key in twin
    }
    if "bias_shape" in twin:
        state["bias_shape"] = (*twin["bias_shape"][:2], heads)
    index = twin["_buffers"]["relative_position_index"]
    return {
        **state,
        "_parameters": {**part._parameters, "relative_position_bias_table": new},
        "_buffers": {**part._buffers, "relative_position_index": index},
    }


@contextmanager
def _held(part: nn.Module, state: dict[str, Any]) -> Iterator[None]:
    """A part in another state inside the block."""
    before = dict(vars(part))
    vars(part).update(state)
    try:
        yield
    finally:
        vars(part).clear()
        vars(part).update(before)


@functools.lru_cache(maxsize=64)
def _stretched(old: int, new: int) -> torch.Tensor:
    """(new, old): how each distance along one axis is mixed from those of training.

    The trained distances are spread in geometric progression until they reach the farthest of the larger image, so that
    near patches keep their own; a smaller image keeps the near ones as they are.
    """
    half, wanted = old // 2, new // 2

    def beyond(ratio: float) -> float:
        return float(np.sum(ratio ** np.arange(half))) - wanted

    ratio = 1.0 if half >= wanted else brentq(beyond, 1.0, _WIDEST) if beyond(_WIDEST) > 0 else _WIDEST
    places = np.concatenate([[0.0], np.cumsum(ratio ** np.arange(half))])
    places = np.concatenate([-places[:0:-1], places])
    targets = np.arange(-wanted, wanted + 1)
    mixed = np.stack([np.interp(targets, places, unit) for unit in np.eye(old)], axis=1)
    return torch.from_numpy(mixed).float()


# Swin.


@contextmanager
def _shifting(block: Any) -> Iterator[None]:
    """Set shift and mask of a Swin block by the map that comes in."""
    shifts = any(block.target_shift_size)

    def prepare(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        grid, window = inputs[0].shape[1:3], block.window_size
        shift = [edge // 2 if shifts and whole > edge else 0 for whole, edge in zip(grid, window, strict=True)]
        vars(block)["shift_size"] = tuple(shift)
        block._buffers["attn_mask"] = _mask(grid, window, shift, inputs[0])

    with (
        _swapped(vars(block), "shift_size", block.shift_size),
        _swapped(vars(block), "dynamic_mask", False),
        _swapped(block._buffers, "attn_mask", block._buffers["attn_mask"]),
        block.register_forward_pre_hook(prepare),
    ):
        yield


def _mask(grid: Sequence[int], window: Sequence[int], shift: Sequence[int], like: torch.Tensor) -> torch.Tensor | None:
    """(windows, patches, patches): what is added to the logits inside each window; None if every patch sees all."""
    if not any(shift) and all(whole % edge == 0 for whole, edge in zip(grid, window, strict=True)):
        return None
    rows, columns = (
        _regions(whole, edge, by, like.device) for whole, edge, by in zip(grid, window, shift, strict=True)
    )
    regions = rows[:, None, :, None] * 3 + columns[None, :, None, :]
    regions = regions.flatten(2).flatten(0, 1)
    apart = regions[:, :, None] != regions[:, None, :]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill_(apart, _HIDDEN)


def _regions(whole: int, window: int, shift: int, device: torch.device) -> torch.Tensor:
    """(windows, window): of each place, after the shift, 0 if it is where it was, 1 if it came round, 2 if padding."""
    places = torch.arange(-(-whole // window) * window, device=device)
    return ((places >= whole - shift).long() + (places >= whole).long()).view(-1, window)


# Absolute positions of any model.


class _Patches:
    """Stands in for torchvision's `_process_input`, without the check of the size."""

    def __init__(self, model: VisionTransformer) -> None:
        self._model = model

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self._model.conv_proj(images).flatten(2).transpose(1, 2)


def _position_tables(backbone: Backbone, size: Size) -> Iterator[AbstractContextManager[Any]]:
    for module in backbone.model.modules():
        for store in (module._parameters, module._buffers):
            for name, table in list(store.items()):
                if "pos" in name.lower() and table is not None and table.is_floating_point():
                    new = _resampled(table, backbone.preprocess.size, size, backbone.strides)
                    if new is not None:
                        yield _swapped(store, name, new)


def _resampled(table: torch.Tensor, own: Size, size: Size, strides: list[int]) -> torch.Tensor | None:
    """The table at the other size; None if it has not an entry for each patch of one of the strides."""
    for stride in strides:
        old, new = (tuple(edge // stride for edge in edges) for edges in (own, size))
        if table.ndim == 4 and len(table) == 1:
            for last in (False, True):
                grid = tuple(table.shape[1:3] if last else table.shape[2:])
                if all(abs(a - b) <= 1 for a, b in zip(grid, old, strict=True)):
                    # Overlapping patches may be one less than the stride says.
                    wanted = [edge + a - b for edge, a, b in zip(new, grid, old, strict=True)]
                    return _resampled_map(table, wanted, last)
        elif table.ndim in (2, 3) and (table.ndim == 2 or len(table) == 1):
            extra = table.shape[-2] - old[0] * old[1]
            if 0 <= extra <= _MOST_EXTRA_TOKENS:
                whole = table.reshape(1, *table.shape[-2:])
                found = resample_abs_pos_embed(whole, list(new), list(old), num_prefix_tokens=extra)
                return found.reshape(*table.shape[:-2], *found.shape[-2:])
    return None


def _resampled_map(table: torch.Tensor, grid: list[int], channels_last: bool) -> torch.Tensor:
    maps = table.permute(0, 3, 1, 2) if channels_last else table
    maps = functional.interpolate(maps.float(), size=grid, mode="bicubic", antialias=True).to(table.dtype)
    return maps.permute(0, 2, 3, 1) if channels_last else maps


@contextmanager
def _swapped(store: dict[str, Any], key: str, value: Any) -> Iterator[None]:
    """Another value inside the block, and the old one, or none, after it."""
    missing = object()
    before = store.get(key, missing)
    store[key] = value
    try:
        yield
    finally:
        if before is missing:
            del store[key]
        else:
            store[key] = before
