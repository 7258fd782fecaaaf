"""What of a backbone's output is stored for an image: its feature, every block, tokens, averaged crops or maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn.functional import adaptive_avg_pool2d

from bob.backbones.base import Backbone, LayerOutput
from bob.features.maps import MOST_POSITIONS, STRIDE, Grid, join_maps, read_strides, whole_image
from bob.features.patches import crop_patches

if TYPE_CHECKING:
    from bob.backbones.pyramid import Maps

OUTPUT = "output"
# Positions stored of a map at most, 14 x 14 (a ViT/16 at 224 px); finer maps are averaged down to it.
_GRID = 14

Columns = dict[str, slice]


@dataclass(frozen=True)
class Reading:
    """A way of reading one vector per image off a backbone.

    Attributes:
        kind: `feature` is what `embed` returns; `blocks` is each block pooled, each block's mean over its map where
            that is another vector, and the feature; `tokens` is the last block's map, position after position; `maps`
            is one grid over the whole image (see `bob.features.maps`), position after position, in half precision.
        patches: Number of fixed-scale crops of the image whose features are averaged (BagSSL, arXiv 2206.08954); 0
            for the checkpoint's own crop of the whole image.
        size: Height and width that the whole image is squashed to, for `maps`; None for the checkpoint's own.
    """

    kind: Literal["feature", "blocks", "tokens", "maps"] = "feature"
    patches: int = 0
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.size is not None) if self.kind != "maps" else self.patches:
            raise ValueError(f"Expected `size` for maps alone, and `patches` for anything else, but got {self}.")

    @property
    def crops(self) -> tuple[object, ...]:
        """Readings that agree in this can be taken in one forward pass."""
        return (self.patches, self.kind == "maps", self.size)

    @property
    def dtype(self) -> Literal["float32", "float16"]:
        """Type of the stored numbers; whole maps are large."""
        return "float16" if self.kind == "maps" else "float32"

    def identity(self) -> dict[str, Any]:
        """What a store's identity says of it; nothing for the plain feature."""
        said: dict[str, Any] = {} if self.kind == "feature" else {"kind": self.kind}
        if self.kind == "tokens":
            said["grid"] = _GRID
        if self.kind == "maps":
            said |= {"stride": STRIDE, "positions": MOST_POSITIONS, "size": list(self.size) if self.size else None}
        if self.patches:
            said["patches"] = self.patches
        return {"reading": said} if said else {}

    def crop(self, backbone: Backbone) -> Callable[[torch.Tensor], torch.Tensor]:
        """What the loader does to an image: uint8 (3, H, W) -> (3, h, w), or (patches, 3, h, w).

        Raises:
            UserError: If the backbone has no maps to read.
        """
        if self.kind == "maps":
            return whole_image(backbone.preprocess, backbone.strides, self.size).crop
        if not self.patches:
            return backbone.preprocess.crop
        return lambda image: crop_patches(image, backbone.preprocess, self.patches)

    def forwards(self, backbone: Backbone) -> float:
        """What reading an image costs, in forward passes of the checkpoint's own input size; raises as `crop`."""
        if self.kind != "maps":
            return float(max(1, self.patches))
        height, width = whole_image(backbone.preprocess, backbone.strides, self.size).size
        return height * width / (backbone.preprocess.size[0] * backbone.preprocess.size[1])


FEATURE = Reading()
BLOCKS = Reading("blocks")
TOKENS = Reading("tokens")


class Reader:
    """Takes readings that share their crops off a backbone, in one forward pass.

    Args:
        backbone: Opened.
        readings: What to read; all of the same `crops`.
    """

    def __init__(self, backbone: Backbone, readings: Sequence[Reading]) -> None:
        if len({reading.crops for reading in readings}) != 1:
            raise ValueError(f"Expected readings of the same crops, but got {list(readings)}.")
        self.readings = list(readings)
        self._backbone = backbone
        self._means: list[bool] | None = None
        self._maps = _maps_of(backbone, self.readings[0].size) if self.readings[0].kind == "maps" else None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised (B, 3, H, W), or (B * patches, 3, H, W) -> (B, W), the readings one after another."""
        if self._maps is not None:
            return join_maps(self._maps(images), self._maps.strides).flatten(1)
        if [reading.kind for reading in self.readings] == ["feature"]:
            read = self._backbone.embed(images)
        else:
            feature, layers = self._backbone.read(images)
            read = torch.cat([torch.cat(list(self._parts(r, feature, layers).values()), 1) for r in self.readings], 1)
        patches = self.readings[0].patches
        return read.unflatten(0, (-1, patches)).mean(dim=1) if patches else read

    def widths(self) -> list[int]:
        """Number of columns of each reading.

        Raises:
            UserError: If the backbone has no blocks to read.
        """
        if [reading.kind for reading in self.readings] == ["feature"]:
            return [self._backbone.width()]
        return [max(part.stop for part in self.columns(reading).values()) for reading in self.readings]

    def columns(self, reading: Reading) -> Columns:
        """Where each part of a reading stands: `output`; `block0`, ..., `block0.mean`, ...; `token0`, ...; `maps`.

        Raises:
            UserError: If the backbone has no blocks, or no maps, to read.
        """
        if reading.kind == "maps":
            return {"maps": slice(0, self.grid().width)}
        if reading.kind == "feature":
            return {OUTPUT: slice(0, self._backbone.width())}
        with torch.inference_mode():
            parts = self._parts(reading, *self._backbone.read(_noise(self._backbone)))
        columns, start = {}, 0
        for name, part in parts.items():
            columns[name] = slice(start, start + part.shape[1])
            start += part.shape[1]
        return columns

    def grid(self) -> Grid:
        """The form of the maps that are read, found out on noise.

        Raises:
            ValueError: If no maps are read.
            UserError: If the backbone has none.
        """
        if self._maps is None:
            raise ValueError(f"Expected a reading of maps, but got {self.readings}.")
        backbone = self._backbone
        size = whole_image(backbone.preprocess, backbone.strides, self.readings[0].size).size
        with torch.inference_mode():
            maps = self._maps(_noise(backbone, size))
        native = maps[list(self._maps.strides).index(read_strides(self._maps.strides)[0])].shape[-2:]
        _, rows, columns, channels = join_maps(maps, self._maps.strides).shape
        rounded = (int(native[0]), int(native[1]))
        return Grid(rows, columns, channels, size, None if rounded == (rows, columns) else rounded)

    def _parts(self, reading: Reading, feature: torch.Tensor, layers: list[LayerOutput]) -> dict[str, torch.Tensor]:
        if reading.kind == "feature":
            return {OUTPUT: feature}
        if reading.kind == "tokens":
            tokens = _tokens(layers[-1].map)
            return {f"token{i}": tokens[:, i] for i in range(tokens.shape[1])}
        parts = {f"block{i}": layer.pooled.flatten(1) for i, layer in enumerate(layers)}
        for i, (layer, apart) in enumerate(zip(layers, self._with_means(), strict=True)):
            if apart:
                parts[f"block{i}.mean"] = layer.map.mean(dim=(2, 3))
        return {**parts, OUTPUT: feature}

    def _with_means(self) -> list[bool]:
        """Of each block, whether it is pooled otherwise than by the mean; found out once, on noise."""
        if self._means is None:
            with torch.inference_mode():
                layers = self._backbone.layers(_noise(self._backbone))
            self._means = [not torch.allclose(layer.pooled, layer.map.mean((2, 3)), atol=1e-5) for layer in layers]
        return self._means


def _maps_of(backbone: Backbone, size: tuple[int, int] | None) -> Maps:
    from bob.backbones.pyramid import Maps  # here, as most runs read no maps

    return Maps(backbone, whole_image(backbone.preprocess, backbone.strides, size).size)


def _tokens(map_: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, P, C) with P at most 14 x 14."""
    rows, columns = (min(edge, _GRID) for edge in map_.shape[-2:])
    if (rows, columns) != tuple(map_.shape[-2:]):
        map_ = adaptive_avg_pool2d(map_, (rows, columns))
    return map_.flatten(2).transpose(1, 2)


def _noise(backbone: Backbone, size: tuple[int, int] | None = None) -> torch.Tensor:
    """One normalised image of noise: on a blank one, a class token and the mean of the patches might agree."""
    noise = torch.randint(256, (1, 3, *(size or backbone.preprocess.size)), generator=torch.Generator().manual_seed(0))
    return backbone.preprocess.normalize(noise.to(torch.uint8).to(backbone.device))
