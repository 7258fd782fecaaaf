"""Attentive probe: one cross-attention over patch tokens and a linear classifier, for features kept patch by patch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from bob.probes.base import Probe, check_features, check_grid, check_training
from bob.probes.minibatch import Standardizer, check_count, check_recipe, cosine, exact, runs, shuffled_batches

_QUERY_STD = 0.02


class AttentiveProbe(Probe):
    """A learned query attends to an image's tokens by several heads; what they gather is classified linearly.

    For backbones whose pooled output is weak. It is AIM's attentive probe: tokens normalised without learned scale and
    shift, keys and values without bias, no projection after the heads, then a linear classifier (here with a bias,
    which AIM's code leaves out unless asked). AIM normalises by batch statistics; features that never change have fixed
    ones, so here they are those of all training tokens, and an image's answer does not depend on the others in its
    batch. Trained by AdamW with a cosine schedule and no warm-up; only matrices decay. A grid is trained in one pass:
    each batch is read once, and point i is what it would be alone, up to rounding.

    A point whose parameters leave the range of float32 has diverged: it gives every class the same probability.

    Args:
        tokens: P, the number of tokens; features (n, P * C) hold them one after the other.
        lr: Learning rate of AdamW.
        weight_decay: Of AdamW.
        heads: Attention heads; must divide C.
        epochs: How often each image is seen.
        batch_size: Images in a step.
        seed: Of the initial parameters and of the order of the images.
        device: Where to compute.

    Attributes:
        parameters_: query (C,), key (C, C), value (C, C), weight (n_classes, C) and bias (n_classes,), on tokens
            of mean 0 and variance 1.
        diverged_: Whether they left the range of float32.

    Source: Chen et al. 2022 (CAE, arXiv 2202.03026) for attentive probing; El-Nouby et al. 2024 (AIM, arXiv 2401.08541;
        github.com/apple/ml-aim, AttentionPoolingClassifier) for the head.
    """

    parameters_: dict[str, torch.Tensor]
    diverged_: bool
    standardizer_: Standardizer

    def __init__(
        self,
        tokens: int,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        heads: int = 8,
        epochs: int = 20,
        batch_size: int = 256,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.tokens = tokens
        self.lr = lr
        self.weight_decay = weight_decay
        self.heads = heads
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed
        self.device = device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """See `Probe.fit`; features may be memory-mapped and are never copied whole."""
        _train([self], features, labels, n_classes)
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        check_features(features, width=self.tokens * len(self.standardizer_.mean))
        return np.concatenate([self._probabilities(features[run]) for run in runs(features)])

    @classmethod
    def path(
        cls,
        grid: Iterable[dict[str, Any]],
        features: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        queries: np.ndarray,
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """See `Probe.path`; all points are trained in one pass over the features.

        Raises:
            ValueError: If the points differ in anything but `lr` and `weight_decay`.
        """
        points = list(grid)
        probes = [cls(**point) for point in points]
        check_grid((vars(probe) for probe in probes), "lr", "weight_decay")
        _train(probes, features, labels, n_classes)
        for point, probe in zip(points, probes, strict=True):
            yield point, probe.predict_proba(queries)

    def _probabilities(self, features: np.ndarray) -> np.ndarray:
        n_classes = len(self.parameters_["bias"])
        if self.diverged_:
            return np.full((len(features), n_classes), 1 / n_classes)
        one = {name: value[None] for name, value in self.parameters_.items()}
        x = self.standardizer_(features, one["bias"].dtype).reshape(len(features), self.tokens, -1)
        return torch.softmax(attend(x, self.heads, **one)[:, 0].cpu().double(), dim=1).numpy()

    def _check_hyperparameters(self, width: int) -> None:
        check_recipe(self.lr, self.weight_decay, self.epochs, self.batch_size, self.seed)
        check_count("tokens", self.tokens, 1)
        check_count("heads", self.heads, 1)
        if width % self.tokens:
            raise ValueError(f"Expected `tokens` to divide the {width} features, but got {self.tokens}.")
        if width // self.tokens % self.heads:
            raise ValueError(f"Expected `heads` to divide a token's {width // self.tokens}, but got {self.heads}.")


def attend(
    x: torch.Tensor,
    heads: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """Logits (B, G, n_classes) of G probes with H heads each, for tokens (B, P, C).

    With a single query no token needs a key or a value of its own: q . (K x) = (K^T q) . x, and the mean of V x is
    V times the mean of x. The same numbers for P C H multiplications where P C^2 would be usual.

    Args:
        x: (B, P, C).
        heads: H.
        query: (G, C).
        key: (G, C, C), from tokens to keys; rows belong to heads in turn.
        value: (G, C, C).
        weight: (G, n_classes, C).
        bias: (G, n_classes).
    """
    batch, _, width = x.shape
    probes, head_width = len(query), width // heads
    split = (probes, heads, head_width, width)
    asked = torch.einsum("ghd,ghdc->ghc", query.view(split[:3]), key.view(split)) / math.sqrt(head_width)
    attention = torch.softmax(x @ asked.reshape(-1, width).T, dim=1)  # (B, P, G H)
    gathered = (attention.transpose(1, 2) @ x).view(batch, probes, heads, width)
    values = torch.einsum("bghc,ghdc->bghd", gathered, value.view(split)).reshape(batch, probes, width)
    return torch.einsum("bgc,gkc->bgk", values, weight) + bias


def _train(probes: list[AttentiveProbe], features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
    """Train probes that agree in everything but `lr` and `weight_decay`, in one pass over the features."""
    if not probes:
        return
    recipe = probes[0]
    check_training(features, labels, n_classes)
    for probe in probes:
        probe._check_hyperparameters(features.shape[1])
    standardizer = Standardizer.of(features, recipe.device, recipe.tokens)
    sets = [_initial(len(standardizer.mean), n_classes, recipe.seed, recipe.device) for _ in probes]
    optimizer = torch.optim.AdamW([group for pair in zip(probes, sets, strict=True) for group in _groups(*pair)])
    schedule = [(group, group["lr"]) for group in optimizer.param_groups]
    y = torch.as_tensor(labels, dtype=torch.long, device=recipe.device)
    for share, rows in shuffled_batches(len(features), recipe.batch_size, recipe.epochs, recipe.seed):
        for group, lr in schedule:
            group["lr"] = lr * cosine(share)
        x = standardizer(features[rows]).reshape(len(rows), recipe.tokens, -1)
        optimizer.zero_grad()
        _loss(sets, x, recipe.heads, y[torch.from_numpy(rows).to(y.device)]).backward()
        optimizer.step()
    for probe, parameters in zip(probes, sets, strict=True):
        _hand_over(probe, parameters, standardizer)


def _initial(width: int, n_classes: int, seed: int, device: str) -> dict[str, nn.Parameter]:
    """The parameters of one probe before training: a normal query, the others as `nn.Linear` begins."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(width)

    tensors = {
        "query": _QUERY_STD * torch.randn(width, generator=generator),
        "key": uniform(width, width),
        "value": uniform(width, width),
        "weight": uniform(n_classes, width),
        "bias": uniform(n_classes),
    }
    return {name: nn.Parameter(tensor.to(device)) for name, tensor in tensors.items()}


def _groups(probe: AttentiveProbe, parameters: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    """What AdamW is told of one probe."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim == 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim == 1]
    return [
        {"params": matrices, "lr": probe.lr, "weight_decay": probe.weight_decay},
        {"params": vectors, "lr": probe.lr, "weight_decay": 0.0},
    ]


def _loss(sets: list[dict[str, nn.Parameter]], x: torch.Tensor, heads: int, labels: torch.Tensor) -> torch.Tensor:
    """The sum of the probes' mean cross-entropies, whose gradient for each probe is that of its own."""
    stacked = {name: torch.stack([parameters[name] for parameters in sets]) for name in sets[0]}
    logits = attend(x, heads, **stacked)
    targets = labels[:, None].expand(-1, len(sets))
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(labels)


def _hand_over(probe: AttentiveProbe, parameters: dict[str, nn.Parameter], standardizer: Standardizer) -> None:
    """Give a probe its learned state."""
    probe.standardizer_ = standardizer
    probe.parameters_ = {name: value.detach().to(exact(value.device)) for name, value in parameters.items()}
    probe.diverged_ = not all(bool(torch.isfinite(value).all()) for value in probe.parameters_.values())
