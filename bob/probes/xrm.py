"""Groups that nobody annotated: images which twin classifiers, each trained on the other's held-out half, get wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bob.probes.base import check_features, check_training
from bob.probes.minibatch import Standardizer, runs


class CrossRiskMinimization:
    """Finds the images of each class that go against what is easiest to learn (XRM).

    Two linear classifiers start from zero, each on a random half of the images. After each step of gradient descent, an
    image takes the label that the classifier which does not train on it predicts, with probability
    (p - 1 / C) C / (C - 1), p being its confidence: labels that go against a shortcut are flipped to follow it, so both
    come to rely on the shortcut. An image that either gets wrong is then in the environment where it fails.

    Args:
        steps: Of gradient descent on all images.
        lr: Their size, on standardised features.
        seed: Of the halves and the flips.
        device: Where to compute.

    Attributes:
        weight_: (2, D, C), of the twins.
        bias_: (2, C).

    Source: Pezeshki et al. 2024, Discovering environments with XRM, arXiv 2309.16748, section 4 and its short program
        for linear classifiers on features; there without bias and standardisation.
    """

    weight_: torch.Tensor
    bias_: torch.Tensor

    def __init__(self, steps: int = 1000, lr: float = 1e-2, seed: int = 0, device: str = "cpu") -> None:
        self.steps = steps
        self.lr = lr
        self.seed = seed
        self.device = device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """Train the twins.

        Args:
            features: (n, D).
            labels: (n,) in [0, n_classes).
            n_classes: C.

        Raises:
            ValueError: If shapes, labels or hyperparameters do not make sense.
        """
        check_training(features, labels, n_classes)
        if self.steps < 1 or not self.lr > 0:
            raise ValueError(f"Expected `steps` and `lr` to be positive, but got {self.steps} and {self.lr}.")
        # Chance stays on the CPU, so that every device draws the same.
        chance = torch.Generator().manual_seed(self.seed)
        self._standardizer = Standardizer.of(features, self.device)
        x = torch.cat([self._read(features[run]) for run in runs(features)])
        truth = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        mine = (torch.rand(len(truth), generator=chance) < 0.5).long().to(self.device)
        self.weight_ = torch.zeros(2, x.shape[1], n_classes, dtype=x.dtype, device=self.device, requires_grad=True)
        self.bias_ = torch.zeros(2, n_classes, dtype=x.dtype, device=self.device, requires_grad=True)
        optimizer = torch.optim.SGD([self.weight_, self.bias_], lr=self.lr)
        target, rows = truth.to(self.device), torch.arange(len(truth), device=self.device)
        for _ in range(self.steps):
            both = torch.baddbmm(self.bias_[:, None], x.expand(2, *x.shape), self.weight_)
            optimizer.zero_grad()
            _balanced(both[mine, rows], target).backward()
            optimizer.step()
            target = _flipped(both[1 - mine, rows].detach(), target, chance)
        self.weight_, self.bias_ = self.weight_.detach(), self.bias_.detach()
        return self

    def mistaken(self, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return bool (n,): whether either of the twins gets an image wrong, by its own label.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_features(features, width=self.weight_.shape[1])
        if np.shape(labels) != (len(features),):
            raise ValueError(f"Expected labels of shape ({len(features)},), but got {np.shape(labels)}.")
        predicted = torch.cat([self._predict(features[run]) for run in runs(features)], dim=1).cpu().numpy()
        wrong: np.ndarray = (predicted != np.asarray(labels)).any(axis=0)
        return wrong

    def _predict(self, features: np.ndarray) -> torch.Tensor:
        x = self._read(features)
        return torch.baddbmm(self.bias_[:, None], x.expand(2, *x.shape), self.weight_).argmax(dim=2)

    def _read(self, features: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(np.array(features, dtype=np.float32)).to(self.device)
        return (x - self._standardizer.mean.float()) / self._standardizer.scale.float()


def discovered_groups(
    labels: np.ndarray, mistaken: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return each image's group, its class and whether the twins fail on it, and the groups' names.

    With `dataclasses.replace(predictions, groups=..., group_names=...)` the metric `worst_group` is the accuracy of the
    discovered group where it is lowest.

    Args:
        labels: (n,) the class of each image.
        mistaken: (n,) of `CrossRiskMinimization.mistaken`.
        classes: C names.

    Returns:
        (n,) int64 in [0, 2 C), and 2 C names.
    """
    names = tuple(f"{name}, {how}" for name in classes for how in ("with the shortcut", "against it"))
    return 2 * np.asarray(labels, dtype=np.int64) + np.asarray(mistaken, dtype=np.int64), names


def _balanced(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, every class that occurs weighing the same: sum over classes of the mean over its images."""
    counts = torch.bincount(target, minlength=logits.shape[1]).to(logits.dtype)
    return (cross_entropy(logits, target, reduction="none") / counts[target]).sum()


def _flipped(logits: torch.Tensor, target: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """The labels of the next step, some of them replaced by what is predicted."""
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    classes = logits.shape[1]
    flips = torch.rand(len(target), generator=chance).to(target.device) < (confidence - 1 / classes) * classes / (
        classes - 1
    )
    return torch.where(flips, predicted, target)
