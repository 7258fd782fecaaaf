"""The training protocols, which every kind of classification has."""

from __future__ import annotations

from dataclasses import replace

from bob.adapters.training import Training
from bob.engines.recipe import BOB_FINE_TUNE, BOB_LINEAR

FINETUNE = Training(
    name="finetune",
    version=1,
    description="All weights trained by the paper's recipe (AdamW, layer decay, RandAugment, mixup, 100 epochs).",
    recipe=BOB_FINE_TUNE,
    rates=(2.5e-4, 5e-4, 1e-3),
)
FROZEN = Training(
    name="frozen",
    version=1,
    description="A linear head trained by the same recipe on augmented images; the backbone stays as it is.",
    recipe=replace(BOB_FINE_TUNE, name="frozen", trainable="head", layer_decay=None, drop_path=0.0),
    rates=(2.5e-4, 1e-3, 4e-3),
)
BOB_LINEAR_PROBE = Training(
    name="bob_linear",
    version=1,
    description="The paper's linear probe: LARS at 0.1 a 256 images, 90 epochs of random crops, BatchNorm frozen.",
    recipe=BOB_LINEAR,
    rates=(BOB_LINEAR.lr,),
)
TRAINING = (FINETUNE, FROZEN, BOB_LINEAR_PROBE)
