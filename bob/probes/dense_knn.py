"""A segmenter without training: each position takes the labels of the most similar positions of training images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from bob.probes.bank import Bank
from bob.probes.dense import DenseProbe, GridFeatures, Target, check_target

_ENTRIES = 1 << 18  # positions in the bank at most
_NUMBERS = 1 << 28  # of their features: 1 GB
_QUERIES = 1 << 23  # numbers of features looked up in one pass over the bank


class NearestPositions(DenseProbe):
    """Nearest neighbours among positions: a bank of features, each with the shares of the classes in its cell.

    Features are centred channel by channel, as large offsets that all positions share would drown what sets them apart,
    and compared by cosine similarity, exactly. A neighbour of similarity s weighs exp(s / temperature); the scores of a
    position are the weighted mean of its neighbours' shares. Cells without a labelled pixel are not in the bank, and
    pixels without a label count in no share.

    The bank is bounded (2^18 positions, or 1 GB of features). Where the training images have more positions, each gives
    equally many, drawn with odds that are larger the fewer cells of the image show the classes of the cell, so that
    small objects are remembered. Where there are more images than places, images are drawn.

    Args:
        points: Each with `k`, neighbours (all where the bank has fewer), and `temperature`.
        seed: Of what is drawn for the bank.
        device: Where to compute.
        entries: Positions in the bank at most; None for the bound above.

    Attributes:
        bank_: The features.
        shares_: float16 (n, n_classes), each row summing to one.
        mean_: (D,), of all positions of the training images.

    Source: Balazevic et al. 2023 (Hummingbird, arXiv 2306.01667), section 3.2 and appendix, whose features are
        not centred; Wang et al. 2019 (SimpleShot, arXiv 1911.04623) for that.
    """

    bank_: Bank
    shares_: torch.Tensor
    mean_: torch.Tensor

    def __init__(
        self, points: Sequence[dict[str, Any]], seed: int = 0, device: str = "cpu", entries: int | None = None
    ) -> None:
        super().__init__(points, seed, device)
        self.entries = entries

    def fit(self, features: GridFeatures, target: Target, n_classes: int) -> Self:
        """See `DenseProbe.fit`."""
        for point in self.points:
            if not (point["k"] >= 1 and point["temperature"] > 0):
                raise ValueError(f"Expected `k` of at least 1 and a positive `temperature`, but got {point}.")
        most = self.entries or min(_ENTRIES, _NUMBERS // features.channels)
        cells = [
            _draw_cells(target(image), image, features, n_classes, budget, self.seed)
            for image, budget in _budgets(len(features), features.positions, most, self.seed)
        ]
        count = sum(len(some.positions) for some in cells)
        if not count:
            raise ValueError("Expected at least one labelled pixel, but got none.")
        self.mean_ = features.standardizer(self.device).mean
        remembered = np.empty((count, features.channels), dtype=np.float32)
        start = 0
        for some in cells:
            x = features.read(np.array([some.image]), self.device)[0, torch.from_numpy(some.positions).to(self.device)]
            remembered[start : start + len(x)] = self._centred(x).cpu().numpy()
            start += len(x)
        self.bank_ = Bank(remembered, self.device)
        self.shares_ = torch.from_numpy(np.concatenate([some.shares for some in cells])).to(self.device)
        return self

    def scores(self, features: GridFeatures) -> Iterator[torch.Tensor]:
        """See `DenseProbe.scores`; these are probabilities."""
        k = min(max(point["k"] for point in self.points), len(self.bank_.features))
        each = max(1, _QUERIES // (features.positions * features.channels))
        for start in range(0, len(features), each):
            x = features.read(np.arange(start, min(start + each, len(features))), self.device)
            found = self.bank_.nearest(self._centred(x).flatten(0, 1).cpu().numpy(), k)
            similarity, entries = (torch.from_numpy(part).unflatten(0, (len(x), -1)) for part in found)
            for one in range(len(x)):
                shares = self.shares_[entries[one].to(self.device)].float()  # (positions, k, n_classes)
                likeness = similarity[one].float().to(self.device)
                voted = torch.stack([_vote(likeness, shares, **point) for point in self.points])
                yield voted.unflatten(1, (features.rows, features.columns))

    def _centred(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.mean_.to(x.dtype)


def _vote(similarity: torch.Tensor, shares: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """(positions, n_classes) from neighbours in falling order of similarity."""
    weights = torch.softmax(similarity[:, :k] / temperature, dim=1)
    return torch.bmm(weights[:, None], shares[:, :k])[:, 0]


@dataclass(frozen=True, eq=False)
class _Cells:
    """Cells of one image: their positions (n,) and the classes' shares of each, float16 (n, n_classes)."""

    image: int
    positions: np.ndarray
    shares: np.ndarray


def _budgets(images: int, positions: int, most: int, seed: int) -> list[tuple[int, int]]:
    """The images that the bank is made of, and how many positions each may give."""
    if images <= most:
        return [(image, min(positions, most // images)) for image in range(images)]
    drawn = np.random.default_rng([seed, 0]).choice(images, most, replace=False, shuffle=False)
    return [(int(image), 1) for image in np.sort(drawn)]


def _draw_cells(
    target: np.ndarray, image: int, features: GridFeatures, n_classes: int, budget: int, seed: int
) -> _Cells:
    check_target(target, image, n_classes)
    counts = count_cells(target, features.rows, features.columns, n_classes)
    positions = np.flatnonzero(counts.any(axis=1))
    counts = counts[positions]
    if len(positions) > budget:
        shown = counts > 0
        odds = (shown / np.maximum(shown.sum(axis=0), 1)).sum(axis=1)
        # Drawing by odds without replacement: the largest of log(u) / odds (Efraimidis and Spirakis 2006).
        keys = np.log1p(-np.random.default_rng([seed, 1, image]).random(len(positions))) / odds
        kept = np.sort(np.argsort(-keys, kind="stable")[:budget])
        positions, counts = positions[kept], counts[kept]
    return _Cells(image, positions, (counts / counts.sum(axis=1, keepdims=True)).astype(np.float16))


def count_cells(target: np.ndarray, rows: int, columns: int, n_classes: int) -> np.ndarray:
    """Pixels of each class in each cell, (rows * columns, n_classes); a pixel is its middle's cell's.

    Args:
        target: (H, W), the class of each pixel or below 0.
        rows: Cells from top to bottom.
        columns: Cells from left to right.
        n_classes: Number of classes.
    """
    height, width = target.shape
    down, across = (2 * np.arange(n) + 1 for n in (height, width))
    cell = (down * rows // (2 * height))[:, None] * columns + (across * columns // (2 * width))[None]
    known = target >= 0
    places = cell[known] * n_classes + target[known]
    return np.bincount(places, minlength=rows * columns * n_classes).reshape(-1, n_classes)
