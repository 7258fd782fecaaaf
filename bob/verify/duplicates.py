"""Images that are there twice: the same pixels, and nearly the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bob.verify.look import Seen

NEAR = 0.995
"""Correlation of two thumbnails from which on two images count as nearly the same."""

_LEAST_CONTRAST = 2.0  # grey levels; thumbnails flatter than this look alike without being so
_ROWS, _COLUMNS = 2048, 8192  # a block of correlations, 64 MiB


@dataclass(frozen=True)
class Pair:
    """Two images of different splits, by row of `Seen`, and the correlation of their thumbnails."""

    first: int
    second: int
    correlation: float


def same_pixels(seen: Seen) -> list[np.ndarray]:
    """Rows of images that decode to the same pixels: two or more each, in ascending order."""
    rows = np.flatnonzero(seen.readable)
    keys = seen.look.pixels[rows].view(np.uint64)
    order = np.lexsort(keys.T)  # stable, so that rows of one group stay in order
    new = np.any(keys[order][1:] != keys[order][:-1], axis=1)
    groups = np.split(rows[order], np.flatnonzero(new) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))


def nearly_same(seen: Seen, exact: list[np.ndarray], threshold: float = NEAR) -> list[Pair]:
    """For each image, the most alike image of an earlier split, if their thumbnails correlate enough.

    Correlation does not mind brightness, contrast, size or compression. All pairs of two splits are compared, in
    blocks: about 0.5 GFLOP for a thousand images against a thousand.

    Args:
        seen: The images.
        exact: Groups with the same pixels; an image that has its like in another split is left out.
        threshold: Least correlation.
    """
    usable = seen.readable.copy()
    usable[[row for group in exact if len(set(seen.split[group])) > 1 for row in group]] = False
    usable &= seen.look.thumbnails.reshape(len(usable), -1).std(axis=1) >= _LEAST_CONTRAST
    rows = [np.flatnonzero(usable & (seen.split == split)) for split in range(len(seen.splits))]
    pairs = [
        pair
        for later in range(1, len(rows))
        for earlier in range(later)
        for pair in _closest(seen.look.thumbnails, rows[earlier], rows[later], threshold)
    ]
    return sorted(pairs, key=lambda pair: -pair.correlation)


def _closest(thumbnails: np.ndarray, known: np.ndarray, asked: np.ndarray, threshold: float) -> list[Pair]:
    pairs: list[Pair] = []
    if not len(known):
        return pairs
    for start in range(0, len(asked), _ROWS):
        queries = asked[start : start + _ROWS]
        best, partner = np.full(len(queries), -np.inf), np.zeros(len(queries), np.int64)
        unit = _standardised(thumbnails[queries])
        for first in range(0, len(known), _COLUMNS):
            block = unit @ _standardised(thumbnails[known[first : first + _COLUMNS]]).T
            nearest = block.argmax(axis=1)
            found = block[np.arange(len(queries)), nearest]
            better = found > best
            best[better], partner[better] = found[better], first + nearest[better]
        close = np.flatnonzero(best >= threshold)
        pairs += [Pair(int(known[partner[i]]), int(queries[i]), round(float(best[i]), 4)) for i in close]
    return pairs


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    """float32 (n, 256), mean 0 and length 1 each, so that products are correlations."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat
