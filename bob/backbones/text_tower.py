"""What vision-language backbones add to the interface: a text tower, and the scale that compares text with images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from bob.backbones.base import Backbone, hash_tensors

_PROMPTS_AT_ONCE = 256


class TextTower(Backbone):
    """A backbone whose model has a text tower too; the image tower alone counts as the backbone's weights.

    Attributes:
        dual: The whole model, with `logit_scale` and, if it was trained with one, `logit_bias`.
        image_parts: Prefixes of the names, in `dual`, of what sees images.
    """

    dual: Any
    image_parts: tuple[str, ...]

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """What makes tokens of a list of strings.

        Raises:
            UserError: If its files are neither here nor reachable.
        """

    @abstractmethod
    def tokenizer_identity(self) -> dict[str, Any]:
        """Everything that decides which tokens a prompt becomes, as plain JSON; raises as `tokenizer`."""

    @abstractmethod
    def _encode(self, prompts: list[str]) -> torch.Tensor:
        """(N, D) of a few prompts."""

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """See `Backbone.encode_text`: embeddings in the space shared with images, not normalised.

        What exceeds the context length is cut off.

        Raises:
            UserError: If the card's feature is not the image embedding, or the tokenizer cannot be had.
            ValueError: If `prompts` is empty or a single string.
        """
        if self.card.feature.layer != "image_embedding":
            raise self._lacks(
                f"text to compare with its '{self.card.feature.layer}'", 'Set feature.layer = "image_embedding".'
            )
        if isinstance(prompts, str) or not len(prompts):
            raise ValueError(f"Expected `prompts` to be a list of one or more strings, but got {prompts!r}.")
        starts = range(0, len(prompts), _PROMPTS_AT_ONCE)
        return torch.cat([self._encode(list(prompts[start : start + _PROMPTS_AT_ONCE])) for start in starts])

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine similarity in the model's own logits (the inverse of its temperature)."""
        return float(self.dual.logit_scale.detach().exp())

    @property
    def logit_bias(self) -> float:
        """Summand of the model's own logits; 0 except for SigLIP."""
        bias = getattr(self.dual, "logit_bias", None)
        return 0.0 if bias is None else float(bias.detach())

    def text_identity(self) -> dict[str, Any]:
        """Everything that decides what `encode_text`, `logit_scale` and `logit_bias` return, as plain JSON.

        With `identity` it identifies the model's own zero-shot logits, given the prompts.

        Raises:
            UserError: If the tokenizer cannot be had.
        """
        tensors = self.dual.state_dict().items()
        return {
            "model": f"{self.card.weights.source}:{self.card.weights.model}",
            "options": self.card.weights.options,
            "text_sha256": hash_tensors((n, t) for n, t in tensors if not n.startswith(self.image_parts)),
            "tokenizer": self.tokenizer_identity(),
            "logit_scale": self.logit_scale,
            "logit_bias": self.logit_bias,
            "code": self.code,
        }
