"""How much a grid of hyperparameters costs beside one point, on the same features: `python scripts/bench/probes.py`.

Ridge: one decomposition serves every strength of the penalty. Prints ratios from one run; the two are timed in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from bob.adapters.classification import RIDGE
from bob.probes.ridge import RidgeClassifier


def main() -> None:
    """Time ridge with its whole grid against ridge with one point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--queries", type=int, default=5_000, help="validation images, predicted at every point")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    x, y = features(given.images + given.queries, given.width, given.classes)
    train, labels, queries = x[: given.images], y[: given.images], x[given.images :]

    def ridge(points: tuple[dict[str, float], ...]) -> Callable[[], None]:
        return lambda: consume(RidgeClassifier.path(points, train, labels, given.classes, queries))

    one, grid = ridge(RIDGE.grid[:1]), ridge(RIDGE.grid)
    print(f"{given.images} x {given.width}, {given.classes} classes, {given.queries} queries")
    ratios = [seconds(grid) / seconds(one) for _ in range(given.rounds)]
    print(
        f"ridge, {len(RIDGE.grid)} strengths / 1: {statistics.median(ratios):.2f} times "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {given.rounds} rounds)"
    )


def features(n: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping blobs with correlated features: float32 (n, width) and labels (n,)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    means = rng.normal(size=(classes, width)).astype("f4")
    mixing = (rng.normal(size=(width, width)) * np.logspace(0, -2, width)).astype("f4")
    return (means[labels] + 2 * rng.normal(size=(n, width)).astype("f4")) @ mixing, labels


def consume(results: object) -> None:
    """Run a generator to its end."""
    for _ in results:  # type: ignore[attr-defined]
        pass


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
