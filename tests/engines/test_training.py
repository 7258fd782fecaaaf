"""A training stops, is interrupted, goes on, and tells how it stands."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from bob.engines import checkpoint, training
from bob.engines.recipe import Augmentation, Limits
from bob.errors import UserError
from bob.progress import Reporter


def test_a_limit_stops_and_a_later_call_goes_on(open_tiny, train, recipe, same) -> None:
    backbone, seen = open_tiny("test_efficientnet"), []
    rich = replace(recipe, augmentation=Augmentation(), drop_path=0.2, ema_decay=0.5)
    undisturbed = train(backbone, rich)
    short = replace(rich, name="short")
    stopped = train(backbone, short, limits=Limits(max_steps=2))
    assert (stopped.steps, stopped.finished) == (2, False)
    assert train(backbone, short, limits=Limits(max_hours=1e-9)).steps == 2
    resumed = train(backbone, short, progress=lambda update: seen.append(update.step))
    assert seen == [3, 4, 5, 6] and resumed.finished
    assert same(resumed.network, undisturbed.network)
    assert resumed.train_loss == undisturbed.train_loss


def test_a_finished_training_is_read_back(open_tiny, train, recipe, same) -> None:
    backbone, seen = open_tiny(), []
    first = train(backbone, replace(recipe, ema_decay=0.9))
    again = train(backbone, replace(recipe, ema_decay=0.9), progress=seen.append)
    assert not seen and again.finished and same(first.network, again.network)
    assert again.seconds == first.seconds > 0


@pytest.mark.parametrize("change", [{"seed": 1}, {"splits": ("train", "val")}, {"recipe": {"lr": 2e-3}}])
def test_another_training_has_another_checkpoint(open_tiny, train, recipe, change) -> None:
    backbone, seen = open_tiny(), []
    train(backbone, recipe)
    other = replace(recipe, **change.pop("recipe", {}))
    train(backbone, other, **change, progress=seen.append)
    assert seen[0].step == 1


def test_a_foreign_or_broken_checkpoint_is_refused(open_tiny, train, recipe, tmp_path) -> None:
    train(open_tiny(), recipe)
    (path,) = tmp_path.glob("runs/*/checkpoint.pt")
    state = torch.load(path, weights_only=True)
    torch.save({**state, "identity": "{}"}, path)
    with pytest.raises(UserError, match="is of another training"):
        train(open_tiny(), recipe)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="Cannot read the checkpoint"):
        train(open_tiny(), recipe)


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(open_tiny, train, recipe, same) -> None:
    backbone, seen = open_tiny("test_efficientnet"), []
    undisturbed = train(backbone, recipe)
    other = replace(recipe, name="interrupted")

    def interrupt(update) -> None:
        if update.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(backbone, other, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = train(backbone, other, progress=lambda update: seen.append(update.step))
    assert seen[0] in (3, 4) and same(resumed.network, undisturbed.network)


def test_scalars_are_logged_for_each_update(open_tiny, train, recipe, tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backbone = open_tiny()
    train(backbone, recipe, limits=Limits(max_steps=2))
    train(backbone, recipe)
    (folder,) = tmp_path.glob("runs/*/")
    events = EventAccumulator(str(folder)).Reload()
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert events.Scalars("train/lr")[3].value == pytest.approx(5e-4, rel=2e-3)
    assert {"train/loss", "train/lr", "train/images_per_second"} <= set(events.Tags()["scalars"])


def test_the_rate_warms_up_and_falls(open_tiny, train, recipe) -> None:
    rates = []
    slow = replace(recipe, epochs=4, warmup_lr=1e-4, min_lr=1e-6)
    train(open_tiny(), slow, progress=lambda update: rates.append(update.lr))
    assert rates[0] == pytest.approx(1e-4)
    assert rates[:3] == pytest.approx([1e-4, 4e-4, 7e-4])
    cosine = [1e-6 + (1e-3 - 1e-6) * (1 + np.cos(np.pi * t / 12)) / 2 for t in range(3, 12)]
    assert rates[3:] == pytest.approx(cosine)


def test_saves_are_spaced_where_they_take_long(open_tiny, train, recipe, monkeypatch) -> None:
    saved = []
    original = training.Checkpoints.save

    def slow(self, state) -> None:
        time.sleep(0.5)
        saved.append(state["step"])
        original(self, state)

    monkeypatch.setattr(training.Checkpoints, "save", slow)
    train(open_tiny(), replace(recipe, epochs=6))
    assert saved[-1] == 18 and len(saved) < 6


def test_a_drawn_or_logged_training_tells_how_it_stands(open_tiny, train, recipe, capfd) -> None:
    with Reporter().training("tiny") as progress:
        train(open_tiny(), recipe, progress=progress)
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("tiny: epoch 2 of 2, step 6 of 6, loss ") and lines[-1].endswith(", 0 s left")
    with Reporter(quiet=True).training("tiny") as progress:
        train(open_tiny(), replace(recipe, name="quiet"), progress=progress)
    assert not capfd.readouterr().err


def test_the_rate_follows_the_batch_where_asked_and_no_warm_up_falls(open_tiny, train, recipe) -> None:
    def rates(**changes) -> list[float]:
        seen: list[float] = []
        train(open_tiny(), replace(recipe, **changes), progress=lambda update: seen.append(update.lr))
        return seen

    once = {"warmup_epochs": 0, "epochs": 1, "batch_size": 1024}  # 48 images make one update
    assert rates(**once) == pytest.approx([1e-3])
    assert rates(**once, lr_batch=256) == pytest.approx([1e-3 * 48 / 256])
    low = rates(lr=1e-5, warmup_lr=1e-4)
    assert max(low) == pytest.approx(1e-5)


def test_a_disk_that_refuses_is_one_line(tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(UserError, match=r"Cannot write .*checkpoint\.pt .*Free some space"):
        checkpoint.Checkpoints(tmp_path, {}).save({"step": 1})
    with pytest.raises(UserError, match=r"Cannot write .*weights\.safetensors"):
        (tmp_path / "weights.safetensors").mkdir()
        checkpoint.save_tensors({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name.startswith(".")]
