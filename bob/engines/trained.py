"""A network that bob's own loop trained, and what a classifier says about images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bob.data.base import Split
from bob.data.loader import load_batches
from bob.engines.checkpoint import save_tensors
from bob.engines.devices import is_out_of_memory
from bob.engines.finished import Finished
from bob.engines.network import Network
from bob.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Trained(Finished):
    """What bob's own loop trained.

    Attributes:
        network: In eval mode, with the averaged weights if the recipe has an `ema_decay`.
    """

    network: Network

    def save(self, folder: Path) -> None:
        """See `Finished.save`: `head.safetensors` and, unless it stayed as it was, `backbone.safetensors`."""
        parts = {"head": self.network.head} | ({} if self.network.frozen else {"backbone": self.network.backbone.model})
        for name, module in parts.items():
            # Clones, as safetensors takes no two names for one tensor, nor channels-last.
            tensors = {
                key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for key, tensor in module.state_dict().items()
            }
            if tensors:
                save_tensors(tensors, folder / f"{name}.safetensors")


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier(Trained):
    """A network from images to logits (B, C)."""

    def predict(self, split: Split) -> np.ndarray:
        """Return probabilities, float32 (n, C): softmax over the classes, or a sigmoid for each of a `bce` recipe.

        Every process that calls this does all of it.

        Raises:
            UserError: If an image cannot be read, or one image alone does not fit in memory.
        """
        if not len(split):
            raise ValueError("Expected `split` to have images, but got none.")
        size = self.how.images_per_batch
        rows = [split.indices[i : i + size].tolist() for i in range(0, len(split), size)]
        pin = self.how.device.type == "cuda"
        crop = self.network.backbone.preprocess.crop
        loaded = load_batches(split.images, rows, crop, self.how.workers, pin_memory=pin)
        self.network.eval()
        return np.concatenate([self._probabilities(batch.images) for batch in loaded])

    def _probabilities(self, images: torch.Tensor) -> np.ndarray:
        try:
            logits = self._logits(images)
            return (logits.sigmoid() if self.recipe.loss == "bce" else logits.softmax(1)).cpu().numpy()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(images) == 1:
                raise UserError(
                    f"Backbone '{self.network.backbone.card.name}' does not fit in the memory of {self.how.device}, "
                    "even with one image at a time.",
                    "Use a larger device or --device cpu.",
                ) from error
        # Outside the handler, whose traceback keeps the failed pass's tensors alive.
        return np.concatenate([self._probabilities(half) for half in images.split(-(-len(images) // 2))])

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        mixed = self.how.precision != "float32"
        dtype = getattr(torch, self.how.precision) if mixed else None
        device = self.network.backbone.device
        moved = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=mixed):
            return self.network(self.network.backbone.preprocess.normalize(moved))
