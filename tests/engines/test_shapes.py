"""A real backbone on a real task: what fine-tuning is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.catalogue import load_backbone_cards
from bob.data.base import Split
from bob.data.loader import load_batches
from bob.data.shapes import load_shapes
from bob.engines import fine_tune
from bob.engines.recipe import CROP_AND_FLIP, Recipe
from bob.probes.logistic import LogisticRegression

RECIPE = Recipe(
    "small",
    lr=1.5e-3,
    layer_decay=0.9,
    epochs=6,
    warmup_epochs=1,
    batch_size=20,
    drop_path=0.0,
    augmentation=replace(CROP_AND_FLIP, scale=(0.5, 1.0)),
)


def opened(name: str) -> Backbone:
    """With 64 pixels of input, for the time that it takes."""
    card = resolve_backbone(name, load_backbone_cards())
    override = card.preprocess.model_copy(update={"size": (64, 64), "crop_fraction": 1.0})
    return open_backbone(card.model_copy(update={"preprocess": override}))


def features(backbone: Backbone, split: Split) -> np.ndarray:
    batches = [split.indices[i : i + 20].tolist() for i in range(0, len(split), 20)]
    loaded = load_batches(split.images, batches, backbone.preprocess.crop, workers=0)
    with torch.inference_mode():
        return np.concatenate([backbone.embed(backbone.preprocess.normalize(b.images)).numpy() for b in loaded])


def top1(probabilities: np.ndarray, split: Split) -> float:
    return float((probabilities.argmax(1) == split.labels).mean())


@pytest.mark.slow
def test_fine_tuning_beats_the_linear_probe_and_random_weights(on_cpu, tmp_path) -> None:
    torch.set_num_threads(2)
    whole = load_shapes()
    splits = {name: Split(split.images, split.indices[:400]) for name, split in whole.splits.items()}
    data, train, test = replace(whole, splits=splits), splits["train"], splits["test"]
    pretrained = opened("efficientnet_lite0")
    x, x_test = features(pretrained, train), features(pretrained, test)
    # The best of a grid by its very test score, which is more than the probe may claim.
    probes = [LogisticRegression(l2=l2).fit(x, train.labels, len(data.classes)) for l2 in (1e-2, 1e-1, 1.0)]
    linear = max(top1(probe.predict_proba(x_test), test) for probe in probes)
    tuned, random = (
        top1(fine_tune.train(backbone, data, RECIPE, how=on_cpu, folder=tmp_path, seed=0).predict(test), test)
        for backbone in (pretrained, opened("efficientnet_lite0.random"))
    )
    print(f"linear {linear:.3f}, fine-tuned {tuned:.3f}, from random weights {random:.3f}")
    assert tuned > linear + 0.03 > random + 0.03
