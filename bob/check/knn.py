"""Whether features tell shapes apart: nearest neighbours on `shapes`, beside raw pixels and random initialisation."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone
from bob.cards import BackboneCard, Weights
from bob.check.base import Finding, Subject
from bob.data.loader import load_batches
from bob.data.shapes import load_shapes
from bob.features.extract import Advance, BackingOff, Extraction, open_store, prepare, require_same_features
from bob.features.store import SHARD_ROWS, ShardCost
from bob.probes.knn import nearest, vote

K, TEMPERATURE = 10, 0.07
TWIN_IMAGES = 128  # of random initialisation: half, for a check should take less than a minute
_RESAMPLES = 2000


@dataclass(frozen=True)
class Rival:
    """What a backbone's features must beat.

    Attributes:
        name: For people.
        features: (m, D) of the first m of the same images.
    """

    name: str
    features: np.ndarray


def shape_features(
    backbone: Backbone,
    identity: dict[str, Any],
    how: Extraction,
    advance: Advance = lambda count: None,
    keep: bool = True,
    most: int = SHARD_ROWS,
) -> np.ndarray:
    """Return features float32 (n, D) of the first shard of `shapes`' training images, from the store if they are there.

    Args:
        backbone: Opened.
        identity: `backbone.identity()`.
        how: As for a run, whose store this is.
        advance: Told how many more images are done.
        keep: Read and write the store; a backbone that is not deterministic has no business there.
        most: n; with fewer than a shard, nothing is written.

    Raises:
        UserError: If a user's code gives other features than are stored for it.
    """
    images = load_shapes().splits["train"].images
    store = open_store(prepare(backbone, how.device), identity, images, how)
    number, rows = next(store.shards())
    finished = store.finished() if keep else None
    if finished is not None and finished[0] == rows:
        if backbone.card.weights.source == "custom":
            require_same_features(store, backbone, images, how)
        advance(most)
        return np.array(finished[1][:most])
    started = time.perf_counter()
    forward, size = BackingOff(backbone, how), how.images_per_batch
    # The very batches of `fill_store`, so that these are the very features of a run.
    batches = [list(rows[start : min(start + size, most)]) for start in range(0, most, size)]
    parts = []
    for batch in load_batches(images, batches, backbone.preprocess.crop, workers=0):
        parts.append(forward(batch.images))
        advance(len(batch.indices))
    features = torch.cat(parts).float().cpu().numpy()
    if keep and most == len(rows) and np.isfinite(features).all():
        store.write(number, features, ShardCost(len(rows), time.perf_counter() - started, 0.0))
    return features


def shape_labels() -> np.ndarray:
    """(n,) classes of the images that `shape_features` gives the features of."""
    return load_shapes().splits["train"].labels[:SHARD_ROWS]


def random_rival(subject: Subject, advance: Advance = lambda count: None) -> Rival | None:
    """The same architecture at random initialisation, if it can be had: from its card, or a copy initialised again."""
    card = subject.backbone.card
    if subject.is_baseline or card.weights.source in ("pixels", "constant"):
        return None
    if card.has_random_twin:
        twin = open_backbone(card.random_twin())
        features = shape_features(twin, twin.identity(), subject.how, advance, most=TWIN_IMAGES)
        return Rival("random initialisation", features)
    started_again = reinitialised(subject.backbone)
    if started_again is None:
        return None
    twin, share = started_again
    features = shape_features(twin, {}, subject.how, advance, keep=False, most=TWIN_IMAGES)
    how_much = "" if share == 1 else f" of {share:.0%} of the parameters"
    return Rival(f"random initialisation{how_much}", features)


def reinitialised(backbone: Backbone) -> tuple[Backbone, float] | None:
    """A copy whose modules had their `reset_parameters` called, and the share of parameters that this has reached.

    None if it cannot be copied, or has nothing to initialise.
    """
    try:
        twin = copy.deepcopy(backbone)
    except Exception:  # a module may hold anything, open files included
        return None
    reached = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in twin.model.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
                reached += sum(parameter.numel() for parameter in module.parameters(recurse=False))
    total = twin.parameter_count()
    return (twin.eval(), reached / total) if reached else None


def pixels_rival(subject: Subject) -> Rival | None:
    """Raw pixels, as the card `pixels` has them, unless the subject is these."""
    if subject.backbone.card.weights.source == "pixels":
        return None
    pixels = open_backbone(BackboneCard(name="pixels", weights=Weights(source="pixels"), paradigm="baseline"))
    return Rival("raw pixels", shape_features(pixels, pixels.identity(), subject.how))


def check_knn(subject: Subject, features: np.ndarray, rivals: list[Rival]) -> Finding:
    """Compare leave-one-out accuracies on the images that both have; differences are judged by a paired bootstrap.

    Args:
        subject: The backbone.
        features: (n, D) of the first n images.
        rivals: Each with features of the first m.
    """
    labels = shape_labels()[: len(features)]
    if not np.isfinite(features).all():
        return Finding("knn", "fail", "NaN or infinite features on shapes", "See the finding `scale`.")
    own, beside, parts = _estimate(leave_one_out(features, labels)), {}, []
    worse, unsure = [], []
    for rival in rivals:
        n = min(len(features), len(rival.features))
        ours, theirs = leave_one_out(features[:n], labels[:n]), leave_one_out(rival.features[:n], labels[:n])
        low, high = _interval(ours - theirs)
        beside[rival.name] = {**_estimate(theirs), "n": n, "difference": [low, high]}
        fewer = "" if n == len(features) else f" against {ours.mean():.3f} on the first {n}"
        parts.append(f"; {rival.name} {theirs.mean():.3f}{fewer}")
        if ours.mean() <= theirs.mean():
            worse.append(rival.name)
        elif low <= 0:
            unsure.append(rival.name)
    values = {"k": K, "n": len(labels), "top1": own, "rivals": beside}
    detail = (
        f"{K}-NN on {len(labels)} shapes, leave-one-out: top-1 {own['value']:.3f} [{own['low']:.3f}, "
        f"{own['high']:.3f}]{''.join(parts)}"
    )
    return _verdict(subject, detail, values, worse, unsure)


def leave_one_out(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each image (n, D) is classified right by its k nearest among the others: float64 (n,) of 0 and 1."""
    x = torch.from_numpy(features.astype(np.float64))
    x = nn.functional.normalize(x, dim=1)
    similarity = (x @ x.T).float()
    similarity.fill_diagonal_(-2.0)  # below every cosine
    values, positions = nearest(similarity, min(K, len(labels) - 1))
    votes = vote(values.double().numpy(), labels[positions.numpy()], int(labels.max()) + 1, TEMPERATURE)
    return (votes.argmax(axis=1) == labels).astype(np.float64)


def _verdict(subject: Subject, detail: str, values: dict[str, Any], worse: list[str], unsure: list[str]) -> Finding:
    if subject.is_baseline and (worse or unsure):
        remedy = "Nothing: it is a baseline, and others are measured against it."
        return Finding("knn", "warn", f"{detail}; no better than {' and '.join(worse + unsure)}", remedy, values)
    if worse:
        remedy = (
            "The weights do not reach the features: check that they are loaded, that the architecture (heads, "
            "activation, positions) is the checkpoint's, and where the feature is read."
        )
        return Finding("knn", "fail", f"{detail}; no better than {' and '.join(worse)}", remedy, values)
    if unsure:
        remedy = "The difference may be chance: run the task `shapes` in full, `bob run --task shapes`."
        return Finding("knn", "warn", f"{detail}; not clearly better than {' and '.join(unsure)}", remedy, values)
    return Finding("knn", "pass", detail, values=values)


def _estimate(right: np.ndarray) -> dict[str, float]:
    low, high = _interval(right)
    return {"value": float(right.mean()), "low": low, "high": high}


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95% percentile bootstrap of the mean of (n,) values."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
