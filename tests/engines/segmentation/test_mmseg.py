"""Training by mmsegmentation: what is learnt, what stays, going on, and what the process keeps of it."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from bob.data.objects import IGNORE
from bob.engines import mmseg, segmentation
from bob.engines.mmseg import library
from bob.engines.mmseg.model import make_segmentor
from bob.engines.mmseg.samples import TestImages, TrainingBatches, collate, training_pipeline
from bob.engines.recipe import Limits
from bob.engines.segmentation.engine import pyramid_to_train, start
from bob.engines.segmentation.objective import pixel_loss
from bob.engines.training_data import make_plan
from bob.errors import UserError
from bob.features.extract import Extraction

pytestmark = pytest.mark.slow
pytest.importorskip("mmseg")
CPU = torch.device("cpu")


@pytest.fixture
def train(squares, on_cpu, tmp_path):
    """Train on the squares."""

    def run(backbone, recipe, **options):
        return mmseg.train(
            backbone, squares, recipe, **{"how": on_cpu, "folder": tmp_path / "runs", "seed": 0, **options}
        )

    return run


def test_version():
    assert re.fullmatch(r"(onedl-)?mmsegmentation \d+\.\d+\.\d+.*", mmseg.version())


def test_decoders_see_the_same_maps(open_tiny, recipe, squares):
    backbone = open_tiny("test_vit", 64)
    plan = make_plan(12, recipe, 1, CPU)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        ours = start(backbone, 4, recipe, plan, CPU).network.eval()
        torch.manual_seed(5)
        theirs = make_segmentor(pyramid_to_train(backbone, recipe, CPU)[0], 4, recipe, backbone.preprocess).eval()
    image = squares.splits["val"].images.read(0)
    # The image is 40 x 52 px, so nothing is resized.
    view = replace(recipe.view, short=40, long=52)
    sample = TestImages(squares.splits["val"], backbone.preprocess, view)(0)
    data = theirs.data_preprocessor(collate([sample]), False)
    torch.testing.assert_close(data["inputs"], backbone.preprocess.normalize(image[None]), rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        maps = ours.pyramid(backbone.preprocess.normalize(image[None]))
        for one, other in zip(maps, theirs.extract_feat(data["inputs"]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_both_engines_weigh_pixels_alike(squares, recipe):
    losses = library.load("mmseg.models.losses")
    logits = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([IGNORE, 0, 1, 2]).repeat(2, 8, 2)
    assert losses.CrossEntropyLoss(avg_non_ignore=False)(logits, classes, ignore_index=IGNORE).item() == pytest.approx(
        pixel_loss(logits, classes).item()
    )


def test_training_images_come_from_their_own_random_numbers(squares, backbone, recipe):
    def batch(**options):
        make = TrainingBatches(
            squares.splits["train"], backbone.preprocess, recipe.view, [[3, 1]], **{"seed": 0, "epoch": 0, **options}
        )
        return make(0)

    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr, index]
    first, again, later = batch(), batch(), batch(epoch=1)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[union-attr, index]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one["inputs"], other["inputs"])
    assert not all(
        a["inputs"].shape == b["inputs"].shape and torch.equal(a["inputs"], b["inputs"])
        for a, b in zip(first, later, strict=True)
    )
    classes = first[0]["data_samples"].gt_sem_seg.data
    assert classes.shape[-2:] == first[0]["inputs"].shape[-2:]
    assert set(classes.unique().tolist()) <= {IGNORE, 0, 1}  # image 3 shows a red square


def test_pipeline_is_that_of_the_view(backbone, recipe):
    def steps(**options):
        view = replace(recipe.view, **options)
        return [type(step).__name__ for step in training_pipeline(view, backbone.preprocess).transforms]

    full = ["RandomResize", "RandomCrop", "RandomFlip", "PhotoMetricDistortion", "PackSegInputs"]
    assert steps() == full
    assert steps(jitter="sides", sides=(40, 48), crop=None, color_jitter=0.0) == [
        "RandomChoiceResize",
        "RandomFlip",
        "PackSegInputs",
    ]


def test_trains_whole_images_of_several_sizes(train, backbone, recipe):
    view = replace(recipe.view, jitter="sides", sides=(40, 48), crop=None)
    assert train(backbone, replace(recipe, view=view), limits=Limits(max_steps=1)).train_loss > 0


def test_leaves_no_trace(train, backbone, recipe, squares, tmp_path, capfd):
    import cv2
    import mmengine.registry as registries
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope

    library.load("mmseg")

    def state():
        registered = [len(getattr(registries, name)) for name in ("MODELS", "DATASETS", "HOOKS", "LOOPS", "RUNNERS")]
        managed = [list(kind._instance_dict) for kind in (DefaultScope, MessageHub, MMLogger)]
        return registered, managed, cv2.getNumThreads(), random.getstate(), torch.get_rng_state().tolist()

    before = state()
    capfd.readouterr()
    trained = train(backbone, recipe, limits=Limits(max_steps=2))
    trained.predict(squares.splits["val"])
    assert state() == before
    assert capfd.readouterr() == ("", "")
    files = sorted(path.name.split(".")[0] for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert files == ["checkpoint", "events", "identity"]
    assert len(list((tmp_path / "runs").rglob("*"))) == 4  # and their folder


def test_trains_fewer_at_a_time_when_memory_runs_out(train, backbone, recipe, monkeypatch):
    from mmseg.models.decode_heads import UPerHead

    def short(self, maps, forward=UPerHead.forward):
        if len(maps[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, maps)

    monkeypatch.setattr(UPerHead, "forward", short)
    trained = train(backbone, replace(recipe, micro_batch=4), limits=Limits(max_steps=1))
    assert "Memory held 2 images in one forward pass of training, of 4." in trained.notes


def test_workers_make_the_same_images(train, backbone, recipe, same, tmp_path):
    alone = train(backbone, recipe, limits=Limits(max_steps=2))
    how = Extraction(CPU, workers=2)
    helped = train(backbone, recipe, how=how, folder=tmp_path / "b", limits=Limits(max_steps=2))
    assert same(alone.network, helped.network)


def test_both_engines_have_trainings_of_their_own(train, backbone, recipe, squares, on_cpu, tmp_path):
    train(backbone, recipe, limits=Limits(max_steps=1))
    other = segmentation.train(
        backbone, squares, recipe, how=on_cpu, folder=tmp_path / "runs", seed=0, limits=Limits(max_steps=1)
    )
    assert other.steps == 1
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_refuses_an_average_that_it_does_not_keep(train, backbone, recipe):
    with pytest.raises(UserError, match=r"has ema_decay = 0\.9, which"):
        train(backbone, replace(recipe, ema_decay=0.9))


def test_says_that_the_libraries_do_not_fit(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "mmseg"]:
        monkeypatch.delitem(sys.modules, name)

    def broken(name, extra):
        if name == "mmseg.models":
            raise ModuleNotFoundError("No module named 'mmcv._ext'", name="mmcv._ext")

    monkeypatch.setattr(library, "import_extra", broken)
    with pytest.raises(UserError, match=r"mmsegmentation cannot be imported \(.*No module named 'mmcv._ext'\)"):
        library.load("mmseg.models")
