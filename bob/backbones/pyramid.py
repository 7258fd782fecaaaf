"""Feature maps of strides 4, 8, 16 and 32 from any backbone and images of any size, for detection and segmentation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from bob.backbones.base import Backbone
from bob.backbones.freeze import evaluating, freeze, keep_statistics
from bob.backbones.hooks import HookedBackbone
from bob.backbones.input_size import Size, resized
from bob.backbones.levels import STRIDES, Levels, grid_of
from bob.backbones.transformers_backbone import TransformersBackbone
from bob.errors import UserError, first_line

# Places by which a map of convolutions without padding may fall short.
_MOST_MISSING = 5


class Maps:
    """A backbone's own feature maps for images of any size; nothing is learnt, and the backbone stays as it is.

    Images are padded with zeros, the mean colour, at the right and at the bottom to what the model needs, and the maps
    cut back: map i is (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])). At the checkpoint's own size they
    are `Backbone.feature_maps` itself. See `bob.backbones.input_size` for what happens at another.

    Args:
        backbone: Tried on a blank image now; moved, copied and put in train mode by whoever holds it.
        size: (height, width) of all images, pixels; None for any.

    Attributes:
        strides: Of the maps, input pixels, finest first; a plain ViT has one.
        channels: Of the maps.
        multiple: What the model needs height and width to be a multiple of; 1 if it needs nothing.

    Raises:
        UserError: If the backbone has no feature maps, or takes other images than those that are asked for.
    """

    def __init__(self, backbone: Backbone, size: Size | None = None) -> None:
        self.backbone = backbone
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.strides: list[int] = list(backbone.strides)
        self.channels: list[int] = []
        self.multiple, self._tables, self._least = 1, False, (0, 0)
        self._try_out()

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of normalised images (B, 3, H, W), with gradients where they are wanted.

        Raises:
            ValueError: If `size` was given and the images have another.
        """
        size = (images.shape[-2], images.shape[-1])
        if self.size not in (None, size):
            raise ValueError(f"Expected `images` to be of {_px(self.size)}, but got {_px(size)}.")
        return [self._fitted(map_, s, size) for map_, s in zip(self._read(images), self.strides, strict=True)]

    @property
    def trial_size(self) -> Size:
        """A size, (height, width), that the backbone has been tried at."""
        return self._trial_sizes()[0]

    def _read(self, images: torch.Tensor) -> list[torch.Tensor]:
        height, width = images.shape[-2:]
        size = self._padded_size((height, width))
        if size != (height, width):
            images = functional.pad(images, (0, size[1] - width, 0, size[0] - height))
        with resized(self.backbone, size, self._tables):
            return self.backbone.feature_maps(images)

    def _padded_size(self, size: Size) -> Size:
        height, width = (
            math.ceil(max(edge, least) / self.multiple) * self.multiple
            for edge, least in zip(size, self._least, strict=True)
        )
        return height, width

    def _fitted(self, map_: torch.Tensor, stride: int, size: Size) -> torch.Tensor:
        """A map of the padded images, cut back to the images."""
        whole, (rows, columns) = grid_of(self._padded_size(size), stride), grid_of(size, stride)
        if tuple(map_.shape[-2:]) != whole:  # convolutions without padding give less
            map_ = functional.interpolate(map_, size=whole, mode="bilinear")
        return map_[..., :rows, :columns]

    def _try_out(self) -> None:
        """Find how the backbone takes other sizes than its own: with which padding, and whose position tables."""
        reason = ""
        # transformers' models resample their tables themselves.
        kinds = (False,) if isinstance(self.backbone, TransformersBackbone) else (False, True)
        for multiple, tables in itertools.product(self._multiples(), kinds):
            self.multiple, self._tables = multiple, tables
            try:
                if all(self._fits(size) for size in self._trial_sizes()):
                    return
                reason = "its maps are of other sizes than its strides say"
            except UserError as error:
                reason = error.problem.rstrip(".")
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a model raises that was not made for it
                reason = first_line(error).rstrip(".")
        raise self._refusal(reason)

    def _multiples(self) -> list[int]:
        own, step = self.backbone.preprocess.size, self._step()
        if self.size == own:
            return [1]
        # Windows that are a share of the image, as in MaxViT, fit a multiple of the whole size.
        whole = [max(own)] if math.lcm(step, *own) == max(own) else []
        return list(dict.fromkeys([1, step, 2 * step, *whole]))

    def _step(self) -> int:
        """What all strides divide, unless they are too odd for that."""
        common = math.lcm(*self.strides)
        return common if common <= 4 * max(self.strides) else max(self.strides)

    def _trial_sizes(self) -> list[Size]:
        if self.size is not None:
            return [self.size]
        # One more than a multiple of each stride shows whether a layer rounds down; not square, to tell the axes apart.
        step = math.ceil(16 / self._step()) * self._step()
        sizes = [(3 * step + 1, 5 * step + 1)]
        own = self.backbone.preprocess.size
        if self.multiple == max(own):
            sizes.append((own[0] + 1, 2 * own[1] + 1))  # else the first one would be padded to the backbone's own
        if isinstance(self.backbone, HookedBackbone):  # anyone's code, which may cut a piece of a table
            sizes.append((own[0] + 1, own[1] + step + 1))
        return sizes

    def _fits(self, size: Size) -> bool:
        """Whether a blank image gives maps of the right sizes; those of a network without padding are a little less."""
        self._least = (0, 0)
        blank = torch.zeros(1, 3, *size, device=self.backbone.device)
        with evaluating(self.backbone), torch.inference_mode(False), torch.no_grad():
            maps = self._read(blank)
        if len(maps) != len(self.strides):
            return False
        self.channels = [map_.shape[1] for map_ in maps]
        padded = self._padded_size(size)
        missing = [
            math.ceil(edge / stride) - found
            for map_, stride in zip(maps, self.strides, strict=True)
            for edge, found in zip(padded, map_.shape[-2:], strict=True)
        ]
        if any(missing) and self.size is None:
            self._least = padded  # on smaller ones it might have nothing left
        allowed = 0 if self.multiple == 1 and self.size is None else _MOST_MISSING
        return all(0 <= places <= allowed for places in missing)

    def _refusal(self, reason: str) -> UserError:
        own, name = self.backbone.preprocess.size, self.backbone.card.name
        asked = "images of any size" if self.size is None else f"images of {_px(self.size)}"
        return UserError(
            f"Backbone '{name}' was made for {_px(own)} and does not take {asked} ({reason}).",
            f"Give it images of {_px(own)}, or use a backbone that takes others.",
        )


class Pyramid(nn.Module):
    """Feature maps of strides 4, 8, 16 and 32 from any backbone: what a detector or a decoder is built on.

    Each native map of these strides is taken. What is missing is made from the nearest one by new layers: finer maps by
    deconvolutions with LayerNorm and GELU between them, coarser by max-pooling. A plain ViT, which has one map, so
    becomes ViTDet's simple feature pyramid. A map of another stride, such as 14, is first resampled bilinearly to the
    nearest power of two. Finer native maps than 4 are dropped.

    BatchNorm of the backbone stays in eval mode, as batches are small: its statistics stay, its weights train. Weights
    that no map depends on (the last norm, a pooling) take no gradient, so that every one that does gets one.

    Args:
        backbone: The caller gives it away; see `bob.engines.network.copy_backbone`.
        width: Channels of every map, by a 1 x 1 and a 3 x 3 convolution each, as in ViTDet; None leaves them as they
            come: the native ones, half as many after each deconvolution. Nothing passes from map to map in either
            case; that is an FPN's part.
        norm: Whether each native map first has a new LayerNorm over its channels, as mmdetection gives Swin and
            ConvNeXt; by default for backbones that normalise by LayerNorm, whose maps may be of any scale.
        frozen: Whether the backbone stays as it is, in eval mode and without gradients.
        size: (height, width) of all images, pixels; None for any.

    Attributes:
        backbone: See above.
        maps: The backbone's own maps.
        own: The new layers, without which there may be nothing to learn.
        strides: [4, 8, 16, 32].
        channels: Of each map.
        plain: Whether all maps come from one, as of a ViT.

    Raises:
        UserError: If the backbone has no feature maps, does not take images of such sizes or, unless frozen, cannot be
            trained.

    Source: arXiv 2203.16527; detectron2/modeling/backbone/vit.py.
    """

    def __init__(
        self,
        backbone: Backbone,
        width: int | None = None,
        *,
        norm: bool | None = None,
        frozen: bool = False,
        size: Size | None = None,
    ) -> None:
        super().__init__()
        self.maps = Maps(backbone, size)
        self.backbone = freeze(backbone) if frozen else _trainable(backbone)
        self.frozen = frozen
        if not frozen:
            _spare_unused(self.maps)
        norm = _normalises_by_layer(backbone.model) if norm is None else norm
        self.own = Levels(self.maps.strides, self.maps.channels, width, norm).to(backbone.device)
        self.strides = list(STRIDES)
        self.channels = self.own.channels
        self.plain = len(self.own.used) == 1

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return 4 maps of normalised images (B, 3, H, W): map s is (B, C_s, ceil(H / s), ceil(W / s))."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.maps(images)
        if not torch.is_inference_mode_enabled():
            # A frozen model may compute as it likes; new layers cannot learn from that.
            maps = [map_.clone() if map_.is_inference() else map_ for map_ in maps]
        return self.own(maps, (images.shape[-2], images.shape[-1]))

    def learnt(self) -> nn.ModuleDict:
        """What training changes, sharing its tensors: the new layers, and unless frozen the backbone."""
        return nn.ModuleDict({"own": self.own} if self.frozen else {"backbone": self.backbone.model, "own": self.own})


def _normalises_by_layer(model: nn.Module) -> bool:
    return any("LayerNorm" in type(part).__name__ for part in model.modules())


def _spare_unused(maps: Maps) -> None:
    """Let the backbone's weights that no map depends on take no gradient: they would have none, at every step."""
    backbone = maps.backbone
    wanted = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    blank = torch.zeros(1, 3, *maps.trial_size, device=backbone.device)
    why = "none of its parameters takes a gradient"
    found: Sequence[torch.Tensor | None] = ()
    try:
        with evaluating(backbone), torch.inference_mode(False), torch.enable_grad():
            total = torch.stack([map_.float().mean() for map_ in maps(blank)]).sum()
            if wanted and not total.requires_grad:
                why = "its forward pass cuts the gradient off, as torch.no_grad, detach and NumPy do"
            elif wanted:
                found = torch.autograd.grad(total, wanted, allow_unused=True)
    except RuntimeError as error:
        why = f"its forward pass fails where gradients are wanted ({first_line(error)})"
    if all(gradient is None for gradient in found):
        raise UserError(
            f"Backbone '{backbone.card.name}' cannot be trained: {why}.",
            "Mend that, or take a protocol that leaves it as it is, such as frozen or linear.",
        )
    for parameter, gradient in zip(wanted, found, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)


def _px(size: Size | None) -> str:
    return f"{size[0]} x {size[1]} px" if size else "any size"


def _trainable(backbone: Backbone) -> Backbone:
    """With a checkpoint's BatchNorm statistics as they are; those of a random initialisation are none to keep."""
    return keep_statistics(backbone) if backbone.card.weights.pretrained else backbone
