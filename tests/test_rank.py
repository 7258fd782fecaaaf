"""`bob rank`: published tables ranked alone and with our own records, what is written, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bob.errors import UserError
from bob.rank import rank
from bob.results.predictions import Predictions
from bob.results.record import Record

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
HEAD = "backbone,task,dataset,setting,metric,value,n,card"
Run = Callable[..., str]


@pytest.fixture
def run(home: Path, run_command: Run) -> Run:
    """Run the command and give what it prints."""
    return lambda *arguments: run_command(rank, *arguments)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "their.csv"
    lines = ["A,classification,t,linear,top1,0.9,1000,a", "C,classification,t,linear,top1,0.2,1000,"]
    path.write_text("\n".join([HEAD, *lines]) + "\n")
    return path


@pytest.fixture
def ours(tmp_path: Path, make_record: Callable[..., Record]) -> Path:
    made = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab")
    for name, score, task in (("b", 0.5, "t"), ("a", 0.6, "u"), ("b", 0.3, "u")):
        make_record(name, score, task=task).write(tmp_path / "ours", made)
    return tmp_path / "ours"


def test_the_retrieval_table(run: Run) -> None:
    lines = run(PUBLISHED / "bob_retrieval.csv", "--without", "sscd-*").splitlines()
    assert lines[1].split()[:3] == ["1", "timm-swinv2_base_window12to24_192to384_22kft1k", "+1.007"]
    assert lines[2].split()[:3] == ["2", "timm-convnext_xlarge_in22ft1k", "+0.972"]
    assert lines[3].split()[:3] == ["3", "timm-convnext_base_in22ft1k", "+0.953"]
    assert lines[31].split()[:3] == ["31", "mae-vit_base_patch16_224", "-3.242"]
    assert lines[32] == "Backbones: 31. Settings: 8 (8 retrieval)."
    assert lines[33].startswith("Ranked by mean z over categories. No rank has an interval")
    assert lines[34] == "248 of 248 scores come without n, standard error or bounds."
    assert lines[35] == (
        "bob_retrieval.csv: 248 scores, from hsouri/bob-retrieval@9db15f5 retrieval/nb_plotting.ipynb cell 8."
    )


def test_intervals_and_choices(run: Run) -> None:
    shown = run(
        *(
            PUBLISHED / "timm_imagenet.csv",
            "-b",
            "resnet*",
            "--without",
            "*@*,resnet18*",
            "--category",
            "classification",
        ),
        *("--task", "imagenet-val", "--by", "win_rate", "--over", "settings"),
    ).splitlines()
    assert " ".join(shown[0].split()) == "rank 95% group backbone mean z 95% mean rank win rate Borda settings"
    assert [line.split()[:4] for line in shown[1:4]] == [
        ["1", "1-1", "1", "resnet101.a1h_in1k"],
        ["2", "2-2", "2", "resnet50.a1_in1k"],
        ["3", "3-3", "3", "resnet50.tv2_in1k"],
    ]
    # Of five, one being beaten by nobody.
    assert [line.split()[-3] for line in shown[1:6]] == ["1.000", "0.750", "0.500", "0.250", "0.000"]
    assert shown[6] == "Backbones: 5. Settings: 1 (1 classification)."
    assert "are taken as unpaired" in shown[8]


def test_with_our_own_records(run: Run, table: Path, ours: Path) -> None:
    lines = run(table, "--join", "--results", ours).splitlines()
    assert [line.split()[:4] for line in lines[1:3]] == [["1", "1-1", "1", "a"], ["2", "2-2", "2", "b"]]
    assert lines[3].split() == ["C", "1"]  # was not run on u
    assert "1 of 3 backbones lack a setting" in lines[6]
    assert lines[-2:] == ["their.csv: 2 scores.", "Our own runs: 3 scores."]
    dropped = run(table, "--join", "--results", ours, "--missing", "common").splitlines()
    assert [line.split()[3] for line in dropped[1:4]] == ["a", "b", "C"]


def test_what_is_written(run: Run, table: Path, ours: Path, tmp_path: Path) -> None:
    arguments = [table, "--join", "--results", ours]
    for name in ("t.csv", "t.md", "t.tex", "t.parquet"):
        arguments += ["--out", tmp_path / name]
    assert run(*arguments).count("Written: ") == 4
    written = pd.read_csv(tmp_path / "t.csv")
    assert list(written["backbone"]) == ["a", "b", "C"] and list(written["t/linear"]) == [0.9, 0.5, 0.2]
    assert "| 0.900 [0.881, 0.919] |" in (tmp_path / "t.md").read_text()


def test_two_tables(run: Run, table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(f"{HEAD}\nA,ood,x,linear,top1,0.1,9,\nC,ood,x,linear,top1,0.8,9,\n")
    lines = run(table, other).splitlines()
    assert lines[3] == "Backbones: 2. Settings: 2 (1 classification, 1 ood)."
    assert lines[-2:] == ["their.csv: 2 scores.", "other.csv: 2 scores."]


def test_size_and_likeness(run: Run) -> None:
    shown = run(
        *(PUBLISHED / "timm_imagenet.csv", "--without", "*@*", "--missing", "common"),
        *("--scaling", "--correlations", "categories"),
    )
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    start = lines.index("family mean z with backbones Spearman 95% z for 10 times 95%")
    assert lines[start + 1].startswith("all parameters 34 +0.87 +0.73, +0.93 +1.78 +1.36, +2.19")
    assert lines[start + 3].startswith("CNN parameters 16 ") and len(lines) == start + 11
    assert lines[-2:] == ["categories backbones Spearman 95%", "ood classification 34 +0.98 +0.93, +0.99"]


def test_mistakes(run: Run, table: Path, ours: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["--by", "mean"], "--by mean is not known"),
        (["--over", "none"], "--over none is not known"),
        (["--missing", "fill"], "--missing fill is not known. Choose show, common or drop."),
        (["--correlations", "task"], r"--correlations task is not known. Did you mean: tasks\?"),
        (["--without", "Z"], "--without Z matches nothing in these tables. There are A, C."),
        (["--task", "tt"], "--task tt matches nothing in these tables. Did you mean: t?"),
        (["--without", "*"], "No score is left. Loosen"),
        (["--out", tmp_path / "t.xlsx"], "Give a name that ends in"),
        (["--join", "--results", tmp_path / "none"], "none"),
        ([table], r"Two tables have a score of A on t/linear \(top1\)"),
    ):
        with pytest.raises(UserError, match=words):
            run(table, *arguments)


def test_facts_of_one_table_serve_another(run: Run, tmp_path: Path) -> None:
    rows = [f"{name},c,x,s,m,{place},{place}e6,ViT-B/16" for place, name in enumerate("abcd", start=1)]
    known = tmp_path / "known.csv"
    known.write_text("\n".join(["backbone,task,dataset,setting,metric,value,parameters,architecture", *rows]) + "\n")
    bare = tmp_path / "bare.csv"
    bare.write_text("backbone,task,dataset,setting,metric,value\na,c,y,s,m,1\nb,c,y,s,m,2\nc,c,y,s,m,3\nd,c,y,s,m,4\n")
    lines = [line.split() for line in run(bare, known, "--scaling").splitlines()]
    assert ["ViT", "parameters", "4", "+1.00", "+1.00,", "+1.00"] in [line[:6] for line in lines]
    assert ["all", "parameters", "0"] in [line.split() for line in run(bare, "--scaling").splitlines()]
