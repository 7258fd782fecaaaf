"""Nearest class mean: an image belongs to the class whose mean feature is closest."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from bob.probes.base import Probe, check_features, check_training, to_tensor
from bob.probes.minibatch import exact, runs

_NORMALIZATIONS = ("none", "l2n", "cl2n")
_ROUNDING = 10 * torch.finfo(torch.float32).eps  # features come in float32, whatever they are computed in here
_LEAST_SPREAD = 1e-9  # of scores, relative to the largest; what is below is rounding
_ENOUGH = 2048  # images for one number, the temperature
# Relative to the spread of the scores; never so cold that a mistake has probability 0.
_LOG_TEMPERATURES = (math.log(1e-2), math.log(1e2))


class NearestClassMean(Probe):
    """Classifies by similarity to the mean of each class's training images; nothing to train, so also for one image.

    Scores are cosines between an image and the class means, or negative squared distances if `normalize` is "none".
    A softmax of scores / temperature makes them probabilities, with the temperature at which leave-one-out scores of
    the training images have the lowest negative log-likelihood: an image's own class mean is taken without it (the
    mean that "cl2n" subtracts is kept). An image that is alone in its class has no such score and is not asked. If
    all are alone, the temperature is the standard deviation of the images' scores for the classes not theirs, or 1 if
    these are all the same. A class without training images has probability 0.

    Args:
        normalize: "none" for features as they are and Euclidean distance, "l2n" to bring them to length one, "cl2n" to
            subtract the training images' mean first.
        device: Where to compute.

    Attributes:
        means_: (n_classes, D), the class means of the normalised features; zero for a class without images. For "l2n"
            and "cl2n" of length one.
        present_: (n_classes,), whether the class has training images.
        temperature_: Of the softmax.

    Source: Wang et al. 2019, SimpleShot (arXiv 1911.04623), for the normalisations UN, L2N and CL2N. There the distance
        to class means is always Euclidean; cosine differs in that all means count as equally long.
    """

    def __init__(self, normalize: str = "cl2n", device: str = "cpu") -> None:
        self.normalize = normalize
        self.device = device

    def fit(self, features: np.ndarray, labels: np.ndarray, n_classes: int) -> Self:
        """See `Probe.fit`; features may be memory-mapped and are never copied whole."""
        if self.normalize not in _NORMALIZATIONS:
            raise ValueError(
                f"Expected `normalize` to be one of {', '.join(_NORMALIZATIONS)}, but got {self.normalize}."
            )
        check_training(features, labels, n_classes)
        y = torch.as_tensor(labels, dtype=torch.long, device=self.device)
        self.center_ = self._center(features)
        sums = torch.zeros(n_classes, features.shape[1], dtype=exact(self.device), device=self.device)
        for run in runs(features):
            sums.index_add_(0, y[run], self._normalized(features[run]))
        counts = torch.bincount(y, minlength=n_classes)
        self.present_ = counts > 0
        self.means_ = self._direction(sums / counts.clamp_min(1)[:, None])
        self.temperature_ = self._temperature(features, y, sums, counts)
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See `Probe.predict_proba`."""
        check_features(features, width=self.means_.shape[1])
        scores = torch.cat([self._scores(self._normalized(features[run])) for run in runs(features)])
        return torch.softmax(scores.cpu().double() / self.temperature_, dim=1).numpy()

    def _center(self, features: np.ndarray) -> torch.Tensor:
        """What is subtracted from the features, (D,); for distances it makes no difference but to rounding."""
        total = torch.zeros(features.shape[1], dtype=exact(self.device), device=self.device)
        if self.normalize == "l2n":
            return total
        for run in runs(features):
            total += to_tensor(features[run], self.device).to(total.dtype).sum(dim=0)
        return total / len(features)

    def _normalized(self, features: np.ndarray) -> torch.Tensor:
        """Features (n, D) centred and, unless left as they are, of length one; those at the centre are zero."""
        x = to_tensor(features, self.device).to(self.center_.dtype) - self.center_
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        x.masked_fill_(length <= _ROUNDING * torch.linalg.vector_norm(self.center_), 0)
        return self._direction(x)

    def _direction(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors (n, D) of length one, those of length zero left alone; as they are if distances are compared."""
        if self.normalize == "none":
            return x
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return x / torch.where(length > 0, length, torch.ones_like(length))

    def _scores(self, x: torch.Tensor) -> torch.Tensor:
        """Similarities (n, n_classes) of normalised features to the class means; -inf for a class without images."""
        scores = x @ self.means_.T
        if self.normalize == "none":  # -|x - m|^2 = 2 x.m - |m|^2 - |x|^2
            scores = 2 * scores - self.means_.square().sum(dim=1) - x.square().sum(dim=1, keepdim=True)
        return scores.masked_fill(~self.present_, -math.inf)

    def _temperature(self, features: np.ndarray, y: torch.Tensor, sums: torch.Tensor, counts: torch.Tensor) -> float:
        """The temperature at which the leave-one-out scores have the lowest mean negative log-likelihood."""
        in_company = torch.nonzero(counts[y] > 1).flatten()
        rows = in_company if len(in_company) else torch.arange(len(y), device=y.device)
        rows = rows[:: math.ceil(len(rows) / _ENOUGH)]
        x, own = self._normalized(features[rows.cpu().numpy()]), y[rows]
        scores = self._scores(x)
        spread = _spread(scores, own)
        if not len(in_company):
            return spread
        scores[torch.arange(len(own), device=own.device), own] = self._leave_one_out(x, sums[own], counts[own])

        def loss(log_temperature: float) -> float:
            return float(torch.nn.functional.cross_entropy(scores / (spread * math.exp(log_temperature)), own))

        found = minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-3})
        return spread * math.exp(found.x)

    def _leave_one_out(self, x: torch.Tensor, sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Scores (n,) of normalised features (n, D) for their classes, whose sums and counts include them."""
        means = self._direction((sums - x) / (counts - 1)[:, None])
        return -(x - means).square().sum(dim=1) if self.normalize == "none" else (x * means).sum(dim=1)


def _spread(scores: torch.Tensor, own: torch.Tensor) -> float:
    """The standard deviation of the scores (n, C) for classes not the images' own; 1 if they are the same."""
    wrong = torch.isfinite(scores).scatter_(1, own[:, None], False)
    others = scores[wrong]
    spread = float(others.std(correction=0))
    return spread if spread > _LEAST_SPREAD * float(others.abs().max()) else 1.0
