"""Features do not depend on batches, workers or the state of the module; what breaks them is named."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
import timm
import torch
from torch import nn

from bob.errors import UserError
from bob.features.extract import (
    Extraction,
    fill_store,
    open_store,
    prepare,
    require_same_features,
)
from bob.features.store import SHARD_ROWS, list_stores


def extract(backbone, images, how, identity="x") -> np.ndarray:
    """All features, through a store that is removed again."""
    store = open_store(backbone, {"model": f"tests:{identity}"}, images, how)
    assert fill_store(store, backbone, images, how) == len(images)
    features = np.array(store.read())
    shutil.rmtree(store.path)
    return features


def by_hand(backbone, images) -> np.ndarray:
    """One image after the other, straight through the module."""
    backbone.eval()
    with torch.no_grad():
        crops = [backbone.preprocess.crop(images.read(index)) for index in range(len(images))]
        return torch.cat([backbone.embed(backbone.preprocess.normalize(crop[None])) for crop in crops]).numpy()


def assert_close(features: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Each row differs by at most `tolerance` of its length."""
    assert features.shape == expected.shape
    distance = np.linalg.norm(features - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert distance.max() <= tolerance


class Counting(nn.Module):
    """Passes images on to another module and notes how many there were each time."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.seen: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        return self.module(images)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("test_resnet", num_classes=0)


# The features


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 64])
def test_batch_size_and_workers_do_not_matter(
    resnet, make_backbone, memory_images, small_shards, on_cpu, batch_size, workers
) -> None:
    backbone, images = make_backbone(resnet, size=32), memory_images(37)
    expected = by_hand(backbone, images)
    assert expected.std(axis=0).max() > 1e-3
    features = extract(backbone, images, on_cpu(batch_size=batch_size, workers=workers))
    assert features.dtype == np.float32
    assert_close(features, expected, 1e-5)


def test_batches_do_not_cross_shards(small_module, make_backbone, memory_images, small_shards, on_cpu) -> None:
    counting = Counting(small_module)
    backbone, images, told = make_backbone(counting), memory_images(19), []
    how = on_cpu(batch_size=5)
    store = open_store(backbone, {"model": "x"}, images, how)
    counting.seen.clear()
    assert fill_store(store, backbone, images, how, told.append) == 19
    assert counting.seen == told == [5, 3, 5, 3, 3]
    assert images.reads == list(range(19))
    assert fill_store(store, backbone, images, how, told.append) == 0
    assert len(told) == 5
    assert store.cost().images == 19
    assert 0 <= store.cost().waiting <= store.cost().seconds


def test_maps_are_averaged(make_backbone, memory_images, on_cpu) -> None:
    backbone, images = make_backbone(nn.Conv2d(3, 4, 3)), memory_images(5)
    assert extract(backbone, images, on_cpu()).shape == (5, 4)
    assert_close(extract(backbone, images, on_cpu()), by_hand(backbone, images), 1e-5)


def test_only_missing_shards_are_computed(small_module, make_backbone, memory_images, small_shards, on_cpu) -> None:
    backbone, images, how = make_backbone(small_module), memory_images(30), on_cpu(batch_size=3)
    store = open_store(backbone, {"model": "x"}, images, how)
    fill_store(store, backbone, images, how)
    expected = np.array(store.read())
    (store.path / "marks" / "000001.json").unlink()
    with (store.path / "features.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    images.reads.clear()
    assert fill_store(store, backbone, images, on_cpu(batch_size=3, workers=0)) == 8 + 6
    assert images.reads == [*range(8, 16), *range(24, 30)]
    np.testing.assert_array_equal(store.read(), expected)


def test_the_module_is_left_as_it_was(make_backbone, memory_images, on_cpu) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    backbone, images = make_backbone(module), memory_images(20)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    identity = backbone.identity()
    backbone.train()
    first = extract(backbone, images, on_cpu())
    assert not any(part.training for part in backbone.modules())
    np.testing.assert_array_equal(extract(backbone, images, on_cpu()), first)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in module.parameters())
    assert backbone.identity() == identity


def test_convolutions_run_channels_last_whatever_else_there_is(make_backbone) -> None:
    module = nn.ModuleDict({"flat": nn.Conv2d(3, 4, 3), "deep": nn.Conv3d(1, 2, 3), "linear": nn.Linear(2, 2)})
    backbone = prepare(make_backbone(module), torch.device("cpu"))
    assert backbone.model["flat"].weight.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(backbone.model["flat"].weight, nn.Parameter)
    assert backbone.model["deep"].weight.is_contiguous()


def test_batches_are_sized_for_the_device() -> None:
    assert Extraction(torch.device("cpu")).images_per_batch == 16
    assert Extraction(torch.device("cuda")).images_per_batch == 128
    assert Extraction(torch.device("cpu"), batch_size=3).images_per_batch == 3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_close_and_kept_apart(resnet, make_backbone, memory_images, on_cpu, precision) -> None:
    backbone, images = make_backbone(resnet, size=32), memory_images(10)
    exact, low = on_cpu(), on_cpu(precision=precision)
    stores = [open_store(backbone, {"model": "x"}, images, how) for how in (exact, low)]
    assert stores[0].path != stores[1].path
    for store, how in zip(stores, (exact, low), strict=True):
        fill_store(store, backbone, images, how)
    a, b = (np.array(store.read()) for store in stores)
    assert b.dtype == np.float32
    assert not np.array_equal(a, b)
    assert_close(b, a, 0.05)
    require_same_features(stores[1], backbone, images, low)


def test_identity_of_the_store(small_module, make_backbone, memory_images, on_cpu) -> None:
    backbone = make_backbone(small_module)
    base = open_store(backbone, {"model": "x"}, memory_images(5), on_cpu())
    same = open_store(backbone, {"model": "x"}, memory_images(5), on_cpu(batch_size=3, workers=2))
    assert same.path == base.path
    assert base.shape == (5, 5)
    other = [
        open_store(backbone, {"model": "y"}, memory_images(5), on_cpu()),
        open_store(backbone, {"model": "x"}, memory_images(6), on_cpu()),
    ]
    assert len({store.path for store in (base, *other)}) == 3
    assert list_stores() == []


# What goes wrong


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_feature_that_is_no_number_names_its_image(make_backbone, memory_images, small_shards, on_cpu, value) -> None:
    class Breaking(nn.Module):
        done = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features = images.mean((2, 3))
            if self.done <= 12 < self.done + len(images):
                features[12 - self.done, 1] = value
            self.done += len(images)
            return features

    module = Breaking()
    backbone, images, how = make_backbone(module), memory_images(20), on_cpu(batch_size=4)
    store = open_store(backbone, {"model": "x"}, images, how)
    module.done = 0
    with pytest.raises(UserError, match=r"'tiny' gives NaN or infinite .* 1 of 8 .* memory/12 \(index 12\)"):
        fill_store(store, backbone, images, how)
    assert [number for number, _ in store.missing()] == [1, 2]


def test_an_unreadable_image_is_named_and_finished_shards_stay(
    small_module, make_backbone, small_shards, on_cpu, memory_images, tmp_path
) -> None:
    from PIL import Image

    from bob.data.files import FileImages

    for index in range(20):
        Image.new("RGB", (9, 9), (index, 0, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "11.png").write_bytes(b"x")
    images = FileImages(tmp_path, [f"{index}.png" for index in range(20)], np.zeros(20))
    backbone = make_backbone(small_module)
    for workers in (0, 2):
        how = on_cpu(batch_size=4, workers=workers)
        store = open_store(backbone, {"model": f"x{workers}"}, images, how)
        with pytest.raises(UserError, match=r"11\.png \(index 11\)"):
            fill_store(store, backbone, images, how)
        assert [number for number, _ in store.missing()] == [1, 2]


def test_a_full_disk_shows_before_any_work(
    small_module, make_backbone, memory_images, on_cpu, home, monkeypatch
) -> None:
    def full(*args) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    counting = Counting(small_module)
    backbone, images = make_backbone(counting), memory_images(5)
    store = open_store(backbone, {"model": "x"}, images, on_cpu())
    counting.seen.clear()
    with pytest.raises(OSError, match="No space left"):
        fill_store(store, backbone, images, on_cpu())
    assert counting.seen == []
    assert images.reads == []
    assert list((home / "features").iterdir()) == []


def test_random_backbones_are_caught(make_backbone, memory_images, on_cpu) -> None:
    class Moody(nn.Module):
        offset = 0.0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) + self.offset

    module = Moody()
    backbone, images, how = make_backbone(module), memory_images(20), on_cpu()
    store = open_store(backbone, {"model": "x"}, images, how)
    fill_store(store, backbone, images, how)
    require_same_features(store, backbone, images, how)
    require_same_features(store, backbone, images, on_cpu(batch_size=3, workers=2))
    for offset in (0.1, float("nan"), float("inf")):
        module.offset = offset
        with pytest.raises(UserError, match="no longer gives the features stored"):
            require_same_features(store, backbone, images, how)


def test_a_half_filled_store_is_checked_too(make_backbone, memory_images, on_cpu) -> None:
    module = nn.Conv2d(3, 4, 8, 8)
    backbone, images, how = make_backbone(module), memory_images(SHARD_ROWS + 3), on_cpu()
    store = open_store(backbone, {"model": "x"}, images, how)
    require_same_features(store, backbone, images, how)  # nothing is stored yet
    fill_store(store, backbone, images, how)
    (store.path / "marks" / "000000.json").unlink()
    require_same_features(store, backbone, images, how)
    with torch.no_grad():
        module.weight.mul_(2)
    with pytest.raises(UserError, match="no longer gives the features stored"):
        require_same_features(store, backbone, images, how)


def test_features_that_are_all_zero_are_the_same(make_backbone, memory_images, on_cpu) -> None:
    class Zero(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 2)

    backbone, images, how = make_backbone(Zero()), memory_images(3), on_cpu()
    store = open_store(backbone, {"model": "x"}, images, how)
    fill_store(store, backbone, images, how)
    require_same_features(store, backbone, images, how)
