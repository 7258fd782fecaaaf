"""Blocks, tokens and averaged crops are read in one pass, and hold what the backbone's own methods give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bob.backbones.base import LayerOutput
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.errors import UserError
from bob.features import extract
from bob.features.extract import Extraction, fill_stores, images_to_embed, open_store
from bob.features.patches import check_patches, crop_patches
from bob.features.reading import BLOCKS, FEATURE, OUTPUT, TOKENS, Reader, Reading

HOW = Extraction(torch.device("cpu"), workers=0, batch_size=4)
MODELS = ("timm:test_vit.random", "timm:test_resnet.random", "torchvision:resnet18.random")


@pytest.fixture(scope="module", params=MODELS)
def backbone(request):
    return open_backbone(resolve_backbone(request.param, {}))


def filled(backbone, images, *readings):
    identity = {"model": backbone.card.name}
    stores = {reading: open_store(backbone, identity, images, HOW, reading) for reading in readings}
    fill_stores(stores, backbone, images, HOW)
    return {reading: store.read() for reading, store in stores.items()}


def test_one_pass_gives_what_the_methods_give(backbone, memory_images):
    images = memory_images(6)
    stored = filled(backbone, images, FEATURE, BLOCKS, TOKENS)
    assert sorted(images.reads) == list(range(6))  # each image was read once for all three
    batch = backbone.preprocess.normalize(torch.stack([backbone.preprocess.crop(images.read(i)) for i in range(6)]))
    with torch.inference_mode():
        feature, layers = backbone.embed(batch).numpy(), backbone.layers(batch)
    columns = Reader(backbone, [BLOCKS]).columns(BLOCKS)
    close = {"rtol": 1e-3, "atol": 1e-4}
    # The last point of a curve over depth is the ordinary probe's own feature.
    np.testing.assert_allclose(stored[FEATURE], feature, **close)
    np.testing.assert_allclose(stored[BLOCKS][:, columns[OUTPUT]], feature, **close)
    for index, layer in enumerate(layers):
        np.testing.assert_allclose(stored[BLOCKS][:, columns[f"block{index}"]], layer.pooled.numpy(), **close)
        mean = columns.get(f"block{index}.mean", columns[f"block{index}"])
        np.testing.assert_allclose(stored[BLOCKS][:, mean], layer.map.mean((2, 3)).numpy(), **close)
    assert f"block{len(layers)}" not in columns
    tokens = stored[TOKENS].reshape(6, -1, layers[-1].map.shape[1])
    np.testing.assert_allclose(tokens, layers[-1].map.flatten(2).transpose(1, 2).numpy(), **close)


def test_a_class_token_has_its_mean_beside_it():
    vit, resnet = (open_backbone(resolve_backbone(name, {})) for name in MODELS[:2])
    assert "block0.mean" in Reader(vit, [BLOCKS]).columns(BLOCKS)
    assert "block0.mean" not in Reader(resnet, [BLOCKS]).columns(BLOCKS)


def test_only_what_is_missing_is_read(memory_images):
    backbone, images = open_backbone(resolve_backbone(MODELS[1], {})), memory_images(6)
    filled(backbone, images, FEATURE)
    identity = {"model": backbone.card.name}
    stores = {reading: open_store(backbone, identity, images, HOW, reading) for reading in (FEATURE, BLOCKS)}
    assert images_to_embed(stores) == 6
    before = stores[FEATURE].read().copy()
    images.reads.clear()
    assert fill_stores(stores, backbone, images, HOW) == 6 == len(images.reads)
    assert images_to_embed(stores) == 0 == fill_stores(stores, backbone, images, HOW)
    np.testing.assert_array_equal(stores[FEATURE].read(), before)


def test_large_maps_are_averaged_down():
    backbone = open_backbone(resolve_backbone("timm:test_vit.random", {}))
    map_ = torch.arange(28.0 * 28).view(1, 1, 28, 28)
    backbone.read = lambda images: (torch.zeros(1, 2), [LayerOutput(map_.mean((2, 3)), map_)])
    tokens = Reader(backbone, [TOKENS])(torch.zeros(1, 3, 8, 8))
    assert tokens.shape == (1, 196) and tokens[0, 0] == (0 + 1 + 28 + 29) / 4


def test_backbone_without_blocks(make_backbone, memory_images):
    plain = make_backbone(torch.nn.Flatten())
    with pytest.raises(UserError, match="has no blocks"):
        open_store(plain, {"model": "x"}, memory_images(2), HOW, BLOCKS)


def test_identities_of_readings_differ_and_the_plain_one_says_nothing(make_backbone, memory_images):
    assert FEATURE.identity() == {}
    readings = (FEATURE, BLOCKS, TOKENS, Reading(patches=4), Reading(patches=9))
    assert len({str(reading.identity()) for reading in readings}) == len(readings)


class TestPatches:
    def test_mean_of_the_crops(self, make_backbone, memory_images, small_module):
        backbone, images, reading = make_backbone(small_module), memory_images(5), Reading(patches=4)
        stored = filled(backbone, images, reading)[reading]
        for index in range(5):
            crops = crop_patches(images.read(index), backbone.preprocess, 4)
            with torch.inference_mode():
                expected = backbone.embed(backbone.preprocess.normalize(crops)).mean(0)
            np.testing.assert_allclose(stored[index], expected.numpy(), atol=1e-5)

    def test_by_hand(self, make_backbone):
        # Quarters of a 16 x 16 image whose pixel values say where they are; 8 x 8 input, so nothing is resampled.
        image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
        crops = crop_patches(image, make_backbone(torch.nn.Flatten()).preprocess, 4)
        quarters = [image[:, top : top + 8, left : left + 8] for top in (0, 8) for left in (0, 8)]
        assert torch.equal(crops, torch.stack(quarters))
        middle = crop_patches(image, make_backbone(torch.nn.Flatten()).preprocess, 9)[4]
        assert torch.equal(middle, image[:, 4:12, 4:12])
        assert torch.equal(crop_patches(image, make_backbone(torch.nn.Flatten()).preprocess, 1)[0], middle)

    def test_batch_backs_off_whole_images(self, make_backbone, small_module):
        sizes = []

        class Small(torch.nn.Module):
            def forward(self, images):
                sizes.append(len(images))
                if len(images) > 8:
                    raise RuntimeError("can't allocate memory")
                return images.mean((2, 3))

        reader = Reader(make_backbone(Small()), [Reading(patches=4)])
        forward = extract.BackingOff(make_backbone(Small()), HOW, reader)
        assert forward(torch.zeros(4, 4, 3, 8, 8, dtype=torch.uint8)).shape == (4, 3)
        assert sizes == [16, 8, 8]

    @pytest.mark.parametrize("number", [0, -1, 2, 8])
    def test_no_square(self, number):
        with pytest.raises(UserError, match="a square number of patches"):
            check_patches(number)
