"""Features of nested sets: nothing is computed twice, and the whole ends up where `bob run` looks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.catalogue import load_backbone_cards
from bob.data.files import FileImages
from bob.data.sources import load_dataset
from bob.features.extract import Extraction, open_store
from bob.features.store import list_stores
from bob.pick.features import NestedFeatures
from bob.pick.pool import Pool
from bob.task_cards import DataSpec

HOW = Extraction(torch.device("cpu"), workers=0)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A small real one."""
    return open_backbone(resolve_backbone("timm:test_vit.random", load_backbone_cards()))


@pytest.fixture(scope="module")
def folder(make_photos: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """360 photographs, 270 of them learnt from: two shards."""
    return make_photos(tmp_path_factory.mktemp("photos"), each=120)


@pytest.fixture
def pool(folder: Path, home: Path) -> Pool:
    """In nested sets of 90, 270 and all 360."""
    return Pool(load_dataset(DataSpec(source=f"folder:{folder}")), seed=0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all images that are read, in order."""
    read: list[str] = []
    original = FileImages.read

    def note(self: FileImages, index: int) -> torch.Tensor:
        read.append(self.names[index])
        return original(self, index)

    monkeypatch.setattr(FileImages, "read", note)
    return read


def opened(backbone: Backbone, pool: Pool) -> NestedFeatures:
    return NestedFeatures(backbone, backbone.identity(), pool, HOW)


def whole(backbone: Backbone, pool: Pool) -> Any:
    [images] = pool.dataset.image_sets()
    return open_store(backbone, backbone.identity(), images, HOW)


def test_each_image_is_computed_once(backbone: Backbone, pool: Pool, reads: list[str]) -> None:
    nested, told = opened(backbone, pool), []
    assert (nested.lacking(1), nested.lacking(0)) == (90, 360)
    small = nested.provide(1, told.append)
    assert (nested.lacking(1), nested.lacking(0)) == (0, 270)
    nested.complete(told.append)
    assert nested.lacking(0) == 0
    assert sum(told) == len(reads) == len(set(reads)) == 360
    stored = whole(backbone, pool).read()
    rows = pool.rows(1)
    positions = np.concatenate([pool.dataset.splits[name].indices for name in ("train", "val")])[rows]
    assert np.array_equal(stored[positions], small)
    assert nested.seconds_per_image > 0


def test_the_whole_is_what_a_run_would_have_computed(backbone: Backbone, pool: Pool) -> None:
    nested = opened(backbone, pool)
    nested.provide(1, lambda count: None)
    nested.complete(lambda count: None)
    handed_over = np.array(whole(backbone, pool).read())
    assert whole(backbone, pool).cost().images == 360
    whole(backbone, pool).clear()
    opened(backbone, pool).complete(lambda count: None)  # nothing is in parts any more: the ordinary way
    assert np.allclose(handed_over, whole(backbone, pool).read(), rtol=1e-4, atol=1e-5)


def test_parts_are_removed_in_the_end(backbone: Backbone, pool: Pool, home: Path) -> None:
    nested = opened(backbone, pool)
    nested.provide(1, lambda count: None)
    assert [store.rows for store in list_stores()] == [90]
    nested.complete(lambda count: None)
    assert [store.rows for store in list_stores()] == [360]


def test_what_was_interrupted_goes_on(backbone: Backbone, pool: Pool, reads: list[str]) -> None:
    done = 0

    def stop(count: int) -> None:
        nonlocal done
        done += count
        if done > 260:
            raise KeyboardInterrupt

    nested = opened(backbone, pool)
    nested.provide(1, lambda count: None)
    with pytest.raises(KeyboardInterrupt):
        nested.complete(stop)
    assert len(reads) <= 360
    reads.clear()
    again = opened(backbone, pool)
    assert again.lacking(0) <= 270
    assert np.isfinite(again.provide(1, lambda count: None)).all() and not reads
    again.complete(lambda count: None)
    # Of the 270 others the first shard of 256 was whole.
    assert len(reads) == 14


def test_what_a_run_has_stored_is_used(backbone: Backbone, pool: Pool, reads: list[str]) -> None:
    opened(backbone, pool).complete(lambda count: None)
    reads.clear()
    nested = opened(backbone, pool)
    assert (nested.lacking(1), nested.lacking(0)) == (0, 0)
    assert nested.provide(1, lambda count: None).shape[0] == 90
    assert not reads and nested.seconds_per_image > 0


def test_a_part_that_was_interrupted_is_not_lost(
    backbone: Backbone, make_photos: Callable[..., Path], tmp_path: Path, home: Path, reads: list[str]
) -> None:
    # 1,350 of 1,800 images are learnt from: a part of 300 more than the smallest 150, in two shards.
    pool = Pool(load_dataset(DataSpec(source=f"folder:{make_photos(tmp_path / 'many', each=600)}")), seed=0)
    assert pool.sizes == [1800, 450, 150]
    done = 0

    def stop(count: int) -> None:
        nonlocal done
        done += count
        if done > 150 + 260:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(backbone, pool).provide(1, stop)
    reads.clear()
    again = opened(backbone, pool)
    assert again.lacking(0) == 1800 - 150 - 256
    again.complete(lambda count: None)
    assert len(reads) == 1800 - 150 - 256
    assert [store.rows for store in list_stores()] == [1800]


def test_splits_in_folders_of_their_own(
    backbone: Backbone, make_photos: Callable[..., Path], tmp_path: Path, home: Path, reads: list[str]
) -> None:
    for split, each in (("train", 60), ("val", 20), ("test", 10)):
        make_photos(tmp_path / "split" / split, each=each, seed=each)
    pool = Pool(load_dataset(DataSpec(source=f"folder:{tmp_path / 'split'}")), seed=0)
    assert pool.sizes == [270, 81]
    nested = opened(backbone, pool)
    small = nested.provide(1, lambda count: None)
    assert {name.split("/")[0] for name in reads} == {"train", "val"}
    nested.complete(lambda count: None)
    assert len(reads) == len(set(reads)) == 270
    learnt = [pool.dataset.splits[name] for name in ("train", "val")]
    stores = [open_store(backbone, backbone.identity(), split.images, HOW).read() for split in learnt]
    whole_pool = np.concatenate([store[split.indices] for store, split in zip(stores, learnt, strict=True)])
    assert np.array_equal(whole_pool[pool.rows(1)], small)
