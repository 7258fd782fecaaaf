"""Meeting the candidates: each is opened and its forward pass timed, so that later stages can be predicted."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone, weights_status
from bob.cores import granted_cores
from bob.data.base import Dataset
from bob.errors import UserError
from bob.features.extract import BackingOff, Extraction, prepare
from bob.pick.budget import BudgetSpent, Deadline, spoken
from bob.pick.entry import Entry
from bob.pick.features import NestedFeatures
from bob.pick.halving import Cost
from bob.pick.pool import Pool

_SHARE = 1 / 3  # of the time left, for meeting all candidates
_MOST = 1 / 4  # of the time left, for meeting one
_SAMPLE = 16  # images that are decoded to see how long it takes
_SLOW = 1.0  # seconds for one image, above which a batch is not measured


def meet(entries: Sequence[Entry], pool: Pool, how: Extraction, deadline: Deadline) -> None:
    """Open each candidate and measure it; fills in `cost`, or `ended` of those that cannot be had or take too long.

    Raises:
        UserError: If an image cannot be read.
    """
    decoding = seconds_to_decode(pool.dataset, how)
    until = deadline.spent() + deadline.left() * _SHARE
    for entry in entries:
        if deadline.spent() >= until and any(other.cost for other in entries):
            entry.ended = "not met: a third of the time had gone on opening others"
            continue
        limit = deadline.left() * _MOST
        try:
            with deadline.enforced(limit), entry.spending():
                entry.cost = _cost(entry, pool, how, decoding)
        except UserError as error:
            entry.fail(error)
        except BudgetSpent:
            entry.ended = f"opening it and timing one batch takes longer than {spoken(limit)}"


def _cost(entry: Entry, pool: Pool, how: Extraction, decoding: float) -> Cost:
    if weights_status(entry.card).startswith("not here"):
        open_backbone(entry.card)  # the download is paid for once, and not predicted of later stages
    started = time.perf_counter()
    backbone = open_backbone(entry.card)
    identity = backbone.identity()
    opening = time.perf_counter() - started
    features = NestedFeatures(backbone, identity, pool, how)
    lacking = tuple(features.lacking(level) for level in range(len(pool.sizes)))
    return Cost(opening, seconds_to_embed(backbone, how) + decoding, lacking)


def seconds_to_embed(backbone: Backbone, how: Extraction) -> float:
    """Time of the forward pass per image: of one image and, where that is quick, of a batch, each after a warm-up."""
    forward = BackingOff(prepare(backbone, how.device), how)
    seconds = _timed(forward, backbone, 1)
    if seconds > _SLOW or how.images_per_batch == 1:
        return seconds
    return _timed(forward, backbone, how.images_per_batch) / how.images_per_batch


def seconds_to_decode(dataset: Dataset, how: Extraction) -> float:
    """Time that decoding adds per image, with the workers that will do it; of a few images spread over train.

    Raises:
        UserError: If one cannot be read.
    """
    train = dataset.splits["train"]
    chosen = train.indices[np.linspace(0, len(train) - 1, min(_SAMPLE, len(train))).astype(np.int64)]
    started = time.perf_counter()
    for index in chosen:
        train.images.read(int(index))
    workers = granted_cores() if how.workers is None else max(1, how.workers)
    return (time.perf_counter() - started) / len(chosen) / min(workers, granted_cores())


def _timed(forward: BackingOff, backbone: Backbone, images: int) -> float:
    noise = torch.randint(256, (images, 3, *backbone.preprocess.size), dtype=torch.uint8)
    forward(noise).cpu()
    started = time.perf_counter()
    forward(noise).cpu()
    return time.perf_counter() - started
