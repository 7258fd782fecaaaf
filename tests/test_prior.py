"""`bob prior` learns at a source task what `finetune` takes at another; what is wrong is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bob.engines.prior import Gaussian
from bob.results.reading import read_record

LEARN = ["--set", "epochs=3", "--set", "batch_size=8", "--burn-in", "1", "--rank", "2", "--workers", "0"]
TUNE = ["-p", "finetune", "--workers", "0"]
for _setting in ("epochs=2", "batch_size=8", "auto_augment=none", "lr=1e-3"):
    TUNE += ["--set", _setting]


@pytest.fixture
def learn(run_bob: Callable[..., Any], photos: Path) -> Callable[..., Any]:
    """Learn a prior of a tiny network on the photographs."""

    def run(*options: object, backbone: str = "timm:test_resnet.random", out: object = "p.safetensors") -> Any:
        return run_bob("prior", "-b", backbone, "-t", f"folder:{photos}", "--out", out, *LEARN, *options)

    return run


@pytest.fixture
def tune(run_bob: Callable[..., Any], photos: Path) -> Callable[..., Any]:
    """Fine-tune under a prior."""

    def run(prior: str, backbone: str = "timm:test_resnet.random") -> Any:
        results = f"results {prior}".replace("/", "-")
        return run_bob(
            "run", "-b", backbone, "-t", f"folder:{photos}", *TUNE, "--set", f"prior={prior}", "--results", results
        )

    return run


def test_learnt_shown_and_used(learn: Callable[..., Any], tune: Callable[..., Any]) -> None:
    done = learn(out="new/p.safetensors")
    assert done.code == 0, done.err
    assert "prior: epoch 3 of 3, step 6 of 6, loss " in done.err
    assert "Use it: --protocol finetune --set prior=new/p.safetensors:LAMBDA" in done.out
    learnt = Gaussian.load(Path("new/p.safetensors"))
    assert learnt.facts["iterates"] == 2 and learnt.facts["rank"] == 2 and learnt.buffers
    assert [path.name for path in Path("new").iterdir()] == ["p.safetensors"]
    losses = {}
    for prior in ("new/p.safetensors:1e-3", "new/p.safetensors:1e9", "l2sp:100"):
        ended = tune(prior)
        assert ended.code == 0, ended.err
        (path,) = Path(f"results {prior}".replace("/", "-")).glob("runs/*/record.json")
        record = read_record(path)
        losses[prior] = record.chosen["train_loss"]
        assert record.request.protocol["recipe"]["prior"] == prior
        assert record.request.protocol["recipe"]["weight_decay"] == 0
    assert len(set(losses.values())) == 3
    wrong = tune("new/p.safetensors:1", backbone="timm:test_vit.random")
    assert wrong.code == 2 and "of another architecture than backbone 'test_vit.random'" in wrong.err


def test_damaged_or_missing(learn: Callable[..., Any], tune: Callable[..., Any]) -> None:
    Path("broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    for prior, said in {
        "broken.safetensors": "Cannot read the prior",
        "none.safetensors": "Cannot read the prior",
    }.items():
        ended = tune(prior)
        assert ended.code == 2 and said in ended.err and len(ended.err.splitlines()) == 1
    assert "Expected a positive number in the prior" in tune("l2sp:-1").err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "lr=1e-2/1e-3"], "is no number"),
        (["--set", "epochs=2"], "leaves 1 epochs of a whole backbone to collect"),
        (["--set", "lr=1e30"], "The loss is"),
        (["--set", "epoch=2"], "no setting 'epoch'"),
    ],
)
def test_bad_settings(learn: Callable[..., Any], options: list[str], said: str) -> None:
    done = learn(*options)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err
    assert not Path("p.safetensors").exists()


def test_bad_places_and_backbones(learn: Callable[..., Any]) -> None:
    Path("file").touch()
    done = learn(out="file/p.safetensors")
    assert done.code == 2 and "Cannot write to file" in done.err and "step" not in done.err
    assert "Give --out NAME.safetensors" in learn(out="p.pt").err
    assert "cannot be trained: none of its parameters takes a gradient" in learn(backbone="pixels").err
