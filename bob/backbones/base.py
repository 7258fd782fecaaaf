"""The one interface that every backbone has, whatever library or file its weights come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard
from bob.errors import UserError, first_line


@dataclass(frozen=True)
class LayerOutput:
    """What one block gives for a batch: `pooled` (B, D) and `map` (B, C, H, W)."""

    pooled: torch.Tensor
    map: torch.Tensor


class Backbone(nn.Module):
    """A pretrained image feature extractor, in eval mode.

    Args:
        card: Which checkpoint this is.
        model: Maps normalised images (B, 3, H, W) to (B, D), or to (B, C, H, W) which is averaged over H and W.
        preprocess: The checkpoint's own preprocessing.
        code: What, besides card, weights and preprocessing, decides the output: library versions, hash of user code.
    """

    def __init__(self, card: BackboneCard, model: nn.Module, preprocess: Preprocess, code: dict[str, str]) -> None:
        super().__init__()
        self.card = card
        self.model = model
        self.preprocess = preprocess
        self.code = code
        self.eval()

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return the global feature that the card declares: normalised (B, 3, H, W) -> (B, D).

        Raises:
            UserError: If the model returns something else.
        """
        output = self.model(images)
        if not isinstance(output, torch.Tensor) or output.ndim not in (2, 4) or len(output) != len(images):
            raise UserError(
                f"Backbone '{self.card.name}': expected features of shape (B, D) or (B, C, H, W) with "
                f"B = {len(images)}, but got {_describe(output)}.",
                "Return one feature vector or one map for each image.",
            )
        return output.mean(dim=(2, 3)) if output.ndim == 4 else output

    def layers(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> list[LayerOutput]:
        """Return pooled (B, D_i) and map (B, C_i, H_i, W_i) for each block, or for the blocks in `indices`.

        Raises:
            UserError: If this backbone cannot tell its blocks apart.
        """
        raise self._lacks("blocks to read one by one", "Use a timm, open_clip, torchvision or transformers model.")

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, list[LayerOutput]]:
        """Return what `embed` and `layers` return, in one forward pass where the source can.

        Raises:
            UserError: As they do.
        """
        return self.embed(images), self.layers(images)

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps (B, C_i, H_i, W_i) at the strides that `strides` says, finest first.

        Raises:
            UserError: If this backbone has no maps.
        """
        raise self._lacks("feature maps", "Use a timm, open_clip, torchvision or transformers model.")

    @property
    def strides(self) -> list[int]:
        """Stride, in input pixels, of each of the `feature_maps`."""
        raise self._lacks("feature maps", "Use a timm, open_clip, torchvision or transformers model.")

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return (N, D) text features; vision-language backbones only.

        Raises:
            UserError: If this backbone has no text tower.
        """
        raise self._lacks("a text tower", "Use a vision-language backbone.")

    def parameter_groups(
        self, layer_decay: float | None, *, lr: float, weight_decay: float, head: nn.Module | None = None
    ) -> list[dict[str, Any]]:
        """Return groups of all trainable parameters for an optimizer, each layer with its own share of the rate.

        See `bob.backbones.parameter_groups.parameter_groups`.

        Raises:
            UserError: If the layers cannot be told apart and `layer_decay` is neither None nor 1.
        """
        from bob.backbones.parameter_groups import parameter_groups

        return parameter_groups(self, head, lr=lr, weight_decay=weight_decay, layer_decay=layer_decay)

    def weights_sha256(self) -> str:
        """SHA-256 (hex) of all parameters and buffers with their names, types and shapes."""
        return hash_tensors(self.model.state_dict().items())

    def identity(self) -> dict[str, Any]:
        """Everything that decides what `embed` returns for an image; the same identity means the same features."""
        return {
            "model": f"{self.card.weights.source}:{self.card.weights.model}",
            "options": self.card.weights.options,
            "weights_sha256": self.weights_sha256(),
            "preprocess": self.preprocess.as_dict(),
            "feature": self.card.feature.model_dump(exclude={"width"}),
            "code": self.code,
        }

    def parameter_count(self) -> int:
        """Number of parameters of the feature extractor."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def width(self) -> int:
        """D, found by embedding one black image on the device where the weights are.

        Raises:
            UserError: If the model returns something else than features, or not the width on its card.
        """
        with torch.inference_mode():
            blank = torch.zeros(1, 3, *self.preprocess.size, dtype=torch.uint8, device=self.device)
            width = self.embed(self.preprocess.normalize(blank)).shape[1]
        declared = self.card.feature.width
        if declared not in (None, width):
            raise UserError(
                f"Backbone '{self.card.name}': expected features of width {declared}, as on its card, but got {width}.",
                "Correct feature.width on the card, or the weights.",
            )
        return width

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")

    def _lacks(self, what: str, remedy: str) -> UserError:
        return UserError(f"Backbone '{self.card.name}' has no {what}.", remedy)


def hash_tensors(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 (hex) of tensors with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in named:
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # Viewed as bytes because NumPy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def as_mistake_on(
    card: BackboneCard, library: str, asked: Mapping[str, object], spared: Callable[[Exception], bool] = lambda _: False
) -> Iterator[None]:
    """Blame the card's keys, those of `asked` that say something, for what a library refuses in the block.

    Errors that are `spared` go on as they are, and if the card asks for nothing all do: then it is a bug.

    Raises:
        UserError: Naming the keys and their values.
    """
    asked = {key: value for key, value in asked.items() if value}
    try:
        yield
    except Exception as error:
        if not asked or isinstance(error, UserError) or spared(error):
            raise
        values = " and ".join(f"{key} = {value!r}" for key, value in asked.items())
        problem = f"{library}'s {card.weights.model} does not take {values} ({first_line(error)})."
        raise UserError(problem, f"Correct {' or '.join(asked)} on the card.") from error


def _describe(output: object) -> str:
    return f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
