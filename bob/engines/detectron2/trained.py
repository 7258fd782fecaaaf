"""A trained detector, and what it says about images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.modeling.backbone import FPN
from detectron2.structures import Instances
from torch import nn

from bob.backbones.base import Backbone
from bob.data.base import Split
from bob.data.objects import Detections, encode_masks
from bob.engines.checkpoint import save_tensors
from bob.engines.dense_recipe import DetectionRecipe
from bob.engines.detectron2.data import Item, test_loader
from bob.engines.detectron2.detector import Detector
from bob.engines.detectron2.library import quiet
from bob.engines.devices import is_out_of_memory
from bob.engines.finished import Finished
from bob.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainedDetector(Finished):
    """A detector of detectron2's.

    Attributes:
        detector: In eval mode, with the averaged weights if the recipe has an `ema_decay`.
        backbone: The detector's own copy.
    """

    detector: Detector
    backbone: Backbone
    recipe: DetectionRecipe

    def facts(self) -> dict[str, Any]:
        """See `Finished.facts`; and what stands between backbone and heads."""
        fpn = isinstance(self.detector.backbone, FPN)
        return {**super().facts(), "neck": "FPN" if fpn else "simple feature pyramid"}

    def predict(self, split: Split) -> list[Detections]:
        """Find objects in each image, as detectron2 does it: one image at a time, boxes and masks in its own pixels.

        Raises:
            UserError: If an image cannot be read or does not fit in memory.
        """
        if not len(split):
            raise ValueError("Expected `split` to have images, but got none.")
        backbone, device = self.backbone, self.detector.device
        loader = test_loader(split, backbone.preprocess, self.recipe.view, workers=self.how.workers)
        mixed = self.how.precision != "float32"
        dtype = getattr(torch, self.how.precision) if mixed else None
        try:
            with quiet(), torch.autocast(device.type, dtype=dtype, enabled=mixed):
                found: list[Detections] = inference_on_dataset(self.detector, loader, _Collected())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"The detector on '{backbone.card.name}' does not fit in the memory of {device}, even with one image "
                "at a time.",
                "Use a larger device, smaller images or --device cpu.",
            ) from error
        return found

    def save(self, folder: Path) -> None:
        """Write `detector.safetensors`, all but the backbone, and unless that stayed as it was `backbone.safetensors`.

        Raises:
            UserError: If the disk refuses.
        """
        frozen = self.recipe.trainable == "head"
        parts = {"detector": learnt(self.detector, self.backbone, frozen=True)}
        if not frozen:
            parts["backbone"] = self.backbone.model.state_dict()
        for name, state in parts.items():
            # Clones, as safetensors takes no two names for one tensor, nor channels-last.
            tensors = {
                key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in state.items()
            }
            if tensors:
                save_tensors(tensors, folder / f"{name}.safetensors")


def learnt(detector: nn.Module, backbone: Backbone, frozen: bool) -> dict[str, torch.Tensor]:
    """The detector's tensors without those of a frozen backbone, or of a text tower beside it, which stay."""
    mine = backbone.state_dict(keep_vars=True).values()
    staying = {id(tensor) for tensor in mine}
    if not frozen:
        staying -= {id(tensor) for tensor in backbone.model.state_dict(keep_vars=True).values()}
    named = detector.state_dict(keep_vars=True).items()
    return {name: tensor.detach() for name, tensor in named if id(tensor) not in staying}


class _Collected(DatasetEvaluator):
    """Gathers what the network says, image by image; others score it."""

    def reset(self) -> None:
        self._found: list[Detections] = []

    def process(self, inputs: list[Item], outputs: list[dict[str, Instances]]) -> None:
        self._found += [_detections(output["instances"]) for output in outputs]

    def evaluate(self) -> Any:
        return self._found


def _detections(instances: Instances) -> Detections:
    instances = instances.to("cpu")
    scores = instances.scores.float().numpy()
    order = np.argsort(-scores, kind="stable")
    masks = instances.pred_masks.numpy()[order] if instances.has("pred_masks") else None
    return Detections(
        boxes=instances.pred_boxes.tensor.float().numpy()[order].reshape(-1, 4),
        scores=scores[order],
        labels=instances.pred_classes.numpy()[order].astype(np.int64),
        rles=None if masks is None else encode_masks(masks),
    )
