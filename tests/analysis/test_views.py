"""Features of augmented views: the same again, others for other images and seeds, as the backbone gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bob.analysis.views import embed_views
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.catalogue import load_backbone_cards
from bob.data.folder import load_folder
from bob.features.extract import Extraction

HOW = Extraction(torch.device("cpu"), batch_size=8, workers=0)


@pytest.fixture
def images(photos: Path) -> object:
    return next(iter(load_folder(photos)[1].values()))


def test_views(images: Callable, home: Path) -> None:
    backbone = open_backbone(resolve_backbone("pixels", load_backbone_cards()))
    told: list[int] = []
    views = embed_views(backbone, images, np.array([3, 7, 20]), 3, HOW, advance=told.append)
    assert views.shape == (3, 3, backbone.width()) and views.dtype == np.float32 and sum(told) == 3
    assert len(np.unique(views.reshape(9, -1), axis=0)) == 9
    np.testing.assert_array_equal(embed_views(backbone, images, np.array([7]), 3, HOW)[0], views[1])
    assert not np.allclose(embed_views(backbone, images, np.array([7]), 3, HOW, seed=1)[0], views[1])
    apart, within = views.mean(axis=1).std(axis=0).mean(), views.std(axis=1).mean()
    assert apart > 0 and within > 0
