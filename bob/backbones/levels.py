"""Maps of strides 4, 8, 16 and 32 from the maps that a backbone has: the layers that a pyramid adds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from torch import nn
from torch.nn import functional

STRIDES = (4, 8, 16, 32)


def grid_of(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of the map of an image of `size`."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


class Levels(nn.Module):
    """The new layers of a `Pyramid`: native maps -> maps of strides 4, 8, 16 and 32.

    Args:
        strides: Of the native maps.
        channels: Of the native maps.
        width: See `Pyramid`.
        norm: See `Pyramid`.

    Attributes:
        used: Stride of the power of two nearest to it -> index of the native map.
        channels: Of the 4 maps.
    """

    def __init__(self, strides: Sequence[int], channels: Sequence[int], width: int | None, norm: bool) -> None:
        super().__init__()
        self._native = list(strides)
        self.used = _used(strides)
        self._sources = {stride: _source(stride, self.used) for stride in STRIDES}
        used = {stride: self.used[stride] for stride in sorted(set(self._sources.values()))}
        self.norms = nn.ModuleDict({str(s): LayerNorm2d(channels[i]) for s, i in used.items()} if norm else {})
        self.makers = nn.ModuleDict()
        self.outputs = nn.ModuleDict()
        self.channels: list[int] = []
        self.used = used
        for stride, source in self._sources.items():
            wide = channels[used[source]]
            if source > stride:
                steps = int(math.log2(source // stride))
                self.makers[str(stride)] = _finer(wide, steps)
                wide = _halved(wide, steps)
            if width is not None:
                self.outputs[str(stride)] = _output(wide, width)
            self.channels.append(width or wide)

    def forward(self, maps: Sequence[torch.Tensor], size: tuple[int, int]) -> list[torch.Tensor]:
        """Return the 4 maps of images of `size`, from the native ones."""
        native = {}
        for stride, index in self.used.items():
            map_ = maps[index]
            if stride != self._native[index]:
                map_ = _resampled(map_, self._native[index], stride, size)
            native[stride] = self.norms[str(stride)](map_) if self.norms else map_
        return [self._level(stride, native[source], size) for stride, source in self._sources.items()]

    def _level(self, stride: int, map_: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        source, key = self._sources[stride], str(stride)
        if source > stride:
            rows, columns = grid_of(size, stride)
            map_ = self.makers[key](map_)[..., :rows, :columns]
        while source < stride:
            map_, source = functional.max_pool2d(map_, 2, ceil_mode=True), 2 * source
        return self.outputs[key](map_) if self.outputs else map_


def _resampled(map_: torch.Tensor, old: int, new: int, size: tuple[int, int]) -> torch.Tensor:
    """The map of one stride at another, bilinearly, each place staying where it is in the image."""
    rows, columns = (
        _weights(found, wanted, new / old, map_)
        for found, wanted in zip(map_.shape[-2:], grid_of(size, new), strict=True)
    )
    return rows @ map_ @ columns.transpose(0, 1)


def _weights(found: int, wanted: int, step: float, like: torch.Tensor) -> torch.Tensor:
    """(wanted, found): the share of each old place in each new one along one axis."""
    # As two products rather than `grid_sample`, whose gradient on a GPU is not the same bits twice.
    places = torch.arange(found, device=like.device, dtype=torch.float32)
    centres = ((torch.arange(wanted, device=like.device) + 0.5) * step - 0.5).clamp(0, found - 1)
    return (1 - (centres[:, None] - places[None, :]).abs()).clamp(min=0).to(like.dtype)


# New layers.


def _used(strides: Sequence[int]) -> dict[int, int]:
    """Power of two -> index of the native map nearest to it; of 4 and more, or the coarsest if there is none."""
    nearest = {2 ** round(math.log2(stride)): index for index, stride in enumerate(strides)}
    return {s: i for s, i in nearest.items() if s >= STRIDES[0]} or {max(nearest): nearest[max(nearest)]}


def _source(stride: int, used: dict[int, int]) -> int:
    """The native stride that a level is made from: its own, or the nearest; of two as near, the coarser one."""
    return min(used, key=lambda other: (abs(math.log2(other / stride)), -other))


def _halved(wide: int, steps: int) -> int:
    return max(wide // 2**steps, 1)


def _finer(wide: int, steps: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for step in range(steps):
        if step:
            layers += [LayerNorm2d(_halved(wide, step)), nn.GELU()]
        layers.append(nn.ConvTranspose2d(_halved(wide, step), _halved(wide, step + 1), 2, 2))
    return nn.Sequential(*layers)


def _output(wide: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(wide, width, 1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        LayerNorm2d(width),
    )
