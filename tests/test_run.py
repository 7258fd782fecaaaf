"""A run leaves a record that can be trusted, computes nothing twice, and loses nothing when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bob.run
from bob.catalogue import load_backbone_cards, resolve_tasks
from bob.data.base import ImageSet
from bob.errors import UserError
from bob.features.extract import Extraction
from bob.progress import Reporter
from bob.requested import Settings
from bob.results.metrics import METRICS
from bob.results.reading import predictions_of, read_record, read_records
from bob.results.runs import comparable, tidy
from bob.results.statistics import bootstrap
from bob.run import Summary, run_all
from bob.standings.cells import cells_of
from bob.standings.wide import MEASURED
from bob.task_cards import DataSpec, TaskCard

HOW = Extraction(torch.device("cpu"), workers=0)
MINE = """from torch import nn


def make():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
"""


@pytest.fixture
def go(home: Path, photos: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[Summary, str]]:
    """Run baselines on the photographs in this process; gives the summary and what was said."""
    cards = load_backbone_cards()

    def run(
        backbones: str = "constant,pixels",
        tasks: list[TaskCard] | None = None,
        how: Extraction = HOW,
        results: str = "results",
        **settings: Any,
    ) -> tuple[Summary, str]:
        tasks = tasks or resolve_tasks([f"folder:{photos}"], {})
        settings = {"protocols": ("knn",), **settings}
        capfd.readouterr()
        chosen = [cards[name] for name in backbones.split(",")]
        summary = run_all(chosen, tasks, Settings(Path(results), how, **settings), Reporter())
        return summary, capfd.readouterr().err

    return run


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


class TestRecords:
    def test_are_complete_and_true_to_their_predictions(self, go: Callable[..., Any]) -> None:
        summary, said = go("pixels", protocols=())
        assert len(summary.written) == 2 and not summary.failed and not summary.present
        assert "pixels on folder:" in said and "30 features computed" in said
        for folder in summary.written:
            record = read_record(folder / "record.json")
            predictions = predictions_of(folder / "record.json")
            assert record.run_id == record.request.run_id() and folder.name.endswith(record.run_id)
            assert record.feature_width == 3072 and len(predictions) == record.metrics["top1"].n
            metrics = [METRICS[name] for name in record.request.metrics]
            again = bootstrap(metrics, predictions, seed=record.request.seed)
            for name, estimate in again.items():
                stored = record.metrics[name]
                assert (stored.value, stored.low, stored.high) == (estimate.value, estimate.low, estimate.high)
                assert stored.value == METRICS[name].compute(predictions)
            assert record.per_class == predictions.per_class()
            assert sum(record.chosen.items() <= entry.items() for entry in record.grid) == 1
            assert {"extract", "load", "choose", "fit", "predict", "bootstrap"} == set(record.cost.seconds)
            assert record.environment["device"] == "cpu" and record.cost.images_per_second > 0

    def test_of_two_runs_in_two_fresh_places_are_equal(
        self, go: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = []
        for place in ("one", "two"):
            monkeypatch.setenv("BOB_HOME", str(tmp_path / place))
            summary, _ = go(protocols=(), seeds=(3,), results=str(tmp_path / place / "results"))
            written.append(summary.written)
        assert len(written[0]) == 4
        for one, other in zip(*written, strict=True):
            assert one.name == other.name
            assert (one / "predictions.parquet").read_bytes() == (other / "predictions.parquet").read_bytes()
            contents = [json.loads((folder / "record.json").read_text()) for folder in (one, other)]
            for content in contents:
                content["cost"] = {key: content["cost"][key] for key in ("parameters", "flops")}
                assert content.pop("created") and len(content.pop("content_sha256")) == 64
            assert contents[0] == contents[1]

    @pytest.mark.parametrize("how", [{"batch_size": 1}, {"batch_size": 7, "workers": 2}, {"batch_size": 64}])
    def test_do_not_depend_on_batches_and_workers(
        self, go: Callable[..., Any], how: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        plain, _ = go(protocols=())
        monkeypatch.setenv("BOB_HOME", str(tmp_path / "fresh"))
        other, _ = go(protocols=(), how=Extraction(torch.device("cpu"), **({"workers": 0} | how)), results="other")
        assert [folder.name for folder in plain.written] == [folder.name for folder in other.written]
        for one, two in zip(plain.written, other.written, strict=True):
            assert (one / "predictions.parquet").read_bytes() == (two / "predictions.parquet").read_bytes()

    def test_one_for_each_seed_and_protocol_without_repeats(self, go: Callable[..., Any]) -> None:
        summary, said = go("constant", protocols=("knn", "knn"), seeds=(0, 1))
        assert len(summary.written) == len(set(summary.written)) == 2
        assert {record.request.seed for record in read_records(Path("results"))} == {0, 1}
        assert said.count("30 features computed") == 1


class TestNothingTwice:
    def test_same_again(self, go: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first, _ = go()
        before = _files(Path("results")) | _files(home)
        monkeypatch.setattr(bob.run, "fill_stores", lambda *_: pytest.fail("extracts again"))
        monkeypatch.setattr(ImageSet, "read", lambda *_: pytest.fail("reads an image"))
        again, said = go()
        assert again.present == first.written and not again.written
        assert said.count("already there, results/runs/") == 2 and "computed" not in said
        assert _files(Path("results")) | _files(home) == before

    def test_second_protocol_uses_the_stored_features(
        self, go: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go("pixels")
        monkeypatch.setattr(bob.run, "fill_stores", lambda *_: pytest.fail("extracts again"))
        summary, said = go("pixels", protocols=("knn", "linear"))
        assert len(summary.written) == len(summary.present) == 1
        assert "30 of 30 features are stored already and not computed again" in said

    def test_recompute_replaces_features_and_records(self, go: Callable[..., Any], home: Path) -> None:
        first, _ = go("pixels")
        before = _files(Path("results")) | _files(home / "features")
        again, said = go("pixels", recompute=True)
        assert again.written == first.written and "30 features computed" in said
        after = _files(Path("results")) | _files(home / "features")
        assert before.keys() == after.keys()
        assert all(after[path] > before[path] for path in after if path.suffix == ".json" and path.stem != "identity")

    def test_recompute_that_fails_keeps_the_record(self, go: Callable[..., Any], photos: Path) -> None:
        first, _ = go("pixels")
        before = _files(Path("results"))
        image = photos / "ant" / "001.jpg"
        stat, content = image.stat(), image.read_bytes()
        image.write_bytes(content[:200].ljust(len(content), b"\0"))
        os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # so that the damage is noticed late
        again, _ = go("pixels", recompute=True)
        assert len(again.failed) == 1 and "001.jpg" in again.failed[0]
        assert _files(Path("results")) == before and first.written[0].is_dir()


class TestMistakes:
    def test_in_one_pair_do_not_stop_the_others(self, go: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
        tasks = resolve_tasks([f"folder:{tmp_path}/none", f"folder:{photos}"], {})
        summary, _ = go(tasks=tasks)
        assert len(summary.written) == 2
        assert len(summary.failed) == 1, "one broken data set is one line, with however many backbones"
        assert f"{tmp_path}/none" in summary.failed[0]

    def test_in_one_protocol_do_not_stop_the_others(self, go: Callable[..., Any]) -> None:
        summary, _ = go("pixels", protocols=("zero_shot", "knn@99shot", "attentive", "knn"), seeds=(0,))
        assert [folder.name.split("__")[2] for folder in summary.written] == ["knn"]
        complaints = ("no text tower", "fewer than '@99shot' asks for", "no blocks")
        assert len(summary.failed) == 3 and all(map(str.__contains__, summary.failed, complaints))

    def test_that_the_probe_would_make_are_found_before_features_are_computed(
        self, go: Callable[..., Any], make_photos: Callable[..., Path], tmp_path: Path, home: Path
    ) -> None:
        for split, classes in (("train", ("ant", "bee")), ("val", ("ant",)), ("test", ("ant", "bee"))):
            make_photos(tmp_path / "set" / split, classes)
        summary, _ = go("pixels", tasks=resolve_tasks([f"folder:{tmp_path / 'set'}"], {}), protocols=("linear",))
        assert len(summary.failed) == 1 and "too small to choose on" in summary.failed[0]
        assert not (home / "features").exists() and not Path("results").exists()

    @pytest.mark.parametrize("field", [{"metrics": ("top1", "topl")}, {"primary": "topl"}, {"protocols": ("lineer",)}])
    def test_on_a_task_card_show_before_anything_is_computed(
        self, go: Callable[..., Any], photos: Path, home: Path, field: dict[str, Any]
    ) -> None:
        data = DataSpec(source=f"folder:{photos}")
        with pytest.raises(UserError, match=r"Did you mean: (top|linear)"):
            go(tasks=[TaskCard(name="t", adapter="classification", data=data).model_copy(update=field)], protocols=())
        assert not home.exists() and not Path("results").exists()

    def test_a_results_folder_that_cannot_be_written_to_shows_before_features_are_computed(
        self, go: Callable[..., Any], home: Path
    ) -> None:
        Path("results").touch()
        summary, said = go()
        assert not (home / "features").exists() and "computed" not in said
        assert len(summary.failed) == 1 and "Cannot write records to results/runs" in summary.failed[0]

    def test_what_is_no_users_mistake_keeps_its_traceback(
        self, go: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bob.run, "judge", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go()
        assert not list(Path("results").rglob("record.json"))


class Child:
    """`python -m bob.run` on the photographs, to be stopped at a chosen moment."""

    def __init__(self, home: Path, *arguments: object) -> None:
        command = [sys.executable, "-m", "bob.run", "--workers", "1", *map(str, arguments)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "BOB_HOME": str(home)}
        # A session of its own: a terminal's Ctrl-C reaches the decoding processes too.
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables, start_new_session=True
        )

    def stop_when(self, ready: Callable[[], object], how: signal.Signals) -> tuple[int, str]:
        deadline = time.monotonic() + 60
        while not ready():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.killpg(self.process.pid, how)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_as_if_nothing_had_been(
    run_bob: Callable[..., Any], tmp_path: Path, make_photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = make_photos(tmp_path / "many", each=200)  # three shards of features
    command = ["-b", "constant,pixels", "-t", f"folder:{many}", "--device", "cpu"]
    assert run_bob("run", *command, "--workers", 0, "--results", "calm").code == 0
    wild = tmp_path / "wild"
    moments = {
        "half a store of the first backbone": lambda: len(list(wild.glob("features/*/marks/*.json"))) == 1,
        "in the first record": lambda: list(Path("results").glob("runs/*/predictions.parquet")),
        "half a store of the second": lambda: len(list(wild.glob("features/*/marks/*.json"))) == 4,
    }
    for ready in moments.values():
        code, _ = Child(wild, *command).stop_when(ready, signal.SIGKILL)
        assert code == -signal.SIGKILL
    assert len(list(Path("results").glob("runs/[!.]*"))) < 4, "the last kill came too late to prove anything"
    monkeypatch.setenv("BOB_HOME", str(wild))
    assert run_bob("run", *command, "--workers", 0).code == 0
    tables = []
    for results in ("calm", "results"):
        assert run_bob("leaderboard", "--results", results, "--out", f"{results}.csv").code == 0
        tables.append(pd.read_csv(f"{results}.csv").drop(columns=list(MEASURED)))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    for calm, stormy in zip(read_records(Path("calm")), read_records(Path("results")), strict=True):
        assert (calm.run_id, calm.predictions_sha256) == (stormy.run_id, stormy.predictions_sha256)


def test_interrupted_says_one_line_and_goes_on(
    run_bob: Callable[..., Any], home: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = Path("forward")
    slow = MINE.replace("nn.Flatten()", "Slow(), nn.Flatten()").replace(
        "def make", "from slow import Slow\n\n\ndef make"
    )
    Path("my.py").write_text(slow)
    Path("slow.py").write_text(
        "import os, time\nfrom torch import nn\n\n\nclass Slow(nn.Module):\n    def forward(self, x):\n"
        "        open('forward', 'a').write('x')\n        time.sleep(float(os.environ.get('SLOW', '0')))\n"
        "        return x\n"
    )
    command = ["-b", "my.py:make", "-t", f"folder:{photos}", "-p", "knn", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setenv("SLOW", "0.2")
        child = Child(home, *command, "--batch-size", 1)
        code, err = child.stop_when(lambda: marks.exists() and len(marks.read_text()) > 4, signal.SIGINT)
    assert code == 130
    assert err == "bob: Interrupted. What is finished is kept; the same command goes on from there.\n"
    assert not list(Path().rglob("record.json"))
    assert run_bob("run", *command, "--workers", 0).code == 0
    assert len(list(Path().rglob("record.json"))) == 1


def test_interrupted_while_torch_is_imported(home: Path, photos: Path) -> None:
    child = Child(home, "-b", "constant", "-t", f"folder:{photos}")
    maps = Path(f"/proc/{child.process.pid}/maps")
    if not maps.exists():
        child.process.kill()
        pytest.skip("needs /proc")
    code, err = child.stop_when(lambda: "libtorch_cpu" in maps.read_text(), signal.SIGINT)
    assert (code, err.count("\n")) == (130, 1) and err.startswith("bob: Interrupted.")


def test_a_users_backbone_that_changes_is_another_run(run_bob: Callable[..., Any], photos: Path) -> None:
    command = ["run", "-b", "my.py:make", "-t", f"folder:{photos}", "-p", "knn", "--workers", 0]
    Path("my.py").write_text(MINE)
    assert "Running your code: my.py:make" in run_bob(*command).err
    assert "already there" in run_bob(*command).err
    Path("my.py").write_text(MINE.replace("Pool2d(2)", "Pool2d(3)"))
    assert "30 features computed" in run_bob(*command).err
    shown = run_bob("leaderboard", "--out", "t.csv")
    assert shown.code == 0 and len(pd.read_csv("t.csv")) == 1
    assert np.unique([record.feature_width for record in read_records(Path("results"))]).tolist() == [12, 27]


def test_convolutions_agree_whatever_the_batches(
    run_bob: Callable[..., Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", torch.backends.mkldnn.is_available())
    Path("net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 7, 4), nn.ReLU(), nn.Conv2d(16, 32, 5, 4), nn.ReLU())\n"
    )
    tables = []
    for number, options in enumerate(["--batch-size 1 --workers 0", "--batch-size 16 --workers 2"]):
        monkeypatch.setenv("BOB_HOME", str(tmp_path / f"home{number}"))
        results = Path(f"results{number}")
        command = ["-b", "net.py:make", "-t", f"folder:{photos}", *options.split(), "--results", results]
        assert run_bob("run", *command).code == 0
        tables.append([predictions_of(path) for path in sorted(results.rglob("record.json"))])
    assert len(tables[0]) == 2
    for one, other in zip(*tables, strict=True):
        np.testing.assert_array_equal(one.predicted, other.predicted)
        np.testing.assert_allclose(one.label_probability, other.label_probability, atol=1e-3)


class TestProtocols:
    """Every modifier ends in records, on real images, by the same command."""

    @pytest.fixture
    def resnet(self) -> Any:
        from bob.backbones.sources import resolve_backbone

        return resolve_backbone("timm:test_resnet.random", {})

    def run(self, card: Any, task: TaskCard, *protocols: str, **settings: Any) -> tuple[Summary, list[Any]]:
        how = Extraction(torch.device("cpu"), workers=0)
        summary = run_all([card], [task], Settings(Path("results"), how, protocols, **settings), Reporter(quiet=True))
        assert not summary.failed, summary.failed
        return summary, [read_record(folder / "record.json") for folder in summary.written]

    def test_every_block_and_the_ordinary_probe(self, resnet: Any, photos: Path, home: Path) -> None:
        task = resolve_tasks([f"folder:{photos}"], {})[0]
        _, records = self.run(resnet, task, "knn@blocks")
        names = [record.request.protocol["name"] for record in records]
        assert names == [*(f"knn@block{i}" for i in range(5)), "knn"]
        assert [record.request.protocol.get("block") for record in records] == [0, 1, 2, 3, 4, None]
        summary, _ = self.run(resnet, task, "knn", "knn@block2")
        assert len(summary.present) == 2 and not summary.written

    def test_few_shots_have_five_draws(self, resnet: Any, photos: Path, home: Path) -> None:
        task = resolve_tasks([f"folder:{photos}"], {})[0]
        _, records = self.run(resnet, task, "ridge@2shot", "class_mean@50%")
        assert [record.request.seed for record in records] == [0, 1, 2, 3, 4] * 2
        sizes = {record.request.data["drawn"]["train"]["n"] for record in records[:5]}
        assert sizes == {2 * records[0].request.data["classes"]}
        drawn = {record.request.data["drawn"]["train"]["sha256"] for record in records[:5]}
        assert len(drawn) > 1 and records[0].request.protocol["shots"] == {"per_class": 2}
        assert len(self.run(resnet, task, "ridge@2shot", seeds=(7,))[1]) == 1
        cells = cells_of(comparable(tidy(read_records(Path("results"))))).table
        assert dict(cells[["protocol", "seeds"]].to_numpy()) == {"ridge@2shot": 6, "class_mean@50%": 5}

    def test_patches_tokens_and_grids(self, resnet: Any, photos: Path, home: Path) -> None:
        task = resolve_tasks([f"folder:{photos}"], {})[0]
        _, records = self.run(resnet, task, "knn@patches4", "attentive", "linear_sgd")
        assert [record.request.protocol["name"] for record in records] == ["knn@patches4", "attentive", "linear_sgd"]
        assert all(0 < record.metrics["top1"].value <= 1 for record in records)

    def test_no_such_block(self, resnet: Any, photos: Path, home: Path) -> None:
        task = resolve_tasks([f"folder:{photos}"], {})[0]
        how = Extraction(torch.device("cpu"), workers=0)
        summary = run_all([resnet], [task], Settings(Path("results"), how, ("knn@block9",)), Reporter(quiet=True))
        assert "has no block 9: it has 5, counted from 0" in summary.failed[0]

    def test_training_is_resumed_and_recorded(self, resnet: Any, photos: Path, home: Path) -> None:
        task = resolve_tasks([f"folder:{photos}"], {})[0]
        overrides = {"epochs": "2", "batch_size": "8", "lr": "1e-3/1e-2", "auto_augment": "none"}
        _, records = self.run(resnet, task, "finetune", overrides=overrides)
        record = records[0]
        assert len(record.grid) == 2 and record.chosen["lr"] in (1e-3, 1e-2)
        assert record.request.protocol["recipe"]["epochs"] == 2
        assert record.request.protocol["recipe"]["augmentation"]["auto_augment"] is None
        assert record.cost.seconds["fit"] > 0 and "extract" not in record.cost.seconds
        summary, _ = self.run(resnet, task, "finetune", overrides=overrides)
        assert summary.present

    def test_settings_without_training(self, resnet: Any, photos: Path) -> None:
        task = resolve_tasks([f"folder:{photos}"], {})[0]
        settings = Settings(Path("results"), HOW, ("knn",), overrides={"epochs": "2"})
        with pytest.raises(UserError, match="None of the protocols knn trains"):
            run_all([resnet], [task], settings, Reporter(quiet=True))
        settings = Settings(Path("results"), HOW, ("finetune",), overrides={"epoch": "2"})
        with pytest.raises(UserError, match=r"no setting 'epoch'.*Did you mean: epochs"):
            run_all([resnet], [task], settings, Reporter(quiet=True))
