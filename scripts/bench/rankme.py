"""What RankMe costs on ImageNet's features: `python scripts/bench/rankme.py [--images 1281167] [--width 2048]`.

Writes random features of that many images to a temporary file, a chunk at a time, and takes RankMe of the mapped file.
Prints seconds, the largest memory beyond the file's own pages, and its ratio to what the whole would take in float64;
and, on as many images as a whole SVD is quick for, how far the two differ.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from bob.analysis.spectrum import rank_me

_CHUNK = 4096
_COMPARED = 4096  # images of the comparison with a whole SVD


def main() -> None:
    """Make the file, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--folder", type=Path, help="of the temporary file; it takes 4 bytes a number")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "features.npy"
        _write(path, given.images, given.width)
        features = np.load(path, mmap_mode="r")
        _compare(features[:_COMPARED])
        _measure(features)


def _write(path: Path, images: int, width: int) -> None:
    """Correlated features whose spectrum falls as a power law, about a mean, as those of networks do."""
    rng = np.random.default_rng(0)
    scale = (np.arange(1, width + 1) ** -0.75).astype(np.float32)
    mirror = rng.standard_normal(width).astype(np.float32)
    mirror /= np.linalg.norm(mirror)  # a reflection mixes all directions, and costs less than a rotation
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(images, width))
    for start in range(0, images, _CHUNK):
        rows = min(_CHUNK, images - start)
        drawn = rng.standard_normal((rows, width), dtype=np.float32) * scale
        file[start : start + rows] = drawn - 2 * np.outer(drawn @ mirror, mirror) + 0.1
    file.flush()


def _compare(features: np.ndarray) -> None:
    sigma = np.linalg.svd(np.array(features, dtype=np.float64), compute_uv=False)
    share = sigma / sigma.sum() + 1e-7
    expected = float(np.exp(-(share * np.log(share)).sum()))
    found = rank_me(features)
    print(f"{len(features)} images: RankMe {found:.6f}, by a whole SVD {expected:.6f}, {found / expected - 1:+.1e} off")


def _measure(features: np.ndarray) -> None:
    done, most = threading.Event(), [0]
    before = _own_memory()
    watcher = threading.Thread(target=_watch, args=(done, most))
    watcher.start()
    started = time.perf_counter()
    found = rank_me(features)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    whole, took = 8 * features.size, most[0] - before
    print(f"{len(features)} x {features.shape[1]}: RankMe {found:.3f} in {seconds:.0f} s")
    share = f"1/{whole / max(took, 1):.0f} of the {whole / 2**30:.1f} GiB of the whole in float64"
    print(f"{took / 2**20:.0f} MiB beyond the file's pages, {share}")


def _watch(done: threading.Event, most: list[int]) -> None:
    while not done.wait(0.05):
        most[0] = max(most[0], _own_memory())


def _own_memory() -> int:
    """Bytes of this process that belong to no file (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("This measurement needs Linux's /proc.")


if __name__ == "__main__":
    main()
