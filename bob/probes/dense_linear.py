"""A linear segmenter: one 1 x 1 convolution on stored maps, a whole grid of learning rates in one pass over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn.functional import embedding_bag

from bob.probes.dense import DenseProbe, GridFeatures, Target, check_target, neighbours, repetitions
from bob.probes.minibatch import Standardizer, check_recipe, cosine, shuffled_batches

_POOL = 1 << 25  # pixels kept of all targets together: 200 MB
_MOST = 1 << 12  # of one image
_LEAST = 1 << 7
_SEEN, _EPOCHS = 20_000, (10, 50)  # images in training, counted each time


class LinearSegmenter(DenseProbe):
    """Softmax regression on standardised features, whose logits are interpolated bilinearly to the pixels.

    The loss is the cross-entropy of labelled pixels at the target's own resolution, estimated from pixels drawn
    anew for each step: a linear head and interpolation commute, so features are interpolated to the drawn pixels and
    no map of logits is ever made. Of each target some thousand labelled pixels are kept, drawn once; an image without
    one is not trained on. Trained by AdamW from zero with a cosine schedule; biases do not decay. All points are
    trained in one pass, and each is what it would be alone, up to rounding.

    Images are seen 10 times, or more often where they are few: until 20,000 were seen, or each 50 times.

    Args:
        points: Each with `lr` and `weight_decay` of AdamW, and nothing else.
        seed: Of the pixels and the order of the images.
        device: Where to compute.
        batch_size: Images in a step.
        pixels: Drawn of each image in a step.
        epochs: How often each image is seen; None for the rule above.

    Attributes:
        weight_: (D, G, n_classes), on standardised features.
        bias_: (G, n_classes).
        epochs_: How often each image was seen.

    Source: the linear evaluations of DINOv2 (arXiv 2304.07193, section 7.4) and of Hummingbird's open reproduction
        (github.com/vpariza/open-hummingbird-eval); points instead of maps as in PointRend (arXiv 1912.08193).
    """

    weight_: torch.Tensor
    bias_: torch.Tensor
    standardizer_: Standardizer
    epochs_: int

    def __init__(
        self,
        points: Sequence[dict[str, Any]],
        seed: int = 0,
        device: str = "cpu",
        batch_size: int = 16,
        pixels: int = 64,
        epochs: int | None = None,
    ) -> None:
        super().__init__(points, seed, device)
        self.batch_size = batch_size
        self.pixels = pixels
        self.epochs = epochs

    def fit(self, features: GridFeatures, target: Target, n_classes: int) -> Self:
        """See `DenseProbe.fit`."""
        self.epochs_ = self.epochs or repetitions(len(features), _SEEN, *_EPOCHS)
        for point in self.points:
            check_recipe(**point, epochs=self.epochs_, batch_size=self.batch_size, seed=self.seed)
        pool = _draw_pool(target, len(features), n_classes, self.seed)
        self.standardizer_ = features.standardizer(self.device)
        heads = [self._initial(features.channels, n_classes) for _ in self.points]
        optimizer = torch.optim.AdamW([g for pair in zip(self.points, heads, strict=True) for g in _groups(*pair)])
        schedule = [(group, group["lr"]) for group in optimizer.param_groups]
        order = np.random.default_rng([self.seed, 1])
        for share, chosen in shuffled_batches(len(pool), self.batch_size, self.epochs_, self.seed):
            for group, lr in schedule:
                group["lr"] = lr * cosine(share)
            x, labels = self._batch(features, [pool[i] for i in chosen], order)
            optimizer.zero_grad()
            _loss(x, labels, heads).backward()
            optimizer.step()
        self.weight_ = torch.stack([head["weight"].detach() for head in heads], dim=1)
        self.bias_ = torch.stack([head["bias"].detach() for head in heads])
        return self

    def scores(self, features: GridFeatures) -> Iterator[torch.Tensor]:
        """See `DenseProbe.scores`; these are logits."""
        for run in features.runs():
            for x in self._standardized(features.read(run, self.device)):
                logits = torch.einsum("pd,dgk->gpk", x, self.weight_) + self.bias_[:, None]
                yield logits.unflatten(1, (features.rows, features.columns))

    def _initial(self, width: int, n_classes: int) -> dict[str, nn.Parameter]:
        shapes = {"weight": (width, n_classes), "bias": (n_classes,)}
        return {name: nn.Parameter(torch.zeros(shape, device=self.device)) for name, shape in shapes.items()}

    def _batch(
        self, features: GridFeatures, pools: list[_Pixels], order: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised features (b * pixels, D) at pixels drawn of each image, and their classes."""
        drawn = [order.integers(len(pool.labels), size=self.pixels) for pool in pools]
        corners, shares, labels = zip(
            *(pool.corners(some, features.rows, features.columns) for pool, some in zip(pools, drawn, strict=True)),
            strict=True,
        )
        x = features.read(np.array([pool.image for pool in pools]), self.device)
        places = torch.from_numpy(np.stack(corners)).to(self.device)  # (b, pixels, 4)
        weights = torch.from_numpy(np.stack(shares)).to(self.device)
        places = places + features.positions * torch.arange(len(x), device=self.device)[:, None, None]
        read = embedding_bag(
            places.flatten(0, 1), x.flatten(0, 1), per_sample_weights=weights.flatten(0, 1), mode="sum"
        )
        y = torch.from_numpy(np.concatenate(labels).astype(np.int64)).to(self.device)
        return self._standardized(read), y

    def _standardized(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.standardizer_.mean.to(x.dtype)) / self.standardizer_.scale.to(x.dtype)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Labelled pixels of one image.

    Attributes:
        image: Its position.
        size: Height and width of its target.
        places: (n,) int32, row * width + column.
        labels: (n,) int16.
    """

    image: int
    size: tuple[int, int]
    places: np.ndarray
    labels: np.ndarray

    def corners(self, chosen: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of chosen (m,) pixels the four positions around each (m, 4), their shares of it (m, 4), its class (m,)."""
        down, across = np.divmod(self.places[chosen], self.size[1])
        top, bottom, lower = neighbours(down, self.size[0], rows)
        left, right, further = neighbours(across, self.size[1], columns)
        corners = [row * columns + column for row in (top, bottom) for column in (left, right)]
        shares = [vertical * beside for vertical in (1 - lower, lower) for beside in (1 - further, further)]
        return np.stack(corners, axis=1), np.stack(shares, axis=1), self.labels[chosen]


def _draw_pool(target: Target, images: int, n_classes: int, seed: int) -> list[_Pixels]:
    """Some labelled pixels of every image that has any."""
    most = min(max(_POOL // images, _LEAST), _MOST)
    pool = []
    for image in range(images):
        classes = target(image)
        check_target(classes, image, n_classes)
        labelled = np.flatnonzero(classes.ravel() >= 0).astype(np.int32)
        if len(labelled) > most:
            labelled = np.random.default_rng([seed, 0, image]).choice(labelled, most, replace=False, shuffle=False)
        if len(labelled):
            size = (classes.shape[0], classes.shape[1])
            pool.append(_Pixels(image, size, labelled, classes.ravel()[labelled].astype(np.int16)))
    if not pool:
        raise ValueError("Expected at least one labelled pixel, but got none.")
    return pool


def _groups(point: dict[str, Any], head: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    """What AdamW is told of one head."""
    lr, weight_decay = point["lr"], point["weight_decay"]
    return [
        {"params": [head["weight"]], "lr": lr, "weight_decay": weight_decay},
        {"params": [head["bias"]], "lr": lr, "weight_decay": 0.0},
    ]


def _loss(x: torch.Tensor, labels: torch.Tensor, heads: list[dict[str, nn.Parameter]]) -> torch.Tensor:
    """The sum of the heads' mean cross-entropies, whose gradient for each head is that of its own."""
    weight = torch.cat([head["weight"] for head in heads], dim=1)
    logits = torch.addmm(torch.cat([head["bias"] for head in heads]), x, weight).view(len(x), len(heads), -1)
    targets = labels[:, None].expand(-1, len(heads))
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(labels)
