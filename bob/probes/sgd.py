"""Linear heads trained by stochastic gradient descent, a whole grid of them in one pass over the features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch

from bob.probes.base import Probe, check_features, check_grid, check_training
from bob.probes.minibatch import Standardizer, check_recipe, cosine, exact, runs, shuffled_batches

_MOMENTUM = 0.9
_INITIAL_STD = 0.01
_REFERENCE_BATCH = 256  # the batch size for which a learning rate is stated
_LOSSES = ("softmax", "bce")

Columns = Sequence[Sequence[int]] | None


class LinearSGD(Probe):
    """Linear classifier trained by SGD with momentum 0.9 and a cosine schedule, on stored features as they are.

    The recipe of DINOv2, with three settlements: the bias does not decay (the recipe decays nothing), an epoch is all
    images once (there it is 1,250 batches), and a batch larger than the training set counts as the training set when
    the learning rate is scaled. A grid is trained in one pass: each batch is read once, and the heads that read the
    same columns share one matrix product, forwards and backwards. Head i is what it would be alone, up to rounding.

    A head whose weights leave the range of float32 has diverged: it gives every class the same probability.

    Args:
        lr: Learning rate for a batch of 256; the one used is lr * batch / 256.
        weight_decay: Multiple of the weights added to their gradient, as in `torch.optim.SGD`.
        columns: (start, stop) ranges of the features that the head reads, one after the other; None for all. With
            several layers or poolings stored side by side, this is the choice among them.
        epochs: How often each image is seen.
        batch_size: Images in a step.
        standardize: Whether to bring each feature to mean 0 and variance 1 over the training images first. The recipe
            does not, its features being layer-normalised.
        loss: "softmax" for one class per image; "bce" for multi-label (see `Probe`), where an image's loss is the sum
            over its known labels and the unknown ones have no part in it.
        seed: Of the initial weights and of the order of the images.
        device: Where to compute.

    Attributes:
        weight_: (w, n_classes) for the w columns read, on standardised features.
        bias_: (n_classes,).
        diverged_: Whether the weights left the range of float32.

    Source: Oquab et al. 2023 (arXiv 2304.07193); github.com/facebookresearch/dinov2, dinov2/eval/linear.py.
    """

    weight_: torch.Tensor
    bias_: torch.Tensor
    diverged_: bool
    standardizer_: Standardizer
    ranges_: tuple[tuple[int, int], ...]
    n_features_: int

    def __init__(
        self,
        lr: float = 1e-2,
        weight_decay: float = 0.0,
        columns: Columns = None,
        epochs: int = 10,
        batch_size: int = 1024,
        standardize: bool = True,
        loss: str = "softmax",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.lr = lr
        self.weight_decay = weight_decay
        self.columns = columns
        self.epochs = epochs
        self.batch_size = batch_size
        self.standardize = standardize
        self.loss = loss
        self.seed = seed
        self.device = device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """See `Probe.fit`; features may be memory-mapped and are never copied whole."""
        _train([self], features, labels, n_classes)
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        check_features(features, width=self.n_features_)
        return np.concatenate([self._probabilities(features[run]) for run in runs(features)])

    def predict(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict`; multi-label, a label is 1 if it is more probable than not."""
        table = self.predict_proba(features)
        return (table > 0.5).astype(np.int64) if self.loss == "bce" else table.argmax(axis=1)

    @classmethod
    def path(
        cls,
        grid: Iterable[dict[str, Any]],
        features: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        queries: np.ndarray,
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """See `Probe.path`; all heads are trained in one pass over the features.

        Raises:
            ValueError: If the points differ in anything but `lr`, `weight_decay` and `columns`.
        """
        points = list(grid)
        probes = [cls(**point) for point in points]
        check_grid((vars(probe) for probe in probes), "lr", "weight_decay", "columns")
        _train(probes, features, labels, n_classes)
        for point, probe in zip(points, probes, strict=True):
            yield point, probe.predict_proba(queries)

    def _probabilities(self, features: np.ndarray) -> np.ndarray:
        if self.diverged_:
            share = 0.5 if self.loss == "bce" else 1 / len(self.bias_)
            return np.full((len(features), len(self.bias_)), share)
        selected = np.concatenate([features[:, start:stop] for start, stop in self.ranges_], axis=1)
        x = self.standardizer_(selected, self.weight_.dtype)
        scores = (x @ self.weight_ + self.bias_).cpu().double()
        return (torch.sigmoid(scores) if self.loss == "bce" else torch.softmax(scores, dim=1)).numpy()

    def _read_columns(self, width: int) -> None:
        """Settle which columns are read of features with so many."""
        ranges = ((0, width),) if self.columns is None else tuple((start, stop) for start, stop in self.columns)
        if not ranges or not all(0 <= start < stop <= width for start, stop in ranges):
            raise ValueError(f"Expected `columns` to be (start, stop) ranges in 0 to {width}, but got {self.columns}.")
        self.ranges_, self.n_features_ = ranges, width

    def _check_hyperparameters(self) -> None:
        check_recipe(self.lr, self.weight_decay, self.epochs, self.batch_size, self.seed)
        if self.loss not in _LOSSES:
            raise ValueError(f"Expected `loss` to be one of {', '.join(_LOSSES)}, but got {self.loss}.")


class _Heads:
    """Heads that read the same columns, side by side in one matrix, with their gradient and update written out.

    Attributes:
        probes: The G heads.
        columns: (start, stop) ranges of the columns that they read, w in all, counted from `first`.
        theta: (w + 1, G * n_classes), the weights and, in the last row, the biases.
    """

    def __init__(self, probes: list[LinearSGD], first: int, n_classes: int, batch_size: int) -> None:
        self.probes = probes
        self.columns = [(start - first, stop - first) for start, stop in probes[0].ranges_]
        self._multi_label = probes[0].loss == "bce"
        theta = torch.zeros(sum(stop - start for start, stop in self.columns) + 1, n_classes)
        theta[:-1].normal_(std=_INITIAL_STD, generator=torch.Generator().manual_seed(probes[0].seed))
        self.theta = theta.repeat(1, len(probes)).to(probes[0].device)
        self._velocity = torch.zeros_like(self.theta)
        self._logits = self.theta.new_empty(batch_size, self.theta.shape[1])
        self._lr = self._row([probe.lr * batch_size / _REFERENCE_BATCH for probe in probes], n_classes)
        self._decay = self._row([probe.weight_decay for probe in probes], n_classes)
        self._decays = any(probe.weight_decay for probe in probes)

    def step(self, x: torch.Tensor, labels: torch.Tensor, share: float) -> None:
        """Take a step on standardised features (B, D) and their labels, after this share of the training."""
        ones = x.new_ones(len(x), 1)
        x = torch.cat([x[:, start:stop] for start, stop in self.columns] + [ones], dim=1)
        logits = torch.mm(x, self.theta, out=self._logits[: len(x)])
        residual = logits.view(len(x), len(self.probes), -1)
        (_subtract_known if self._multi_label else _subtract_labels)(residual, labels)
        # Momentum, gradient and its mean over the batch in one product: v <- 0.9 v + x^T residual / B.
        self._velocity.addmm_(x.T, logits, beta=_MOMENTUM, alpha=1 / len(x))
        if self._decays:
            self._velocity[:-1].addcmul_(self.theta[:-1], self._decay)
        self.theta.addcmul_(self._velocity, self._lr, value=-cosine(share))

    def hand_over(self, standardizer: Standardizer) -> None:
        """Give each head its learned state."""
        columns = torch.cat([torch.arange(start, stop) for start, stop in self.columns]).to(self.theta.device)
        standardizer = Standardizer(standardizer.mean[columns], standardizer.scale[columns])
        for probe, theta in zip(self.probes, self.theta.chunk(len(self.probes), dim=1), strict=True):
            theta = theta.to(exact(theta.device))
            probe.weight_, probe.bias_ = theta[:-1].contiguous(), theta[-1].clone()
            probe.diverged_ = not bool(torch.isfinite(theta).all())
            probe.standardizer_ = standardizer

    def _row(self, values: list[float], n_classes: int) -> torch.Tensor:
        """One value for each head, (1, G * n_classes)."""
        return self.theta.new_tensor(values).repeat_interleave(n_classes)[None]


def _subtract_labels(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Turn logits (B, G, C) into softmax probabilities minus one-hot labels (B,): d loss / d logits, in place."""
    torch.softmax(logits, dim=-1, out=logits)
    logits[torch.arange(len(labels), device=labels.device), :, labels] -= 1


def _subtract_known(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Turn logits (B, G, C) into sigmoid probabilities minus labels (B, C), in place; 0 where the label is -1."""
    logits.sigmoid_().sub_(labels[:, None]).masked_fill_(labels[:, None] < 0, 0)


def _train(probes: list[LinearSGD], features: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
    """Train probes that agree in everything but `lr`, `weight_decay` and `columns`, in one pass over the features."""
    for probe in probes:
        probe._check_hyperparameters()
    if not probes:
        return
    recipe = probes[0]
    check_training(features, labels, n_classes, multi_label=recipe.loss == "bce")
    for probe in probes:
        probe._read_columns(features.shape[1])
    # Only the columns between the first and the last that any head reads are looked at.
    first = min(start for probe in probes for start, _ in probe.ranges_)
    read = features[:, first : max(stop for probe in probes for _, stop in probe.ranges_)]
    of = Standardizer.of if recipe.standardize else Standardizer.none
    standardizer = of(read, recipe.device)
    batch_size = min(recipe.batch_size, len(features))
    groups = [_Heads(group, first, n_classes, batch_size) for group in _grouped(probes)]
    y = torch.as_tensor(labels, dtype=torch.long, device=recipe.device)
    for share, rows in shuffled_batches(len(features), batch_size, recipe.epochs, recipe.seed):
        x, labels_of_rows = standardizer(read[rows]), y[torch.from_numpy(rows).to(y.device)]
        for heads in groups:
            heads.step(x, labels_of_rows, share)
    for heads in groups:
        heads.hand_over(standardizer)


def _grouped(probes: list[LinearSGD]) -> list[list[LinearSGD]]:
    """The probes, those together that read the same columns."""
    groups: dict[tuple[tuple[int, int], ...], list[LinearSGD]] = {}
    for probe in probes:
        groups.setdefault(probe.ranges_, []).append(probe)
    return list(groups.values())
