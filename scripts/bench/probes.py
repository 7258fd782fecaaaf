"""What probes cost, as ratios from one run on the same features: `python scripts/bench/probes.py`.

Each section times two things in turn, several rounds; `--only NAME` runs one section. `--memory`, instead, looks up
neighbours in a memory-mapped file of ImageNet's size, in a temporary folder, and says how much memory beyond the file
that took.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression as SklearnLogistic
from sklearn.preprocessing import StandardScaler

from bob.adapters.classification import LINEAR, RIDGE
from bob.probes.knn import KNeighbors
from bob.probes.logistic import LogisticRegression
from bob.probes.logistic_problem import Problem
from bob.probes.ridge import RidgeClassifier
from bob.probes.sgd import LinearSGD

Work = Callable[[], object]


@dataclass(frozen=True)
class Given:
    """Features (n, D) and labels of the training images, features of the queries, and how often to measure."""

    train: np.ndarray
    labels: np.ndarray
    queries: np.ndarray
    classes: int
    rounds: int
    device: str


def main() -> None:
    """Run the sections asked for, and the measurement of memory if it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--queries", type=int, default=5_000, help="validation images, predicted at every point")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="of the section sgd")
    parser.add_argument("--only", choices=SECTIONS, help="one section")
    parser.add_argument("--memory", action="store_true", help="memory of k-NN on a mapped file; nothing else")
    parser.add_argument("--memory-images", type=int, default=1_281_167)
    parser.add_argument("--memory-queries", type=int, default=1_000)
    options = parser.parse_args()
    if options.memory:
        memory(options.memory_images, options.width, options.memory_queries)
        return
    x, y = features(options.images + options.queries, options.width, options.classes)
    given = Given(
        x[: options.images], y[: options.images], x[options.images :], options.classes, options.rounds, options.device
    )
    print(
        f"{options.images} x {options.width}, {options.classes} classes, {options.queries} queries, "
        f"{torch.get_num_threads()} threads"
    )
    for name in [options.only] if options.only else SECTIONS:
        SECTIONS[name](given)


def ridge(given: Given) -> None:
    """The grid beside one point: one decomposition serves every strength of the penalty."""

    def path(points: tuple[dict[str, float], ...]) -> Work:
        return lambda: list(RidgeClassifier.path(points, given.train, given.labels, given.classes, given.queries))

    compare(f"ridge, {len(RIDGE.grid)} strengths / 1", path(RIDGE.grid), path(RIDGE.grid[:1]), given.rounds, bound=1.5)


def logistic(given: Given) -> None:
    """One fit beside scikit-learn's, until the loss is the same."""
    compare_logistic("logistic, one fit", given, [1e-3])


def logistic_grid(given: Given) -> None:
    """The grid from strong to weak, each fit starting from the one before, in both libraries."""
    strengths = sorted((point["l2"] for point in LINEAR.grid), reverse=True)
    compare_logistic(f"logistic, grid of {len(strengths)}", given, strengths)


def compare_logistic(name: str, given: Given, strengths: list[float]) -> None:
    """Time both from features to weights, ours until its loss is scikit-learn's at every strength, and to the end.

    The losses of scikit-learn are those at its default tolerance, evaluated in float64.
    """
    x = StandardScaler().fit_transform(given.train)
    judge = Problem(given.train, given.labels, given.classes, standardize=True, device="cpu")
    targets = [judge.evaluate(t, l2, torch.float64).value for t, l2 in sklearn_path(x, given.labels, strengths)]

    def ours(targets: list[float]) -> list[float]:
        problem, start, losses = Problem(given.train, given.labels, given.classes, True, "cpu"), None, []
        for l2, target in zip(strengths, targets, strict=True):
            for state in problem.descend(l2, start):
                # The default tolerance of LogisticRegression, unless scikit-learn's loss is reached before.
                done = state.exact and state.excess <= LogisticRegression().tolerance * state.point.value
                if state.point.value <= target or done or (state.exact and state.end):
                    break
            start = state.point.theta
            losses.append(state.point.value)
        return losses

    def theirs() -> None:
        sklearn_path(StandardScaler().fit_transform(given.train), given.labels, strengths)

    label = f"{name}, to scikit-learn's loss at its default tolerance / scikit-learn"
    compare(label, lambda: ours(targets), theirs, given.rounds, bound=1.0)
    started = time.perf_counter()
    best = ours([-1.0] * len(strengths))
    took = time.perf_counter() - started
    excess = [target / own - 1 for target, own in zip(targets, best, strict=True)]
    print(
        f"    to the end, as in use: {took:.2f} s once; there its loss lies below scikit-learn's by "
        f"{min(excess):.1e} to {max(excess):.1e} of it",
        flush=True,
    )


def sklearn_path(x: np.ndarray, labels: np.ndarray, strengths: list[float]) -> list[tuple[torch.Tensor, float]]:
    """Weights and, in the last row, biases (D + 1, C) of scikit-learn at each strength, warm-started."""
    model, found = SklearnLogistic(max_iter=5000, warm_start=True), []
    for l2 in strengths:
        model.set_params(C=1 / (l2 * len(x))).fit(x, labels)
        theta = np.concatenate([model.coef_.T, model.intercept_[None]]).astype("f8")
        found.append((torch.from_numpy(theta), l2))
    return found


def sgd(given: Given) -> None:
    """52 heads in one pass over the features beside one head."""
    grid = [
        {"lr": lr, "weight_decay": decay, "epochs": 1, "device": given.device}
        for lr in (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
        for decay in (0.0, 1e-5, 1e-4, 1e-3)
    ]

    def path(points: list[dict[str, Any]]) -> Work:
        return lambda: list(LinearSGD.path(points, given.train, given.labels, given.classes, given.queries))

    path(grid[:1])()  # the first is slower, for reasons that have nothing to do with it
    compare(f"SGD on {given.device}, {len(grid)} heads / 1", path(grid), path(grid[:1]), given.rounds, bound=4.0)
    if given.device == "cpu":
        print("    the multiplications of 52 heads are 52 times those of one; a CPU, unlike a GPU, is bound by these")


def knn(given: Given) -> None:
    """From features to neighbours and votes, beside normalising them, making a flat index and searching it."""
    if importlib.util.find_spec("faiss") is None:
        print("k-NN / faiss-cpu flat: left out, faiss-cpu is not installed")
        return
    for k in (20, 200):

        def bob(k: int = k) -> object:
            return KNeighbors(k).fit(given.train, given.labels, given.classes).predict(given.queries)

        def flat(k: int = k) -> object:
            return flat_index(given.train, given.queries, k)

        compare(f"k-NN / faiss-cpu flat, k = {k}", bob, flat, given.rounds)


def flat_index(train: np.ndarray, queries: np.ndarray, k: int) -> object:
    """Cosine neighbours by faiss's exact index, on as many threads as torch uses."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    train, queries = train.copy(), queries.copy()
    faiss.normalize_L2(train)
    faiss.normalize_L2(queries)
    index = faiss.IndexFlatIP(train.shape[1])
    index.add(train)
    return index.search(queries, k)


SECTIONS: dict[str, Callable[[Given], None]] = {
    "ridge": ridge,
    "logistic": logistic,
    "logistic-grid": logistic_grid,
    "knn": knn,
    "sgd": sgd,
}


def memory(n: int, width: int, queries: int) -> None:
    """Peak anonymous memory (Linux's RssAnon) of k-NN on a mapped file, above what the process had before.

    Pages of the file are not counted: the system takes them back whenever it needs them.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        write_noise(path, n, width)
        mapped = np.load(path, mmap_mode="r")
        labels = np.arange(n) % 1000
        started, before, peak = time.perf_counter(), anonymous_gb(), [0.0]
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(done, peak))
        watcher.start()
        KNeighbors(20).fit(mapped, labels, 1000).predict(np.array(mapped[:queries]))
        done.set()
        watcher.join()
        print(
            f"k-NN on a mapped file of {n} x {width} float32 ({path.stat().st_size / 1e9:.2f} GB), {queries} queries: "
            f"{peak[0] - before:.2f} GB beyond it at the peak, {time.perf_counter() - started:.0f} s"
        )


def write_noise(path: Path, n: int, width: int) -> None:
    """A float32 .npy file of normal noise, written in parts."""
    rng = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, width))
    for start in range(0, n, 1 << 14):
        part = file[start : start + (1 << 14)]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    file.flush()


def watch(done: threading.Event, peak: list[float]) -> None:
    """Sample memory every 5 ms until done."""
    while not done.wait(0.005):
        peak[0] = max(peak[0], anonymous_gb())


def anonymous_gb() -> float:
    """Memory of the process that belongs to no file, in GB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e9


def compare(name: str, one: Work, other: Work, rounds: int, bound: float | None = None) -> None:
    """Time both in turn and print the ratio, and the median times."""
    times = [(seconds(one), seconds(other)) for _ in range(rounds)]
    ratios = [a / b for a, b in times]
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{name}: {statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds; "
        f"median {first:.2f} s and {second:.2f} s)" + ("" if bound is None else f"; wanted: at most {bound:g}"),
        flush=True,
    )


def features(n: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping blobs with correlated features: float32 (n, width) and labels (n,)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    means = rng.normal(size=(classes, width)).astype("f4")
    mixing = (rng.normal(size=(width, width)) * np.logspace(0, -2, width)).astype("f4")
    return (means[labels] + 2 * rng.normal(size=(n, width)).astype("f4")) @ mixing, labels


def seconds(work: Work) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
