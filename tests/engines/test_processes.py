"""A training that is killed, and one that several processes share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

SCRIPT = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path

import numpy as np, torch

sys.path.insert(0, {tests!r})
import conftest
from bob.engines import training
from bob.engines import fine_tune
from bob.engines.recipe import Augmentation, Recipe

folder, name, killed_at, augment, workers = sys.argv[1:]
training.SAVE_EVERY = 2
torch.manual_seed(0)
dataset = conftest.make_colours()
backbone = conftest.open_test_model(name)
recipe = Recipe(
    "tiny", lr=1e-3, epochs=3, warmup_epochs=1, batch_size=16, micro_batch=8, layer_decay=0.9, drop_path=0.0,
    augmentation=None,
)
if augment == "yes":
    recipe = replace(recipe, drop_path=0.3, ema_decay=0.5, augmentation=Augmentation(), clip_grad=1.0)

def progress(update):
    if update.step == int(killed_at):
        os.kill(os.getpid(), signal.SIGKILL)
    if int(os.environ.get("RANK", 0)) == 0:
        print("step", update.step, flush=True)

how = conftest.Extraction(torch.device("cpu"), workers=int(workers))
trained = fine_tune.train(backbone, dataset, recipe, how=how, folder=Path(folder) / "runs", seed=3, progress=progress)
network = {{"weights": trained.network.state_dict()}}
torch.save({{**network, "world": os.environ.get("WORLD_SIZE", "1")}}, f"{{folder}}/{{os.environ.get('RANK', 0)}}.pt")
"""

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return path


def weights(folder: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{rank}.pt", weights_only=True)["weights"]


@pytest.mark.slow
def test_killed_and_begun_again_it_ends_with_the_same_weights(run_python, script, tmp_path) -> None:
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    common = (script, tmp_path / "undisturbed", "test_efficientnet", -1, "yes", 1)
    assert run_python(*common).code == 0
    killed = (script, tmp_path / "killed", "test_efficientnet")
    first = run_python(*killed, 6, "yes", 0)
    assert first.code == -signal.SIGKILL
    assert not list(tmp_path.glob("killed/*.pt"))
    second = run_python(*killed, -1, "yes", 0)
    assert second.out.split()[:2] == ["step", "5"], second.err  # after the checkpoint of step 4
    one, other = weights(tmp_path / "undisturbed"), weights(tmp_path / "killed")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(run_python, script, tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert run_python(script, tmp_path / "one", "test_vit", -1, "no", 0).code == 0
    shared = run_python(*LAUNCH, script, tmp_path / "two", "test_vit", -1, "no", 0)
    assert shared.code == 0, shared.err
    assert torch.load(tmp_path / "two" / "1.pt", weights_only=True)["world"] == "2"
    alone, first, second = weights(tmp_path / "one"), weights(tmp_path / "two"), weights(tmp_path / "two", 1)
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_processes_with_batchnorm_end_with_one_network(run_python, script, tmp_path) -> None:
    (tmp_path / "two").mkdir()
    shared = run_python(*LAUNCH, script, tmp_path / "two", "test_efficientnet", -1, "yes", 0)
    assert shared.code == 0, shared.err
    first, second = weights(tmp_path / "two"), weights(tmp_path / "two", 1)
    assert all(torch.equal(first[name], second[name]) for name in first)
