#!/usr/bin/env python3
"""How much of the raw forward pass's speed is left end to end, from JPEG files to stored features.

In one run and in turns, it times (a) the forward pass alone on one batch from memory, (b) bob's extraction from JPEG
files of 500 x 375 pixels into a feature store, workers and all, and (c) the same forward pass fed by a plain loader of
PIL, Resize, CenterCrop, ToTensor and Normalize with as many workers. It prints the medians and the ratios to (a).

    python scripts/bench/extraction.py --backbone efficientnet_lite0
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import transforms

from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.catalogue import load_backbone_cards
from bob.cores import granted_cores
from bob.data.files import FileImages
from bob.features.extract import Extraction, fill_store, prepare
from bob.features.store import FeatureStore


class PlainImages(torch.utils.data.Dataset):
    """What most people write: PIL, then torchvision transforms to a normalised float tensor."""

    def __init__(self, paths: list[Path], backbone: Backbone) -> None:
        own = backbone.preprocess
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize(int(own.size[0] / own.crop_fraction), transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(own.size),
                transforms.ToTensor(),
                transforms.Normalize(own.mean, own.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Cut `count` pieces of 500 x 375 pixels from two photographs and save them as JPEG of quality 90."""
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        photograph = photographs[index % 2]
        width = int(rng.integers(400, photograph.width))
        height = width * 3 // 4
        left, top = rng.integers(photograph.width - width), rng.integers(max(1, photograph.height - height))
        piece = photograph.crop((left, top, left + width, top + height)).resize((500, 375), Image.Resampling.BICUBIC)
        paths.append(folder / f"{index:05d}.jpg")
        piece.save(paths[-1], quality=90)
    return paths


def time_raw(backbone: Backbone, how: Extraction, seconds: float) -> float:
    """Images/s of the forward pass on one float batch from memory."""
    batch = torch.rand(how.images_per_batch, 3, *backbone.preprocess.size, device=how.device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    dtype = None if how.precision == "float32" else getattr(torch, how.precision)
    started, images = time.perf_counter(), 0
    with torch.inference_mode(), torch.autocast(how.device.type, dtype=dtype, enabled=dtype is not None):
        while time.perf_counter() - started < seconds:
            backbone.embed(batch)
            images += len(batch)
        if how.device.type == "cuda":
            torch.cuda.synchronize()
    return images / (time.perf_counter() - started)


def time_bob(backbone: Backbone, images: FileImages, how: Extraction, folder: Path) -> float:
    """Images/s of the extraction into a fresh store, the start of the workers included."""
    store = FeatureStore(
        {"bench": time.time_ns(), "backbone": {"model": "bench"}}, len(images), backbone.width(), folder
    )
    started = time.perf_counter()
    fill_store(store, backbone, images, how)
    return len(images) / (time.perf_counter() - started)


def time_plain(backbone: Backbone, paths: list[Path], how: Extraction) -> float:
    """Images/s of the same forward pass behind a plain loader."""
    workers = granted_cores() if how.workers is None else how.workers
    loader = torch.utils.data.DataLoader(PlainImages(paths, backbone), how.images_per_batch, num_workers=workers)
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in loader:
            backbone.embed(batch.to(how.device).contiguous(memory_format=torch.channels_last)).cpu()
    return len(paths) / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()

    how = Extraction(torch.device(options.device), options.precision, options.batch_size, options.workers)
    backbone = prepare(open_backbone(resolve_backbone(options.backbone, load_backbone_cards())), how.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_photographs(folder, options.images)
        images = FileImages(folder, [path.name for path in paths], np.zeros(len(paths), dtype=np.int64))
        time_bob(backbone, images, how, folder / "store")  # to warm up
        figures: dict[str, list[float]] = {"raw forward": [], "bob, end to end": [], "PIL + ToTensor, end to end": []}
        for _ in range(options.rounds):
            rounds = (
                time_raw(backbone, how, seconds=options.images / 100),
                time_bob(backbone, images, how, folder / "store"),
                time_plain(backbone, paths, how),
            )
            for values, value in zip(figures.values(), rounds, strict=True):
                values.append(value)
    report(options.backbone, how, options.images, figures)


def report(name: str, how: Extraction, images: int, figures: dict[str, list[float]]) -> None:
    """Print a line for each figure: median rate, and the median over rounds of its ratio to the raw forward pass."""
    cores = f"{granted_cores()} cores, {how.images_per_batch} images a batch"
    print(f"{name}, {how.precision} on {how.device}, {cores}, {images} JPEG files of 500 x 375")
    raw = figures["raw forward"]
    for label, values in figures.items():
        ratios = [value / base for value, base in zip(values, raw, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"{label:28s} {statistics.median(values):8.1f} images/s   ratio {statistics.median(ratios):.2f} ({spread})"
        )


if __name__ == "__main__":
    main()
