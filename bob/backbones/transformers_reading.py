"""Where the features of transformers' vision models lie: tokens, maps and poolers differ from one to the next."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bob.backbones.base import LayerOutput
from bob.errors import UserError

# Their hidden states begin with the first block's, not with the embedding's.
_NO_EMBEDDING = {
    "mobilenet_v1", "mobilenet_v2", "mobilevit", "mobilevitv2", "pvt_v2", "poolformer", "segformer", "glpn", "cvt",
    "swiftformer",
}  # fmt: skip
# Their maps are (B, H, W, C); of the first ones, the last hidden state too.
_ALL_CHANNELS_LAST = {"sam2_vision_model", "sam2_hiera_det_model"}
_CHANNELS_LAST = {"hiera", "sam_vision_model", "sam_hq_vision_model", *_ALL_CHANNELS_LAST}
# Their hidden states are those after patch merging, at the next stage's stride.
_MERGED = {"swin", "swinv2", "donut-swin", "maskformer-swin"}


class Reading:
    """Reads features from a transformers vision encoder.

    Args:
        encoder: Maps `pixel_values` to an output with hidden states.
        pooling: The card's `feature.pooling`.

    Raises:
        UserError: If bob has no such pooling for these models.
    """

    def __init__(self, encoder: Any, pooling: str) -> None:
        if pooling not in ("default", "avg", "token"):
            raise UserError(
                f"A transformers model cannot pool by '{pooling}'.", "Use feature.pooling = default, avg or token."
            )
        self._encoder, self._pooling = encoder, pooling
        self._kind: str = encoder.config.model_type
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(encoder.forward).parameters

    def feature(self, images: torch.Tensor) -> torch.Tensor:
        """Return the global feature (B, D)."""
        output = self._run(images)
        pooled = getattr(output, "pooler_output", None)
        if self._pooling == "default" and pooled is not None:
            return pooled.mean(dim=(2, 3)) if pooled.ndim == 4 else pooled
        state = output.last_hidden_state
        if state.ndim == 3:
            return self._pooled(state, self._prefix(state, images))
        if self._pooling == "token":
            raise self._no_token()
        return state.mean(dim=(1, 2) if self._kind in _ALL_CHANNELS_LAST else (2, 3))

    def blocks(self, images: torch.Tensor) -> list[LayerOutput]:
        """Return pooled and map for each block, or stage of a hierarchical model."""
        with self._before_merging() as early:
            output = self._run(images, output_hidden_states=True)
        states = getattr(output, "reshaped_hidden_states", None) or output.hidden_states
        if early:
            return [self._block(state, images) for state in [*early, states[-1]]]
        first = 0 if self._kind in _NO_EMBEDDING else 1
        return [self._block(state, images) for state in states[first:]]

    def arguments(self, images: torch.Tensor) -> dict[str, Any]:
        """Arguments of the encoder that depend on the images' size."""
        # Only for another size than the checkpoint's: at its own, interpolation would only round.
        return {"interpolate_pos_encoding": True} if self._interpolates and self._is_resized(images) else {}

    def _run(self, images: torch.Tensor, **arguments: Any) -> Any:
        if self._kind == "vit_mae":
            # Its forward pass shuffles and masks patches; with mask_ratio 0 and rising noise it keeps all, in order.
            height, width = self._grid(images)
            noise = torch.arange(height * width, device=images.device, dtype=torch.float32)
            arguments["noise"] = noise.expand(len(images), -1)
        return self._encoder(pixel_values=images, return_dict=True, **arguments, **self.arguments(images))

    def _block(self, state: torch.Tensor, images: torch.Tensor) -> LayerOutput:
        if state.ndim == 4:
            map_ = state.permute(0, 3, 1, 2) if self._kind in _CHANNELS_LAST else state
            return LayerOutput(pooled=map_.mean(dim=(2, 3)), map=map_)
        prefix = self._prefix(state, images)
        height, width = self._grid(images)
        if state.shape[1] != prefix + height * width:
            raise self._no_map()
        map_ = state[:, prefix:].transpose(1, 2).unflatten(2, (height, width))
        return LayerOutput(pooled=self._pooled(state, prefix), map=map_)

    def _pooled(self, tokens: torch.Tensor, prefix: int) -> torch.Tensor:
        """Class token, or mean of the patches after the `prefix` of class and register tokens."""
        if self._pooling == "token" and not prefix:
            raise self._no_token()
        averages = self._pooling == "default" and getattr(self._encoder.config, "use_mean_pooling", False)
        if self._pooling == "avg" or averages or not prefix:
            return tokens[:, prefix:].mean(dim=1)
        return tokens[:, 0]

    def _prefix(self, tokens: torch.Tensor, images: torch.Tensor) -> int:
        if self._kind == "dinov3_convnext":
            return 1  # its pooled map stands before the last stage's positions
        if getattr(self._encoder.config, "depths", None):
            return 0
        height, width = self._grid(images)
        if tokens.shape[1] < height * width:
            raise self._no_map()
        return tokens.shape[1] - height * width

    def _grid(self, images: torch.Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        patch = getattr(self._encoder.config, "patch_size", None)
        if patch is None:
            raise self._no_map()
        patch_h, patch_w = _pair(patch)
        return images.shape[-2] // patch_h, images.shape[-1] // patch_w

    def _is_resized(self, images: torch.Tensor) -> bool:
        native = getattr(self._encoder.config, "image_size", None)
        return native is not None and tuple(images.shape[-2:]) != _pair(native)

    @contextmanager
    def _before_merging(self) -> Iterator[list[torch.Tensor]]:
        """Collect what each stage of a Swin gives to its patch merging, as maps (B, C, H, W)."""
        found: list[torch.Tensor] = []

        def keep(_: nn.Module, arguments: tuple[torch.Tensor, tuple[int, int]]) -> None:
            found.append(arguments[0].transpose(1, 2).unflatten(2, tuple(arguments[1])))

        stages = self._encoder.encoder.layers if self._kind in _MERGED else []
        hooks = [s.downsample.register_forward_pre_hook(keep) for s in stages if s.downsample is not None]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def _no_map(self) -> UserError:
        return UserError(f"bob cannot lay out the tokens of a {self._kind} as a map.", "Use another model.")

    def _no_token(self) -> UserError:
        return UserError(f"A {self._kind} has no class token.", "Use feature.pooling = default or avg.")


def _pair(value: Any) -> tuple[int, int]:
    """(height, width), which one number may stand for."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
