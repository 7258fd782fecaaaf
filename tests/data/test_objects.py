import numpy as np
import pytest
from pycocotools import mask as reference

from bob.data.objects import IGNORE, Objects, PredictedMasks, decode_masks, encode_masks


@pytest.fixture
def masks():
    return np.random.default_rng(0).random((3, 7, 11)) < 0.4


def test_run_lengths_are_cocos(masks):
    rles = encode_masks(masks)
    np.testing.assert_array_equal(decode_masks(rles, (7, 11)), masks)
    for rle, mask in zip(rles, masks, strict=True):
        assert rle == reference.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_no_masks():
    assert encode_masks(np.zeros((0, 4, 5), bool)) == ()
    assert decode_masks((), (4, 5)).shape == (0, 4, 5)


def test_some_objects(masks):
    boxes = np.arange(12, dtype=float).reshape(3, 4)
    three = np.arange(3)
    objects = Objects(boxes, three, three + 10, three * 2.0, three == 1, (7, 11), encode_masks(masks))
    some = objects.chosen(~objects.crowd)
    assert len(some) == 2 and some.ids.tolist() == [10, 12] and some.size == (7, 11)
    np.testing.assert_array_equal(some.masks(), masks[[0, 2]])
    np.testing.assert_array_equal(some.boxes, boxes[[0, 2]])


@pytest.mark.parametrize("largest", [10, 255, 800])
def test_predicted_masks(tmp_path, largest):
    rng, predicted = np.random.default_rng(0), PredictedMasks()
    maps = [rng.integers(largest + 1, size=(9, width)) for width in (5, 8)]
    for map_ in maps:
        predicted.append(map_)
    assert len(predicted) == 2 and predicted[0].dtype == np.int16
    for map_, kept in zip(maps, predicted, strict=True):
        np.testing.assert_array_equal(kept, map_)
    predicted.save(tmp_path / "one.png", 1)
    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "one.png")), maps[1])


def test_ignore_is_no_class():
    assert IGNORE < 0
