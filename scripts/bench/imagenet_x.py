"""What scoring a model on ImageNet-X costs: `python scripts/bench/imagenet_x.py` (needs the extra `imagenet-x`).

Draws predictions for the 50,000 validation images, writes them as a CSV file, and times what `bob score imagenet-x`
does with it: read the file, read the annotations, and compute accuracies, error ratios, shifts and calibration errors
of 16 factors on 46,110 images with bootstrap intervals, overall and within each of 17 metaclasses. With `--naive` it
also resamples images instead of patterns, for the overall error ratios alone, and prints the ratio of the two times.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bob.factors.annotations import VAL_IMAGES, load_annotations
from bob.factors.predicted import read_csv
from bob.factors.table import correctness, score
from bob.results.factor_table import Correctness, resample

BOUND = 5.0


def main() -> None:
    """Time each step, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--naive", action="store_true", help="compare with a bootstrap that draws images")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_predictions(Path(folder) / "model.csv")
        for which in ("top", "multi"):
            starts = [time.perf_counter()]
            predicted = read_csv(path)
            starts.append(time.perf_counter())
            annotations = load_annotations(which)
            starts.append(time.perf_counter())
            table = score(predicted, annotations, resamples=given.resamples)
            starts.append(time.perf_counter())
            reading, annotating, scoring = np.diff(starts)
            size = (
                f"{len(annotations):,} x {annotations.flags.shape[1]}, {given.resamples} resamples, {len(table)} rows"
            )
            steps = f"predictions {reading:.2f} s, annotations {annotating:.2f} s, numbers {scoring:.2f} s"
            print(f"{which:5} {size}: {starts[-1] - starts[0]:.2f} s (bound: {BOUND:.0f} s): {steps}")
            if given.naive:
                compare(correctness(predicted, annotations), given.resamples)
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def write_predictions(path: Path) -> Path:
    """Three in four predictions are right."""
    rng = np.random.default_rng(0)
    every = load_annotations(include_prototypes=True)
    labels = pd.Series(every.classes, index=every.names)
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, VAL_IMAGES + 1)]
    classes = labels.reindex(names).fillna(0).astype(int).to_numpy()
    guesses = np.where(rng.random(VAL_IMAGES) < 0.75, classes, rng.integers(1000, size=VAL_IMAGES))
    columns = {"file_name": names, "predicted_class": guesses, "predicted_probability": rng.random(VAL_IMAGES)}
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def compare(judged: Correctness, resamples: int) -> None:
    """Time both ways to resample, on a tenth of the resamples where images are drawn."""
    start = time.perf_counter()
    fast = np.nanquantile(resample(judged, resamples, 0).error_ratios, [0.025, 0.975], axis=0)
    middle = time.perf_counter()
    rng, few = np.random.default_rng(0), max(resamples // 10, 1)
    flags = judged.flags.astype(np.float64)
    ratios = []
    for _ in range(few):
        weights = np.bincount(rng.integers(len(judged), size=len(judged)), minlength=len(judged)).astype(np.float64)
        errors = weights * ~judged.right
        ratios.append((errors @ flags) / (weights @ flags) / (errors.sum() / weights.sum()))
    slow = np.nanquantile(ratios, [0.025, 0.975], axis=0)
    seconds = (time.perf_counter() - middle) * resamples / few
    print(f"      images / patterns: {seconds / (middle - start):.0f}, ends of intervals differ by", end=" ")
    print(f"{np.abs(fast - slow).mean():.3f} on average")


if __name__ == "__main__":
    main()
