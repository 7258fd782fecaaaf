"""Whether features hold what the network computed: effective rank, dead dimensions, and no pooling too many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bob.check.base import Finding, Subject, hooked

_DEAD = 1e-6  # standard deviation, as a share of the largest dimension's
_SAME = 0.9999  # correlation
_RANK_WARN, _RANK_FAIL = 0.05, 3.0  # a share of what is possible, and a number


def effective_rank(features: np.ndarray) -> float:
    """How many directions centred features (n, D) use: exp of the entropy of their normalised singular values.

    Between 1 and min(n - 1, D); 0 if all features are equal.

    Source: Roy & Vetterli 2007, "The effective rank"; Garrido et al. 2023, RankMe (arXiv 2210.02885).
    """
    singular = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    if not singular.sum() > 1e-6 * np.abs(features).sum() / max(features.shape) or not np.isfinite(singular).all():
        return 0.0
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def check_rank(features: np.ndarray) -> Finding:
    """See whether features (n, D) of different images differ in more than a few directions."""
    if not np.isfinite(features).all():
        return _not_finite("rank")
    rank, most = effective_rank(features), min(len(features) - 1, features.shape[1])
    detail = f"effective rank {rank:.1f} of at most {most} ({len(features)} images, D = {features.shape[1]})"
    values = {"effective_rank": rank, "most": most}
    remedy = (
        "The images hardly differ in their features: look for a pooling too many, an average over channels, saturated "
        "activations, or weights that were not loaded."
    )
    if rank < _RANK_FAIL:
        return Finding("rank", "fail", detail, remedy, values)
    return Finding(
        "rank", "warn" if rank < _RANK_WARN * most else "pass", detail, _unless_pass(rank, most, remedy), values
    )


def check_dimensions(features: np.ndarray) -> Finding:
    """Count the dimensions of features (n, D) that never change, or repeat another one."""
    if not np.isfinite(features).all():
        return _not_finite("dimensions")
    deviations = features.std(axis=0)
    dead = deviations <= _DEAD * max(float(deviations.max()), float(np.abs(features).max()) * _DEAD)
    repeated = _repeated(features[:, ~dead])
    width = features.shape[1]
    values = {"dead": int(dead.sum()), "repeated": repeated, "width": width}
    detail = f"{int(dead.sum())} of {width} dimensions never change, {repeated} repeat another"
    share = (int(dead.sum()) + repeated) / width
    if share <= 0.1:
        return Finding("dimensions", "pass", detail, values=values)
    remedy = (
        "Look for a ReLU that cuts everything off, a layer without weights, or a feature that is repeated or padded."
    )
    return Finding("dimensions", "fail" if share > 0.5 else "warn", detail, remedy, values)


def check_pooling(subject: Subject) -> Finding:
    """Compare the feature's width with the channels of the last learned layer: one pooling, over positions."""
    images = subject.mixed(1, 1)
    last = _last_learned(subject, images)
    width = subject.embed(images).shape[1]
    if last is None:
        return Finding("pooling", "skip", "no layer with weights to compare with", values={"width": width})
    detail = f"D = {width}; the last layer with weights, {last.name}, gives {last.channels} channels {last.shape}"
    values = {"width": width, "layer": last.name, "channels": last.channels, "shape": list(last.shape)}
    if width % last.channels == 0 or _projects(subject.backbone.model, last.channels, width):
        return Finding("pooling", "pass", detail, values=values)
    remedy = "Return the (B, C) vector or the (B, C, H, W) map itself, and pool it once, over H and W."
    if width in last.positions:
        remedy = f"D is the number of positions, not of channels: the wrong axis is pooled. {remedy}"
    elif width > last.channels:
        return Finding("pooling", "pass", detail, values=values)  # several layers side by side
    return Finding("pooling", "fail", detail, remedy, values)


@dataclass(frozen=True)
class _Layer:
    """Output of a layer: its name, number of channels, shape, and the numbers that count its positions."""

    name: str
    channels: int
    shape: tuple[int, ...]
    positions: frozenset[int]


def _last_learned(subject: Subject, images: torch.Tensor) -> _Layer | None:
    """The layer with weights of its own that is run last."""
    seen: list[_Layer] = []

    def note(name: str, module: nn.Module, given: Any, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim in (2, 3, 4):
            seen.append(_describe(name, module, output))

    # Leaves only: a model that has parameters of its own, as a ViT has positions, would be compared with itself.
    leaves = {name: m for name, m in subject.backbone.model.named_modules() if next(m.children(), None) is None}
    learned = {name: leaf for name, leaf in leaves.items() if next(leaf.parameters(), None) is not None}
    with hooked(learned, note):
        subject.embed(images)
    return seen[-1] if seen else None


def _describe(name: str, module: nn.Module, output: torch.Tensor) -> _Layer:
    shape = tuple(output.shape)
    sizes = {parameter.shape[0] for parameter in module.parameters(False)}
    # Channels come second in maps and last in tokens, some maps (Swin, ConvNeXt) included: the weights tell which.
    axis = 1 if output.ndim == 4 and shape[1] in sizes and not isinstance(module, nn.Linear | nn.LayerNorm) else -1
    others = [size for position, size in enumerate(shape[1:], 1) if position != axis % output.ndim]
    count = int(np.prod(others)) if others else 0
    return _Layer(name or "the model", shape[axis], shape, frozenset({*others, count} - {0, 1}))


def _projects(model: nn.Module, channels: int, width: int) -> bool:
    """Whether a matrix of the model leads from that many channels to that width, as CLIP's `x @ proj` does."""
    return any(sorted(p.shape) == sorted((channels, width)) for p in model.parameters() if p.ndim == 2)


def _not_finite(name: str) -> Finding:
    return Finding(name, "fail", "NaN or infinite features", "See the finding `scale`.")


def _repeated(features: np.ndarray) -> int:
    """How many columns are, up to scale, the same as one before them."""
    if features.shape[1] < 2:
        return 0
    correlations = np.abs(np.corrcoef(features, rowvar=False))
    return int((np.triu(correlations, k=1) > _SAME).any(axis=0).sum())


def _unless_pass(rank: float, most: int, remedy: str) -> str:
    return remedy if rank < _RANK_WARN * most else ""
