"""A transformers model behind the one interface: its features, blocks and, for a dual encoder, its text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bob.backbones.base import Backbone, LayerOutput
from bob.backbones.preprocess import Preprocess
from bob.backbones.text_tower import TextTower
from bob.backbones.transformers_reading import Reading
from bob.cards import BackboneCard
from bob.errors import UserError, first_line
from bob.extras import import_extra

_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")
# Files that a tokenizer is read from.
TOKENIZERS = (*_VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")


class TransformersBackbone(Backbone):
    """A transformers vision encoder.

    Args:
        card: Which checkpoint this is.
        model: The module whose weights count.
        preprocess: The checkpoint's own preprocessing.
        code: See `Backbone`.
        encoder: Maps `pixel_values` to hidden states; `model` itself, or a part of it.
    """

    def __init__(
        self, card: BackboneCard, model: nn.Module, preprocess: Preprocess, code: dict[str, str], encoder: Any = None
    ) -> None:
        super().__init__(card, model, preprocess, code)
        self._reading = Reading(encoder or model, card.feature.pooling)
        self._strides: list[int] | None = None

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """See `Backbone.embed`.

        By default the checkpoint's own pooled output where its weights are trained; else the class token of the last
        normalised hidden state, or the mean of the patches for a model without class token.
        """
        return self._reading.feature(images)

    def layers(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> list[LayerOutput]:
        """See `Backbone.layers`: hidden states as the library gives them, without the embedding's.

        Pooled by the class token where that is the feature, else by averaging the map.
        """
        found = self._reading.blocks(images)
        if indices is None:
            return found
        if any(not -len(found) <= index < len(found) for index in indices):
            raise self._lacks(f"blocks {list(indices)}", f"It has {len(found)}, counted from 0.")
        return [found[index] for index in indices]

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """See `Backbone.feature_maps`: the last map of each stride, finest first."""
        return list(_last_of_each_stride(self._reading.blocks(images), images.shape[-2]).values())

    @property
    def strides(self) -> list[int]:
        """See `Backbone.strides`, measured on a blank image; a plain ViT has one, its patch size."""
        if self._strides is None:
            with torch.inference_mode():
                blank = torch.zeros(1, 3, *self.preprocess.size, device=self.device)
                self._strides = list(_last_of_each_stride(self._reading.blocks(blank), blank.shape[-2]))
        return self._strides


class DualEncoder(TextTower, TransformersBackbone):
    """A transformers model of images and text; `embed` gives the image embedding in their shared space, not normalised.

    Args:
        card: Which checkpoint this is.
        dual: The whole model; its image tower alone counts as the backbone's weights.
        preprocess: The checkpoint's own preprocessing.
        code: See `Backbone`.
        folder: Where the tokenizer lies.
    """

    image_parts = ("vision_model", "visual_projection")

    def __init__(
        self, card: BackboneCard, dual: Any, preprocess: Preprocess, code: dict[str, str], folder: Path | None
    ) -> None:
        if card.feature.pooling != "default":
            raise UserError(
                f"Backbone '{card.name}' embeds images with its own projection, not by '{card.feature.pooling}'.",
                "Leave feature.pooling at 'default'.",
            )
        parts = {name: part for name, part in dual.named_children() if name in self.image_parts}
        if "vision_model" not in parts or not hasattr(dual, "logit_scale"):
            kind = type(dual).__name__
            raise UserError(f"{kind} has no image tower and logit scale as CLIP has.", "Use a CLIP-like model.")
        feature = card.feature.model_copy(update={"layer": "image_embedding"})
        card = card.model_copy(update={"feature": feature})
        super().__init__(card, nn.ModuleDict(parts), preprocess, code, encoder=dual.vision_model)
        self.dual = dual.eval()
        self._folder = folder

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """See `Backbone.embed`: the image embedding in the space shared with text, not normalised."""
        output = self.dual.get_image_features(pixel_values=images, **self._reading.arguments(images))
        return getattr(output, "pooler_output", output)

    @cached_property
    def tokenizer(self) -> Any:
        """Maps a list of strings to tokens.

        Raises:
            UserError: If the checkpoint has none.
        """
        if not self._tokenizer_files():
            # The library would make an empty tokenizer, for which every word is unknown.
            raise self._lacks("tokenizer", f"Get its files: `hf download {self.card.weights.model}`.")
        try:
            library = import_extra("transformers", "hf")
            return library.AutoTokenizer.from_pretrained(str(self._folder), trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise self._lacks(
                f"tokenizer that can be read ({first_line(error)})",
                f"Run `hf download {self.card.weights.model}` again, or install what its tokenizer needs.",
            ) from error

    def _encode(self, prompts: list[str]) -> torch.Tensor:
        # SigLIP was trained on text padded to its full length, which its attention does not mask.
        siglip = "siglip" in self.dual.config.model_type
        length = min(self.dual.config.text_config.max_position_embeddings, self.tokenizer.model_max_length)
        padding = "max_length" if siglip else True
        tokens = self.tokenizer(prompts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        wanted = ("input_ids",) if siglip else ("input_ids", "attention_mask")
        output = self.dual.get_text_features(**{key: tokens[key].to(self.device) for key in wanted})
        return getattr(output, "pooler_output", output)

    def _tokenizer_files(self) -> list[Path]:
        """The files that the tokenizer is read from; none without a vocabulary among them."""
        if self._folder is None or not any(any(self._folder.glob(pattern)) for pattern in _VOCABULARIES):
            return []
        return sorted({file for pattern in TOKENIZERS for file in self._folder.glob(pattern)})

    def tokenizer_identity(self) -> dict[str, Any]:
        """See `TextTower.tokenizer_identity`."""
        digest = hashlib.sha256()
        for file in self._tokenizer_files():
            digest.update(f"{file.name}|{file.stat().st_size}|".encode() + file.read_bytes())
        return {"class": type(self.tokenizer).__name__, "sha256": digest.hexdigest()}


def _last_of_each_stride(blocks: Sequence[LayerOutput], height: int) -> dict[int, torch.Tensor]:
    return dict(sorted({round(height / block.map.shape[-2]): block.map for block in blocks}.items()))
