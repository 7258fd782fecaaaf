"""Training as a protocol: its identity, its settings and budget, and what a record keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bob.adapters.classification import Classification
from bob.adapters.recipes import BOB_LINEAR_PROBE, FINETUNE, FROZEN
from bob.adapters.training import Training
from bob.engines.recipe import ENGINE_VERSION, Limits
from bob.errors import UserError
from bob.results.reading import read_record
from bob.results.record import Record

TINY = ["--set", "epochs=2", "--set", "batch_size=8", "--set", "auto_augment=none", "--workers", "0"]


def configured(protocol: Training = FINETUNE, steps: int | None = None, hours: float | None = None, **said: str) -> Any:
    return protocol.configured(said, steps, hours)


def test_identity_is_recipe_rates_and_budget() -> None:
    said = FINETUNE.as_dict()
    assert said["engine_version"] == ENGINE_VERSION and "lr" not in said["recipe"] and "limits" not in said
    assert said["grid"] == [{"lr": 2.5e-4}, {"lr": 5e-4}, {"lr": 1e-3}]
    assert configured().as_dict() == said == configured(lr="2.5e-4/5e-4/1e-3").as_dict()
    assert configured(lr="1e-3/1e-3").rates == (1e-3,)
    others = [configured(epochs="7"), configured(lr="1"), configured(steps=3), configured(hours=1.0), FROZEN]
    assert all(other.as_dict() != said for other in others)
    assert configured(steps=3).as_dict()["limits"] == {"max_steps": 3}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epoch", "3", "no setting 'epoch'. Did you mean: epochs"),
        ("lr", "fast", "'fast' is no number"),
        ("lr", "1e-3/0", "Expected lr .* positive, but got 0.0"),
        ("lr", "inf", "Expected lr .* positive, but got inf"),
        ("epochs", "none", "Expected epochs .* whole number, but got None"),
        ("weight_decay", "none", "Expected weight_decay .* 0 or more, but got None"),
        ("momentum", "none", "Expected momentum .* but got None"),
        ("scale", "0.5", "Expected scale of the augmentation to be two rising numbers"),
        ("scale", "0.9/0.1", "Expected scale"),
        ("mixup", "-1", "Expected mixup of the augmentation to be 0 or more, but got -1.0"),
        ("erase", "2", "Expected erase .* from 0 to 1, but got 2.0"),
        ("hflip", "5", "Expected hflip"),
        ("label_smoothing", "3", "Expected label_smoothing"),
        ("prior", "nowhere.safetensors", "Cannot read the prior nowhere.safetensors"),
    ],
)
def test_settings_that_make_no_sense(key: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        configured(**{key: value})


def test_all_trainings_together_keep_to_the_hours() -> None:
    assert configured(hours=8.0)._share() == Limits(max_hours=2.0)  # three rates and the final one
    assert configured(hours=8.0, lr="0.1")._share() == Limits(max_hours=8.0)
    assert configured(steps=10)._share() == Limits(max_steps=10)


def test_a_prior_is_known_by_its_content(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for file in files:
        file.write_bytes(b"one")
    one, same = (configured(prior=f"{file}:10").prior_sha256 for file in files)
    files[1].write_bytes(b"two")
    assert one == same != configured(prior=f"{files[1]}:10").prior_sha256
    assert one == configured(prior=str(files[0])).as_dict()["prior_sha256"]
    assert "prior_sha256" not in configured(prior="l2sp:0.1").as_dict()


def test_the_papers_linear_rate_follows_the_batch() -> None:
    recipe = BOB_LINEAR_PROBE.recipe
    assert recipe.peak_lr(2048) == pytest.approx(0.8) and recipe.peak_lr(512) == pytest.approx(0.2)
    assert FINETUNE.recipe.peak_lr(16) == FINETUNE.recipe.lr


def test_notes_tell_what_the_grid_came_to() -> None:
    grid = [{"lr": rate, "diverged": lost} for rate, lost in zip(FINETUNE.rates, (False, False, True), strict=True)]
    chosen = replace(FINETUNE.recipe, lr=2.5e-4)
    notes = ["stopped by its budget after 4 updates", "diverged with lr = 0.001"]
    assert FINETUNE._notes(chosen, grid, False, 4) == [*notes, "chosen at the edge of the grid: lr = 0.00025"]
    assert FINETUNE._notes(replace(chosen, lr=5e-4), grid[:2], True, 9) == []


def record(folder: str) -> Record:
    (path,) = Path(folder).glob("runs/*/record.json")
    return read_record(path)


def test_a_run_tells_its_stages_and_leaves_the_weights(run_bob: Callable[..., Any], photos: Path) -> None:
    command = ["run", "-b", "timm:test_resnet.random", "-t", f"folder:{photos}", "-p", "finetune", *TINY]
    done = run_bob(*command, "--set", "lr=1e-3/1e-2")
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert ", finetune, trying lr 0.001 (1 of 2): epoch 1 of 2" in lines[0]
    assert any("trying lr 0.01 (2 of 2)" in line for line in lines) and any(
        "finetune, final: " in line for line in lines
    )
    chosen = record("results").chosen
    assert chosen["lr"] == chosen["peak_lr"] in (1e-3, 1e-2)
    assert chosen["steps"] == chosen["planned_steps"] > 0 and chosen["batch_size"] == 8
    (backbone,), (head,) = (list(Path("results").glob(f"training/*/{n}.safetensors")) for n in ("backbone", "head"))
    assert load_file(head)["weight"].shape == (3, record("results").feature_width)
    assert not list(Path("results").rglob("checkpoint.pt"))
    again = run_bob(
        "run", "-b", f"timm:test_resnet@{backbone}", "-t", f"folder:{photos}", "-p", "knn", "--results", "r"
    )
    assert again.code == 0, again.err


def test_baselines_train_the_head_alone(run_bob: Callable[..., Any], photos: Path) -> None:
    for name in ("pixels", "constant"):
        done = run_bob("run", "-b", name, "-t", f"folder:{photos}", "-p", "finetune", *TINY, "--results", name)
        assert done.code == 0, done.err
        assert any("no weights of its own, so the head alone" in note for note in record(name).notes)
        assert not list(Path(name).glob("training/*/backbone.safetensors"))


GRADIENTLESS = """
import torch
from torch import nn
class Net(nn.Sequential):
    def __init__(self): super().__init__(nn.Conv2d(3, 8, 32, 32), nn.Flatten())
class Inference(Net):
    @torch.inference_mode()
    def forward(self, x): return super().forward(x)
class Detached(Net):
    def forward(self, x): return super().forward(x).detach()
class Numpy(Net):
    def forward(self, x): return torch.as_tensor(super().forward(x).numpy())
class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)
"""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Inference", "cuts the gradient off"),
        ("Detached", "cuts the gradient off"),
        ("Numpy", "fails where gradients are wanted"),
        ("Frozen", "none of its parameters takes a gradient"),
    ],
)
def test_what_has_no_gradient_is_not_trained(run_bob: Callable[..., Any], photos: Path, name: str, why: str) -> None:
    Path("net.py").write_text(GRADIENTLESS)
    command = ["run", "-b", f"net.py:{name}", "-t", f"folder:{photos}", *TINY, "--set", "lr=1e-3"]
    done = run_bob(*command, "-p", "finetune")
    assert done.code == 2 and "cannot be trained: " in done.err and why in done.err
    assert "Traceback" not in done.err
    assert run_bob(*command, "-p", "frozen").code == 0


def test_one_image_for_batchnorm_is_one_line(run_bob: Callable[..., Any], photos: Path) -> None:
    tiny = ["--set", "batch_size=1", "--max-steps", "1", "--workers", "0"]
    done = run_bob("run", "-b", "timm:test_resnet.random", "-t", f"folder:{photos}", "-p", "bob_linear", *tiny)
    assert done.code == 2 and "gives BatchNorm a single image" in done.err and len(done.err.splitlines()) == 1


def test_few_shots_train_on_the_draw_alone(
    run_bob: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bob.engines import work

    seen: list[int] = []
    original = work.make_plan
    monkeypatch.setattr(work, "make_plan", lambda n, *rest: seen.append(n) or original(n, *rest))
    shots = ["-p", "finetune@2shot", "--seed", "0", "--set", "lr=1e-3"]
    done = run_bob("run", "-b", "timm:test_resnet.random", "-t", f"folder:{photos}", *shots, *TINY)
    assert done.code == 0 and seen == [6], done.err
    assert Classification.protocol("finetune@10%").final_splits == ("train",)
    np.testing.assert_equal(record("results").chosen["batch_size"], 6)
    assert "lr stayed the same" in record("results").notes[0] and torch.get_default_dtype() == torch.float32
