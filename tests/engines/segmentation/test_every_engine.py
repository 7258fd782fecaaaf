"""What every engine of segmentation does: it learns, keeps what is frozen, and goes on after a stop."""

from __future__ import annotations

import copy
import os
import signal
from dataclasses import replace

import pytest
import torch

from bob.engines.recipe import Limits
from bob.engines.registry import get_engine
from bob.features.extract import Extraction

# Each engine's own learning rate for the squares: their decoders differ in width and initialisation.
RATES = {"smp": 2e-2, "mmseg": 1e-2}


@pytest.fixture(params=["smp", pytest.param("mmseg", marks=pytest.mark.slow)])
def engine(request):
    """The name of each engine."""
    if request.param == "mmseg":
        pytest.importorskip("mmseg")
    return request.param


@pytest.fixture
def train(engine, squares, on_cpu, tmp_path):
    """Train on the squares."""

    def run(backbone, recipe, **options):
        return get_engine(engine).train(
            backbone, squares, recipe, **{"how": on_cpu, "folder": tmp_path / "runs", "seed": 0, **options}
        )

    return run


@pytest.mark.slow
def test_learns_the_squares(train, engine, backbone, recipe, squares, accuracy):
    losses: list[float] = []
    view = replace(recipe.view, crop=(40, 40), scale=(1.0, 1.0), color_jitter=0.0)
    longer = replace(recipe, epochs=40, lr=RATES[engine], micro_batch=4, view=view)
    trained = train(backbone, longer, progress=lambda update: losses.append(update.loss))
    assert trained.finished and trained.steps == trained.planned_steps == len(losses) == 120
    assert sum(losses[-6:]) < 0.5 * sum(losses[:6])
    found = trained.predict(squares.splits["test"])
    assert [mask.shape for mask in found] == [t.shape for t in map(squares.splits["test"].target, range(6))]
    assert accuracy(found, squares.splits["test"]) > 0.93  # ground everywhere is 0.79


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_trains_plain_transformers_and_networks_of_stages(train, open_tiny, recipe, squares, name):
    trained = train(open_tiny(name, 64), recipe, limits=Limits(max_steps=2))
    assert not trained.finished and trained.steps == 2
    assert len(trained.predict(squares.splits["val"])) == 6


def test_goes_on_with_the_same_weights(train, backbone, recipe, same, tmp_path):
    whole = train(backbone, recipe)
    half = train(backbone, recipe, folder=tmp_path / "b", limits=Limits(max_steps=4))
    assert half.steps == 4
    again = train(backbone, recipe, folder=tmp_path / "b")
    assert again.steps == 6
    assert same(whole.network, again.network)
    assert not same(whole.network, half.network)


def test_frozen_backbone_stays(train, backbone, recipe, same, tmp_path):
    before = copy.deepcopy(backbone.model)
    trained = train(backbone, replace(recipe, trainable="head"))
    assert same(trained.network.backbone.model, before)
    trained.save(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["head.safetensors"]


def test_trains_in_bfloat16(train, backbone, recipe, squares):
    how = Extraction(torch.device("cpu"), precision="bfloat16", workers=0)
    trained = train(backbone, recipe, how=how, limits=Limits(max_steps=2))
    assert trained.train_loss > 0
    assert len(trained.predict(squares.splits["val"])) == 6


def test_trained_backbone_keeps_its_statistics_and_the_given_one_its_weights(train, backbone, recipe, same, tmp_path):
    before = copy.deepcopy(backbone.model)
    trained = train(backbone, recipe)
    assert same(backbone.model, before)
    old, new = before.state_dict(), trained.network.backbone.model.state_dict()
    moved = {key for key in old if not torch.equal(old[key], new[key])}
    assert moved and not [key for key in moved if "running" in key or "num_batches" in key]
    assert any(isinstance(old[key], torch.Tensor) and "bn" in key for key in moved)
    trained.save(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"head.safetensors", "backbone.safetensors"}


def test_goes_on_after_an_interruption(train, backbone, recipe, same, tmp_path):
    def interrupt(update):
        if update.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(backbone, recipe, folder=tmp_path / "b", progress=interrupt)
    steps: list[int] = []
    again = train(backbone, recipe, folder=tmp_path / "b", progress=lambda update: steps.append(update.step))
    assert steps[0] == 4  # the update under way was the third
    assert same(again.network, train(backbone, recipe).network)
