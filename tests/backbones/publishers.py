"""Publishers' networks written down plainly, and the files that they publish, key for key; at any size, random weights.

Each function gives the network of one publisher, mapping images to its feature, and what the file holds. `small` is for
comparing outputs; the full size is built without data, on the device `meta`, for comparing names and shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet


@dataclass
class Published:
    """A publisher's network, its file, and the arguments that make timm's architecture as small."""

    model: nn.Module
    content: dict[str, Any]
    smaller: dict[str, Any] = field(default_factory=dict)


def with_prefix(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def randomise(module: nn.Module) -> nn.Module:
    """Move every tensor away from its initial value, so that none can be swapped, lost or left out unseen."""
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:
            continue
        if name.endswith("num_batches_tracked"):
            tensor.fill_(1000)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif not name.endswith(("attn_mask", "pos_embed")):
            tensor.add_(torch.randn_like(tensor) * 0.02)
    return module.eval()


def mlp(*widths: int, last_norm: bool = False, bias: bool = False) -> nn.Sequential:
    """Linear, batch norm, ReLU, ..., linear, as projectors and predictors are made."""
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        layers.append(nn.Linear(inner, outer, bias=bias))
        if not last:
            layers += [nn.BatchNorm1d(outer), nn.ReLU()]
        elif last_norm:
            layers.append(nn.BatchNorm1d(outer, affine=False))
    return nn.Sequential(*layers)


class PaddedResNet(ResNet):
    """VICReg's and SwAV's ResNet: pads the image by one pixel and the first convolution by one less; no classifier."""

    def __init__(self, layers: list[int]) -> None:
        super().__init__(Bottleneck, layers)
        self.fc = nn.Identity()
        self.padding = nn.ConstantPad2d(1, 0.0)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.padding(x))


def resnet(small: bool, kind: Any = None) -> tuple[ResNet, dict[str, Any]]:
    layers = [1, 1, 1, 1] if small else [3, 4, 6, 3]
    model = PaddedResNet(layers) if kind is PaddedResNet else ResNet(Bottleneck, layers)
    model.fc = nn.Identity()
    return randomise(model), {"layers": tuple(layers)} if small else {}


def dino_resnet50(small: bool) -> Published:
    model, smaller = resnet(small)
    return Published(model, model.state_dict(), smaller)


def barlow_twins_resnet50(small: bool) -> Published:
    return dino_resnet50(small)


def vicreg_resnet50(small: bool) -> Published:
    model, smaller = resnet(small, PaddedResNet)
    return Published(model, model.state_dict(), smaller)


def swav_resnet50(small: bool) -> Published:
    model, smaller = resnet(small, PaddedResNet)
    width = 32 if small else 2048
    content = with_prefix("module.", model)
    content |= with_prefix("module.projection_head.", mlp(2048, width, 128, bias=True))
    content |= with_prefix("module.prototypes.", nn.Linear(128, 30 if small else 3000, bias=False))
    return Published(model, content, smaller)


def simclr_resnet50(small: bool) -> Published:
    """As VISSL saves a whole training task."""
    model, smaller = resnet(small)
    trunk = with_prefix("_feature_blocks.", model)
    heads = with_prefix("0.clf.", nn.Sequential(nn.Linear(2048, 64), nn.ReLU(), nn.Linear(64, 128)))
    task = {"train": True, "base_model": {"model": {"trunk": trunk, "heads": heads}}, "losses": [0.5], "phase_idx": 799}
    return Published(model, {"phase": 799, "loss": None, "iteration": 1, "classy_state_dict": task}, smaller)


class Generalised(nn.Module):
    """SSCD's pooling: the cubic mean of what is positive."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([(channels.clamp(min=1e-6) ** 3).mean(-1) ** (1 / 3) for channels in x.flatten(2)])


class Unit(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=1, keepdim=True)


def sscd_resnet50(small: bool) -> Published:
    trunk, smaller = resnet(small)
    trunk.avgpool, trunk.fc = Generalised(), randomise(nn.Linear(2048, 512))
    model = nn.Sequential()
    model.add_module("backbone", trunk)
    model.add_module("embeddings", Unit())
    return Published(model.eval(), model.state_dict(), smaller)


def moco_content(encoder: nn.Module, head: str, width: int, layers: int, small: bool) -> dict[str, Any]:
    """MoCo v3's training checkpoint: two encoders with projectors instead of classifiers, and a predictor."""
    hidden = 16 if small else 4096
    state = {}
    for side in ("base", "momentum"):
        projector = mlp(width, *[hidden] * (layers - 1), 256, last_norm=True)
        other = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
        own = encoder.state_dict() if side == "base" else {name: 0 * tensor for name, tensor in other.items()}
        state |= {f"module.{side}_encoder.{name}": tensor for name, tensor in own.items()}
        state |= with_prefix(f"module.{side}_encoder.{head}.", projector)
    state |= with_prefix("module.predictor.", mlp(256, hidden, 256, last_norm=True))
    optimizer = {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0, 1]}]}
    return {"epoch": 300, "arch": "vit", "state_dict": state, "optimizer": optimizer}


def moco_v3_resnet50(small: bool) -> Published:
    model, smaller = resnet(small)
    return Published(model, moco_content(model, "fc", 2048, 2, small), smaller)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        each = query.shape[-1] // self.heads
        out = []
        for h in range(self.heads):
            part = slice(h * each, (h + 1) * each)
            weights = (query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(each)).softmax(dim=-1)
            out.append(weights @ value[..., part])
        return self.proj(torch.cat(out, dim=-1))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ViTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A ViT/16 at 224 pixels; its feature is the class token after the last norm."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module("proj", nn.Conv2d(3, width, kernel_size=16, stride=16))
        self.blocks = nn.Sequential(*[ViTBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1) + self.pos_embed
        return self.norm(self.blocks(tokens))[:, 0]


VITS = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


def vit(size: str, small: bool, heads: int | None = None) -> tuple[ViT, dict[str, Any]]:
    width, depth, usual = VITS[size]
    model = ViT(width, 2 if small else depth, heads or usual)
    return model, {"depth": 2} if small else {}


def sine_cosine(width: int, edge: int = 14) -> torch.Tensor:
    """MoCo v3's positions, entry by entry: sines and cosines of the row, then of the column; zero for the class."""
    table = torch.zeros(1, 1 + edge * edge, width)
    quarter = width // 4
    for token in range(edge * edge):
        row, column = divmod(token, edge)
        for i in range(quarter):
            omega = 10000.0 ** (-i / quarter)
            for k, value in enumerate(
                (math.sin(row * omega), math.cos(row * omega), math.sin(column * omega), math.cos(column * omega))
            ):
                table[0, 1 + token, k * quarter + i] = value
    return table


def moco_vit(size: str, small: bool) -> Published:
    model, smaller = vit(size, small, heads=12)
    width = VITS[size][0]
    if small:
        model.pos_embed.data = sine_cosine(width)
    randomise(model)
    return Published(model, moco_content(model, "head", width, 3, small), smaller)


def moco_v3_vit_small_patch16_224(small: bool) -> Published:
    return moco_vit("small", small)


def moco_v3_vit_base_patch16_224(small: bool) -> Published:
    return moco_vit("base", small)


def ibot_vit(size: str, small: bool) -> Published:
    model, smaller = vit(size, small)
    return Published(randomise(model), {"state_dict": model.state_dict(), "author": "iBOT"}, smaller)


def ibot_vit_small_patch16_224(small: bool) -> Published:
    return ibot_vit("small", small)


def ibot_vit_base_patch16_224(small: bool) -> Published:
    return ibot_vit("base", small)


def ibot_vit_large_patch16_224(small: bool) -> Published:
    return ibot_vit("large", small)


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int, layer_scale: bool) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.5)) if layer_scale else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(F.gelu(self.pwconv1(y)))
        y = y if self.gamma is None else self.gamma * y
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Facebook's ConvNeXt; VICRegL's has no layer scale and normalises before it averages, not after."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], original: bool) -> None:
        super().__init__()
        self.original = original
        stem = nn.Sequential(nn.Conv2d(3, widths[0], kernel_size=4, stride=4), ChannelNorm(widths[0], eps=1e-6))
        halve = [
            nn.Sequential(ChannelNorm(a, eps=1e-6), nn.Conv2d(a, b, kernel_size=2, stride=2))
            for a, b in pairwise(widths)
        ]
        self.downsample_layers = nn.ModuleList([stem, *halve])
        self.stages = nn.ModuleList(
            nn.Sequential(*[ConvNeXtBlock(width, original) for _ in range(depth)])
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        positions = x.flatten(2).transpose(1, 2)
        return self.norm(positions.mean(1)) if self.original else self.norm(positions).mean(1)


def convnext(depths: tuple[int, ...], widths: tuple[int, ...], original: bool = True) -> Published:
    model = randomise(ConvNeXt(depths, widths, original))
    content = model.state_dict()
    if original:
        content = {"model": content | with_prefix("head.", nn.Linear(widths[-1], 1000))}
    return Published(model, content, {"depths": depths, "dims": widths})


def vicregl_convnext_xlarge(small: bool) -> Published:
    if small:
        return convnext((1, 1, 2, 1), (16, 32, 64, 128), original=False)
    return convnext((3, 3, 27, 3), (256, 512, 1024, 2048), original=False)


class WindowAttention(nn.Module):
    """SwinV2's: cosine similarity, and a bias that a small network makes of the distance on a logarithmic scale."""

    def __init__(self, width: int, heads: int, window: int, pretrained_window: int) -> None:
        super().__init__()
        self.heads, self.window, self.pretrained_window = heads, window, pretrained_window
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        query, key, value = (self._split(part) for part in self.qkv(x).chunk(3, dim=-1))
        query = query + self._split(self.q_bias[None, None])
        value = value + self._split(self.v_bias[None, None])
        scale = self.logit_scale.clamp(max=math.log(100)).exp()
        cosines = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        weights = cosines * scale + self._bias()
        if mask is not None:
            weights = weights + mask.repeat(len(x) // len(mask), 1, 1)[:, None]
        return self.proj((weights.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _bias(self) -> torch.Tensor:
        reach = self.window - 1
        steps = torch.arange(-reach, reach + 1) * 8.0 / ((self.pretrained_window or self.window) - 1)
        logarithmic = steps.sign() * (steps.abs() + 1).log2() / 3
        rows, columns = torch.meshgrid(logarithmic, logarithmic, indexing="ij")
        table = 16 * self.cpb_mlp(torch.stack([rows, columns], dim=-1)).sigmoid()
        row = torch.arange(self.window).repeat_interleave(self.window)
        column = torch.arange(self.window).repeat(self.window)
        return table[row[:, None] - row + reach, column[:, None] - column + reach].permute(2, 0, 1)


class SwinBlock(nn.Module):
    def __init__(self, width: int, heads: int, edge: int, window: int, shifted: bool, pretrained_window: int) -> None:
        super().__init__()
        self.window = min(window, edge)
        self.shift = self.window // 2 if shifted and edge > window else 0
        self.attn = WindowAttention(width, heads, self.window, pretrained_window)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.norm2 = nn.LayerNorm(width)
        self.register_buffer("attn_mask", self._mask(edge) if self.shift else None)  # saved by timm up to 0.6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        edge = x.shape[1]
        rolled = x.roll((-self.shift, -self.shift), dims=(1, 2))
        mixed = self._join(self.attn(self._windows(rolled), self.attn_mask), edge)
        x = x + self.norm1(mixed.roll((self.shift, self.shift), dims=(1, 2)))
        return x + self.norm2(self.mlp(x))

    def _windows(self, x: torch.Tensor) -> torch.Tensor:
        parts = x.unflatten(2, (-1, self.window)).unflatten(1, (-1, self.window))
        return parts.transpose(2, 3).flatten(0, 2).flatten(1, 2)

    def _join(self, windows: torch.Tensor, edge: int) -> torch.Tensor:
        each = edge // self.window
        parts = windows.unflatten(1, (self.window, self.window)).unflatten(0, (-1, each, each))
        return parts.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _mask(self, edge: int) -> torch.Tensor:
        """-100 between positions of a window that the roll has brought together from opposite borders."""
        place = torch.arange(edge)
        band = (place >= edge - self.window).int() + (place >= edge - self.shift).int()
        regions = self._windows((band[:, None] * 3 + band)[None, :, :, None])[..., 0]
        return -100.0 * (regions[:, :, None] != regions[:, None, :]).float()


class Merging(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(2 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.norm(self.reduction(torch.cat(corners, dim=-1)))


class SwinStage(nn.Module):
    """Blocks, and then the merging that leads to the next stage: at its end, as SwinV2 was published."""

    def __init__(self, width: int, depth: int, heads: int, edge: int, window: int, pretrained: int, last: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *[SwinBlock(width, heads, edge, window, i % 2 == 1, pretrained) for i in range(depth)]
        )
        self.downsample = nn.Identity() if last else Merging(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downsample(self.blocks(x))


class SwinV2(nn.Module):
    """Its feature is the average over positions after the last norm."""

    def __init__(
        self, size: int, window: int, pretrained: tuple[int, ...], width: int, depths: tuple, heads: tuple
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.patch_embed.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(
            *[
                SwinStage(width << i, depths[i], heads[i], size // 4 >> i, window, pretrained[i], last=i == 3)
                for i in range(4)
            ]
        )
        self.norm = nn.LayerNorm(width << 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed.norm(self.patch_embed.proj(x).permute(0, 2, 3, 1))
        return self.norm(self.layers(x)).mean(dim=(1, 2))


def midas(small: bool, size: int, window: int, pretrained: tuple, width: int, depths: tuple, heads: tuple) -> Published:
    """MiDaS 3.1's depth model: the encoder with a classifier that nothing uses any more, and the decoder `scratch`."""
    if small:
        width, depths, heads = 16, (2, 2, 2, 2), (1, 2, 4, 8)
    model = randomise(SwinV2(size, window, pretrained, width, depths, heads))
    content = with_prefix("pretrained.model.", model)
    content |= with_prefix("pretrained.model.head.", nn.Linear(width << 3, 1000))
    for i in range(4):
        content |= with_prefix(f"scratch.layer{i + 1}_rn.", nn.Conv2d(width << i, 8, kernel_size=3, bias=False))
        content |= with_prefix(f"scratch.refinenet{i + 1}.out_conv.", nn.Conv2d(8, 8, kernel_size=1))
        content |= with_prefix(f"scratch.refinenet{i + 1}.resConfUnit1.conv1.", nn.Conv2d(8, 8, kernel_size=3))
    content |= with_prefix("scratch.output_conv.", nn.Sequential(nn.Conv2d(8, 4, 3), nn.Identity(), nn.Conv2d(4, 1, 1)))
    return Published(model, content, {"embed_dim": width, "depths": depths, "num_heads": heads} if small else {})


def midas_swin2_tiny(small: bool) -> Published:
    return midas(small, 256, 16, (0, 0, 0, 0), 96, (2, 2, 6, 2), (3, 6, 12, 24))


def midas_swin2_base(small: bool) -> Published:
    return midas(small, 384, 24, (12, 12, 12, 6), 128, (2, 2, 18, 2), (4, 8, 16, 32))
