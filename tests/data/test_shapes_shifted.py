"""The silhouettes in other manners are drawn the same every time, and show what they say."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from bob.data.shapes_shifted import SOURCES, ShiftedShapes, load_shifted_shapes
from bob.data.silhouettes import CLASSES
from bob.errors import UserError

pytestmark = pytest.mark.usefixtures("bob_home")


@pytest.mark.parametrize("source", SOURCES)
def test_every_manner(source, tmp_path, monkeypatch) -> None:
    classes, pools = load_shifted_shapes(source)
    images = pools["test"]
    assert classes == CLASSES and np.bincount(images.labels).tolist() == [30] * 10
    assert images.read(0).shape == (3, 96, 96) and images.read(0).dtype == torch.uint8
    assert images.names[7] == f"{source}/00007"
    again = pickle.loads(pickle.dumps(images))
    assert torch.equal(again.read(5), images.read(5)) and again.fingerprint() == images.fingerprint()
    monkeypatch.setenv("BOB_HOME", str(tmp_path))
    assert load_shifted_shapes(source)[1]["test"].fingerprint() == images.fingerprint()
    assert load_shifted_shapes(source, seed=1)[1]["test"].fingerprint() != images.fingerprint()


def _read(source: str) -> ShiftedShapes:
    images = load_shifted_shapes(source)[1]["test"]
    assert isinstance(images, ShiftedShapes)
    return images


def test_grey_has_no_colour_and_outlines_are_dark_on_light() -> None:
    grey = _read("shapes_grey").read(3)
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])
    luma = _read("shapes_outline").read(3).float().mean(0)
    dark = (luma < 140).float().mean()
    assert 0.005 < dark < 0.15 and luma.median() > 180


def test_a_wrong_seed() -> None:
    with pytest.raises(UserError, match="`seed`"):
        load_shifted_shapes("shapes_grey", seed=-1)
