"""Training an UPerNet on small images: what is learnt, what stays, and going on after a stop."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from bob.engines import segmentation
from bob.engines.recipe import CROP_AND_FLIP, Limits
from bob.engines.segmentation.network import UPerNet
from bob.errors import UserError


@pytest.fixture
def train(squares, on_cpu, tmp_path):
    """Train on the squares."""

    def run(backbone, recipe, **options):
        return segmentation.train(
            backbone, squares, recipe, **{"how": on_cpu, "folder": tmp_path / "runs", "seed": 0, **options}
        )

    return run


def test_version():
    assert re.fullmatch(r"segmentation-models-pytorch \d+\.\d+\.\d+.*", segmentation.version())


def test_batches_do_not_change_what_is_predicted(train, backbone, recipe, squares, on_cpu):
    trained = train(backbone, replace(recipe, epochs=4), limits=Limits(max_steps=8))
    alone = replace(trained, how=replace(on_cpu, batch_size=1)).predict(squares.splits["val"])
    together = replace(trained, how=replace(on_cpu, batch_size=6)).predict(squares.splits["val"])
    # Convolutions of a batch round differently: a pixel at a border may fall to either side.
    for one, other in zip(alone, together, strict=True):
        assert (one != other).mean() < 0.002


def test_predicts_fewer_at_a_time_when_memory_runs_out(train, backbone, recipe, squares, on_cpu, monkeypatch):
    trained = train(backbone, recipe, limits=Limits(max_steps=1))
    trained = replace(trained, how=replace(on_cpu, batch_size=6))
    expected = list(trained.predict(squares.splits["val"]))
    seen: list[int] = []

    def short(self, maps, forward=UPerNet.forward):
        seen.append(len(maps[0]))
        if len(maps[0]) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, maps)

    monkeypatch.setattr(UPerNet, "forward", short)
    found = list(trained.predict(squares.splits["val"]))
    assert max(seen) > 1
    assert all((one != other).mean() < 0.002 for one, other in zip(found, expected, strict=True))


def test_says_that_one_image_does_not_fit(train, backbone, recipe, squares, monkeypatch):
    trained = train(backbone, recipe, limits=Limits(max_steps=1))

    def full(self, maps):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(UPerNet, "forward", full)
    with pytest.raises(UserError, match="does not fit in the memory of cpu, even with one image of 48 x 62 px"):
        trained.predict(squares.splits["val"])


def test_trains_fewer_at_a_time_when_memory_runs_out(train, backbone, recipe, monkeypatch):
    def short(self, maps, forward=UPerNet.forward):
        if len(maps[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, maps)

    monkeypatch.setattr(UPerNet, "forward", short)
    trained = train(backbone, replace(recipe, micro_batch=4), limits=Limits(max_steps=1))
    assert "Memory held 2 images in one forward pass of training, of 4." in trained.notes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss": "bce"}, "has loss = 'bce', which"),
        ({"head": "batchnorm_linear"}, "has head = 'batchnorm_linear', which"),
        ({"augmentation": CROP_AND_FLIP}, "has an augmentation, which"),
        ({"prior": "l2sp:0.01"}, "has prior = 'l2sp:0.01', which"),
    ],
)
def test_refuses_what_it_does_not_read(train, backbone, recipe, change, said):
    with pytest.raises(UserError, match=said):
        train(backbone, replace(recipe, **change))


def test_has_no_auxiliary_head_without_its_weight(train, backbone, recipe):
    trained = train(backbone, replace(recipe, auxiliary=0.0), limits=Limits(max_steps=1))
    assert trained.network.head.auxiliary is None
