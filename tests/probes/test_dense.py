"""Grids are read a few images at a time, and scores at positions become classes at pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from bob.probes import dense
from bob.probes.dense import GridFeatures, class_map, repetitions


def test_images_come_from_several_stores():
    stores = [np.arange(size * 12, dtype=np.float16).reshape(size, 12) + 100 * size for size in (5, 3)]
    features = GridFeatures([(stores[0], np.array([4, 1])), (stores[1], np.array([2]))], (2, 3))
    assert (len(features), features.positions, features.channels) == (3, 6, 2)
    expected = np.stack([stores[0][4], stores[1][2], stores[0][1]]).reshape(3, 6, 2)
    read = features.read(np.array([0, 2, 1]))
    assert read.dtype == torch.float32
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("widths", [(12, 18), (13, 13)])
def test_stores_of_other_widths(widths):
    with pytest.raises(ValueError, match="a multiple of 6 positions"):
        GridFeatures([(np.zeros((2, width)), np.arange(2)) for width in widths], (2, 3))


def test_standardizer_is_that_of_scikit_learn(monkeypatch):
    monkeypatch.setattr(dense, "_ELEMENTS", 50)
    stored = np.random.default_rng(0).normal(1000, [1, 5, 0.5, 9], size=(7, 6, 4)).astype(np.float16)
    stored[..., 2] = 3.5
    features = GridFeatures([(stored.reshape(7, -1), np.arange(7))], (2, 3))
    assert [len(run) for run in features.runs()] == [2, 2, 2, 1]
    expected = StandardScaler().fit(stored.reshape(-1, 4).astype(np.float64))
    found = features.standardizer("cpu")
    np.testing.assert_allclose(found.mean, expected.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.scale, expected.scale_, rtol=1e-9)
    assert found.scale[2] == 1


class Counting:
    """A store that notes how many rows are held at once; its whole would not fit into memory."""

    def __init__(self, rows: int, width: int) -> None:
        self.shape, self.most, self.total = (rows, width), 0, 0

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.most, self.total = max(self.most, len(rows)), self.total + len(rows)
        return np.zeros((len(rows), self.shape[1]), dtype=np.float16)


def test_memory_does_not_grow_with_the_images(monkeypatch):
    monkeypatch.setattr(dense, "_ELEMENTS", 1 << 14)
    for count in (200, 800):
        stored = Counting(count, 4 * 4 * 32)
        GridFeatures([(stored, np.arange(count))], (4, 4)).standardizer("cpu")
        assert stored.most == 32 and stored.total == count + 1  # the first position is looked at beforehand


@pytest.mark.parametrize("size", [(33, 47), (4, 5), (3, 2), (1, 1)])
def test_class_map_interpolates_as_torch(size, monkeypatch):
    monkeypatch.setattr(dense, "_SCORES", 200)
    scores = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(scores.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)
    found = class_map(scores, size)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, wide[0].argmax(0).numpy())


def test_the_lowest_of_equal_classes():
    assert class_map(torch.zeros(2, 2, 3), (5, 5)).max() == 0


def test_how_often_few_images_are_seen():
    assert [repetitions(n, 1000, 2, 20) for n in (10, 300, 10_000)] == [20, 4, 2]
