"""Stored maps cover the whole image on one grid, in half precision, whatever the backbone and its maps are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bob.backbones.base import Backbone
from bob.backbones.preprocess import Preprocess
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.cards import BackboneCard, Weights
from bob.errors import UserError
from bob.features import store as store_module
from bob.features.extract import Extraction, fill_stores, open_store
from bob.features.maps import bounded_grid, join_maps, read_strides, whole_image
from bob.features.reading import FEATURE, Reader, Reading

HOW = Extraction(torch.device("cpu"), workers=0, batch_size=4)


class Averaged(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


class Mosaic(Backbone):
    """A backbone whose maps are the image itself, smaller, times 10 at each further stride."""

    def __init__(self, strides: tuple[int, ...] = (16, 32), scale: float = 1.0) -> None:
        card = BackboneCard(name="mosaic", weights=Weights(source="custom", model="tests:mosaic"))
        preprocess = Preprocess(size=(64, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bilinear")
        super().__init__(card, Averaged(), preprocess, code={})
        self._strides, self._scale = list(strides), scale

    @property
    def strides(self) -> list[int]:
        return self._strides

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        factors = [self._scale * 10**number for number in range(len(self._strides))]
        pool = torch.nn.functional.avg_pool2d
        return [f * pool(images, s, ceil_mode=True) for f, s in zip(factors, self._strides, strict=True)]


def stored(backbone, images, reading):
    store = open_store(backbone, {"model": "x"}, images, HOW, reading)
    fill_stores({reading: store}, backbone, images, HOW)
    return store


@pytest.mark.parametrize(
    ("strides", "read"),
    [((4, 8, 16, 32), [16, 32]), ((14,), [14]), ((8,), [8]), ((32,), [32]), ((2, 4, 8), [8]), ((8, 16, 64), [16, 64])],
)
def test_strides_that_are_read(strides, read):
    assert read_strides(strides) == read


@pytest.mark.parametrize(
    ("strides", "size", "expected"),
    [
        ((16, 32), None, (224, 224)),
        ((14,), (512, 512), (518, 518)),
        ((4, 8, 16, 32), (160, 200), (160, 224)),
        ((16,), (160, 200), (160, 208)),
    ],
)
def test_the_whole_image_is_squashed_to_whole_cells(strides, size, expected):
    preprocess = whole_image(Preprocess(), strides, size)
    assert preprocess.size == expected
    image = torch.zeros(3, 90, 50, dtype=torch.uint8)
    image[:, :, :25] = 200  # what is left stays left, to the rim
    cropped = preprocess.crop(image)
    assert cropped.shape == (3, *expected)
    assert cropped[:, :, : expected[1] // 2 - 8].min() == 200 and cropped[:, :, expected[1] // 2 + 8 :].max() == 0


def test_coarse_maps_come_onto_the_fine_grid():
    fine, coarse = torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[[[0.0, 4], [8, 12]]]])
    joined = join_maps([fine.expand(1, 2, 4, 4), fine, coarse], [8, 16, 32])
    assert joined.shape == (1, 4, 4, 2)
    torch.testing.assert_close(joined[0, :, :, 0], fine[0, 0])
    torch.testing.assert_close(joined[0, 0, :, 1], torch.tensor([0.0, 1, 3, 4]))


@pytest.mark.parametrize(
    ("grid", "expected"),
    [((14, 14), (14, 14)), ((32, 32), (32, 32)), ((37, 37), (32, 32)), ((32, 64), (22, 45)), ((1, 5000), (1, 1024))],
)
def test_bounded_grid(grid, expected):
    assert bounded_grid(*grid) == expected
    assert bounded_grid(*grid[::-1]) == expected[::-1]


def test_what_is_stored_is_the_image_where_it_is(memory_images):
    backbone, images, reading = Mosaic(), memory_images(3), Reading("maps", size=(64, 96))
    grid = Reader(backbone, [reading]).grid()
    assert (grid.rows, grid.columns, grid.channels, grid.size, grid.averaged_from) == (4, 6, 6, (64, 96), None)
    read = stored(backbone, images, reading).read().reshape(3, 4, 6, 6)
    for index in range(3):
        image = whole_image(backbone.preprocess, backbone.strides, (64, 96)).crop(images.read(index)) / 255
        expected = image.unflatten(2, (6, 16)).unflatten(1, (4, 16)).mean((2, 4)).permute(1, 2, 0)
        np.testing.assert_allclose(read[index, :, :, :3], expected, atol=1e-3)
        whole = image.mean((1, 2))
        np.testing.assert_allclose(read[index, :, :, 3:].mean((0, 1)), 10 * whole, rtol=0.1)


def test_half_precision_on_disk(memory_images):
    store = stored(Mosaic(), memory_images(5), Reading("maps"))
    read = store.read()
    assert (read.dtype, read.shape, store.row_bytes) == (np.float16, (5, 4 * 4 * 6), 4 * 4 * 6 * 2)
    assert isinstance(read, np.memmap)
    assert (store.path / "features.npy").stat().st_size == 128 + 5 * store.row_bytes


def test_maps_and_features_are_other_crops_and_other_stores(memory_images):
    backbone, images = Mosaic(), memory_images(4)
    readings = (FEATURE, Reading("maps"), Reading("maps", size=(64, 96)))
    stores = {reading: open_store(backbone, {"model": "x"}, images, HOW, reading) for reading in readings}
    assert len({store.path for store in stores.values()}) == 3
    assert fill_stores(stores, backbone, images, HOW) == 12
    assert [store.read().dtype for store in stores.values()] == [np.float32, np.float16, np.float16]
    with pytest.raises(ValueError, match="the same crops"):
        Reader(backbone, [FEATURE, Reading("maps")])


def test_numbers_beyond_half_precision(memory_images):
    with pytest.raises(UserError, match=r"'mosaic' gives maps with numbers up to .*e\+06.* the largest is 65504"):
        stored(Mosaic(scale=1e6), memory_images(3), Reading("maps"))


def test_numbers_that_are_none(memory_images):
    with pytest.raises(UserError, match="NaN or infinite features"):
        stored(Mosaic(scale=float("inf")), memory_images(3), Reading("maps"))


def test_a_killed_extraction_goes_on(memory_images, monkeypatch):
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 2 * 192)  # two images
    backbone, images, reading = Mosaic(), memory_images(7), Reading("maps")
    store = open_store(backbone, {"model": "x"}, images, HOW, reading)
    assert [len(rows) for _, rows in store.shards()] == [2, 2, 2, 1]
    undisturbed, read = images.read, images.reads

    def broken(index):
        if index == 5:
            raise KeyboardInterrupt
        return undisturbed(index)

    images.read = broken
    with pytest.raises(KeyboardInterrupt):
        fill_stores({reading: store}, backbone, images, HOW)
    assert [number for number, _ in store.missing()] == [2, 3]
    images.read = undisturbed
    read.clear()
    assert fill_stores({reading: store}, backbone, images, HOW) == 3
    assert sorted(read) == [4, 5, 6]
    again = open_store(backbone, {"model": "x"}, memory_images(7), HOW, reading)
    np.testing.assert_array_equal(again.read(), store.read())


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("timm:test_vit.random", (4, 6)),
        ("timm:mobilenetv3_small_050.random", (4, 6)),
        ("timm:vit_tiny_patch16_224.random", (4, 6)),
    ],
)
def test_real_networks_at_another_size(name, grid, memory_images):
    backbone, reading = open_backbone(resolve_backbone(name, {})), Reading("maps", size=(64, 96))
    form = Reader(backbone, [reading]).grid()
    assert (form.rows, form.columns) == grid
    read = stored(backbone, memory_images(2), reading).read()
    assert read.shape == (2, form.width) and np.isfinite(read).all() and read.std() > 0


def test_a_backbone_without_maps(make_backbone, memory_images):
    with pytest.raises(UserError, match="no feature maps"):
        open_store(make_backbone(torch.nn.Flatten()), {"model": "x"}, memory_images(2), HOW, Reading("maps"))


def test_settings_that_make_no_sense():
    for wrong in ({"kind": "tokens", "size": (32, 32)}, {"kind": "maps", "patches": 4}):
        with pytest.raises(ValueError, match="for maps alone"):
            Reading(**wrong)
