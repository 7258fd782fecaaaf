"""An extraction may be killed or run twice at once; the features are those of an undisturbed one."""

from __future__ import annotations

import importlib.util
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bob.features.extract import fill_store, open_store
from bob.features.store import list_stores


class Slow(nn.Module):
    """Another module, slowed down."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return self.module(images)


def test_two_processes_fill_one_store(small_module, make_backbone, memory_images, small_shards, on_cpu) -> None:
    images, context = memory_images(40), multiprocessing.get_context("fork")

    def fill(module: nn.Module, identity: str, batch_size: int) -> np.ndarray:
        backbone, how = make_backbone(module), on_cpu(batch_size=batch_size)
        store = open_store(backbone, {"model": identity}, images, how)
        fill_store(store, backbone, images, how)
        return store.read()

    workers = [context.Process(target=fill, args=(Slow(small_module), "shared", size)) for size in (3, 8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(list_stores()) == 1
    images.reads.clear()
    shared = fill(small_module, "shared", 8)
    assert images.reads == []  # complete
    np.testing.assert_allclose(shared, fill(small_module, "alone", 8), rtol=1e-5, atol=1e-7)


SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np, torch
from torch import nn
from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard, Weights
from bob.data.base import ImageSet
from bob.features.extract import Extraction, fill_store, open_store

HOW = Extraction(torch.device("cpu"), batch_size=32, workers=0)

class Images(ImageSet):
    labels = np.zeros(900, dtype=np.int64)
    names = [str(i) for i in range(900)]
    def read(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randint(256, (3, 10, 11), dtype=torch.uint8, generator=generator)
    def fingerprint(self):
        return "images"

class Slow(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.seconds, self.images = seconds, 0
    def forward(self, images):
        time.sleep(self.seconds)
        self.images += len(images)
        return self.layers(images)

def open_all(seconds):
    torch.set_num_threads(1)
    card = BackboneCard(name="slow", weights=Weights(source="custom", model="script:make"))
    backbone = Backbone(card, Slow(seconds), Preprocess(size=(8, 8), crop_fraction=1.0), code={})
    images = Images()
    store = open_store(backbone, {"model": "slow"}, images, HOW)
    backbone.model.images = 0
    return store, backbone, images

if __name__ == "__main__":
    store, backbone, images = open_all(0.1)
    print(store.path, flush=True)
    fill_store(store, backbone, images, HOW)
"""


def finished(path: Path) -> list[str]:
    return sorted(mark.name for mark in (path / "marks").glob("[!.]*.json"))


def test_a_killed_extraction_goes_on_where_it_was(tmp_path, home, monkeypatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    path = Path(process.stdout.readline().strip())
    deadline = time.monotonic() + 60
    while len(finished(path)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.15)  # into the third shard
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert finished(path) == ["000000.json", "000001.json"]

    spec = importlib.util.spec_from_file_location("killed_script", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    store, backbone, images = module.open_all(0)
    assert store.path == path
    marks = {name: (path / "marks" / name).stat().st_mtime_ns for name in finished(path)}
    with pytest.raises(RuntimeError):
        store.read()
    assert fill_store(store, backbone, images, module.HOW) == 900 - 512
    assert backbone.model.images == 900 - 512
    for name, written in marks.items():
        assert (path / "marks" / name).stat().st_mtime_ns == written
    resumed = np.array(store.read())

    monkeypatch.setenv("BOB_HOME", str(tmp_path / "undisturbed"))
    other, backbone, images = module.open_all(0)
    assert other.path != store.path
    assert fill_store(other, backbone, images, module.HOW) == 900
    np.testing.assert_array_equal(resumed, other.read())
