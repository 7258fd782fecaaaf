"""detectron2 trains on any backbone, stops, goes on, and says what it finds."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from safetensors.torch import load_file

from bob.engines.loop import Diverged
from bob.engines.recipe import Limits
from bob.errors import UserError

pytestmark = pytest.mark.slow

CNN, VIT = "mobilenetv3_small_050", "vit_tiny_patch16_224"


def _same(one, other) -> bool:
    pairs = zip(one.detector.state_dict().items(), other.detector.state_dict().items(), strict=True)
    return all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)


@pytest.mark.parametrize(("name", "neck"), [(CNN, "FPN"), (VIT, "simple feature pyramid")])
def test_losses_fall_in_silence(open_tiny, train, recipe, name, neck, capfd, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    losses: list[float] = []
    steady = replace(recipe, epochs=8, view=replace(recipe.view, scale=(0.9, 1.1), crop=(128, 128)), drop_path=0.0)
    trained = train(open_tiny(name), steady, progress=lambda update: losses.append(update.loss))
    assert np.mean(losses[-4:]) < 0.75 * np.mean(losses[:4])
    assert trained.finished and trained.steps == 24 and trained.facts()["neck"] == neck
    assert trained.train_loss == pytest.approx(np.mean(losses[-3:])) and trained.images_per_second > 0
    printed = capfd.readouterr()
    assert not printed.out and not printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_a_limit_stops_and_a_later_call_goes_on(open_tiny, train, recipe, on_cpu) -> None:
    backbone, seen = open_tiny(CNN), []
    rich = replace(recipe, ema_decay=0.5, clip_grad=5.0)
    undisturbed = train(backbone, rich)
    short = replace(rich, name="short")
    stopped = train(backbone, short, limits=Limits(max_steps=2))
    assert (stopped.steps, stopped.finished) == (2, False)
    assert train(backbone, short, limits=Limits(max_steps=2)).steps == 2
    timed = train(backbone, short, limits=Limits(max_hours=1e-9))
    assert timed.steps == 2
    resumed = train(
        backbone, short, how=replace(on_cpu, workers=2), progress=lambda update: seen.append((update.step, update.lr))
    )
    assert [step for step, _ in seen] == [3, 4, 5, 6] and resumed.finished
    assert [lr for _, lr in seen] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    assert _same(resumed, undisturbed) and resumed.train_loss == undisturbed.train_loss
    again = train(backbone, short, progress=seen.append)
    assert len(seen) == 4 and _same(again, resumed) and again.seconds == resumed.seconds


def test_hours_end_a_training_after_an_update(open_tiny, train, recipe) -> None:
    backbone = open_tiny(CNN)
    stopped = train(backbone, recipe, limits=Limits(max_hours=1e-9))
    assert (stopped.steps, stopped.finished) == (1, False)


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(open_tiny, train, recipe) -> None:
    backbone, seen = open_tiny(VIT), []
    undisturbed = train(backbone, recipe)
    other = replace(recipe, name="interrupted")

    def interrupt(update) -> None:
        if update.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(backbone, other, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = train(backbone, other, progress=lambda update: seen.append(update.step))
    assert seen == [4, 5, 6] and _same(resumed, undisturbed)


@pytest.mark.parametrize("name", ["test_resnet", CNN])
def test_frozen_leaves_the_backbone_as_it_is(open_tiny, train, recipe, name, tmp_path) -> None:
    backbone = open_tiny(name)
    before = {key: tensor.clone() for key, tensor in backbone.model.state_dict().items()}
    trained = train(backbone, replace(recipe, trainable="head", lr=1e-2), limits=Limits(max_steps=3))
    after = trained.backbone.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    trained.save(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["detector.safetensors"]
    (checkpoint,) = tmp_path.glob("runs/*/checkpoint.pt")
    kept = torch.load(checkpoint, weights_only=True)["network"]
    assert kept and not any("pyramid.backbone" in key for key in kept)


def test_end_to_end_trains_batchnorm_but_not_its_statistics(open_tiny, train, recipe, tmp_path) -> None:
    backbone = open_tiny(CNN)
    before = {key: tensor.clone() for key, tensor in backbone.model.state_dict().items()}
    trained = train(backbone, recipe, limits=Limits(max_steps=3))
    trained.save(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "backbone.safetensors")
    changed = {key for key in before if not torch.equal(before[key], saved[key])}
    assert not any(key.endswith(("running_mean", "running_var", "num_batches_tracked")) for key in changed)
    assert any(key.endswith("bn1.weight") for key in changed) and any("conv" in key for key in changed)
    # The caller's backbone is as it was.
    assert all(torch.equal(before[key], tensor) for key, tensor in backbone.model.state_dict().items())
    detector = load_file(tmp_path / "saved" / "detector.safetensors")
    assert any("roi_heads.mask_head" in key for key in detector) and not any("running" in key for key in detector)


def test_without_masks_there_are_boxes_alone(open_tiny, train, recipe, boxes_alone) -> None:
    trained = train(open_tiny(CNN), recipe, dataset=boxes_alone, limits=Limits(max_steps=2))
    assert not any("mask" in name for name, _ in trained.detector.named_parameters())
    assert all(one.rles is None for one in trained.predict(boxes_alone.splits["val"]))


def test_parts_shrink_until_they_fit(open_tiny, train, recipe, blocks, monkeypatch) -> None:
    from bob.engines.detectron2.detector import Detector

    forward, backbone = Detector.forward, open_tiny(CNN)
    undisturbed = train(backbone, replace(recipe, micro_batch=2), limits=Limits(max_steps=1))

    def short_of_memory(self, images):
        if self.training and len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, images)

    monkeypatch.setattr(Detector, "forward", short_of_memory)
    trained = train(backbone, replace(recipe, name="halved"), limits=Limits(max_steps=1))
    assert trained.notes == ("Memory held 1 images in one forward pass of training, of 2.",)
    # The same images, but regions are drawn in another order.
    assert trained.train_loss == pytest.approx(undisturbed.train_loss, rel=0.1)

    def full(self, images):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Detector, "forward", full)
    with pytest.raises(UserError, match="does not fit in the memory of cpu for training, even with one image"):
        train(backbone, replace(recipe, name="full"))
    with pytest.raises(UserError, match="does not fit in the memory of cpu, even with one image"):
        trained.predict(blocks.splits["val"])


def test_a_loss_that_is_no_number_is_one_line(open_tiny, train, recipe) -> None:
    with pytest.raises(Diverged, match=r"The loss is .* at step \d of recipe 'tiny_detection' with lr 1e\+08"):
        train(open_tiny(CNN), replace(recipe, lr=1e8, warmup_steps=0))


def test_bfloat16_trains_and_predicts(open_tiny, train, recipe, on_cpu, blocks) -> None:
    how = replace(on_cpu, precision="bfloat16")
    trained = train(open_tiny(VIT), recipe, how=how)
    assert np.isfinite(trained.train_loss) and len(trained.predict(blocks.splits["val"])) == 4


def test_scalars_are_logged_for_each_update(open_tiny, train, recipe, tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backbone = open_tiny(CNN)
    train(backbone, recipe, limits=Limits(max_steps=2))
    train(backbone, recipe)
    (folder,) = tmp_path.glob("runs/*/")
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    named = {"loss", "lr", "images_per_second", "loss_rpn_cls", "loss_cls_stage2", "loss_box_reg_stage0", "loss_mask"}
    assert {f"train/{name}" for name in named} <= set(events.Tags()["scalars"])


def test_another_training_has_another_checkpoint(open_tiny, train, recipe) -> None:
    backbone, seen = open_tiny(CNN), []
    train(backbone, recipe, limits=Limits(max_steps=1))
    train(backbone, recipe, seed=1, limits=Limits(max_steps=1), progress=lambda update: seen.append(update.step))
    wider = replace(recipe, box_width=48)
    train(backbone, wider, limits=Limits(max_steps=1), progress=lambda update: seen.append(update.step))
    assert seen == [1, 1]


def test_the_data_set_must_be_of_detection(train, recipe, blocks, monkeypatch) -> None:
    monkeypatch.setattr(type(blocks.splits["train"].images), "target_kind", None)
    with pytest.raises(ValueError, match="to be of detection, but got 'blocks'"):
        train(None, recipe)
