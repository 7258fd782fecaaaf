"""`bob leaderboard`: every option on real records, what is said below the table, and each mistake in one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.leaderboard import leaderboard
from bob.results.predictions import Predictions
from bob.results.record import Record

Run = Callable[..., str]
LABELS = np.arange(200) % 2
# name: paradigm, architecture, parameters, and the share of right answers on each task
BACKBONES: dict[str, tuple[str, str, int, dict[str, float]]] = {
    "deit": ("supervised", "ViT-B/16", 86_000_000, {"t": 0.80, "u": 0.70, "v": 0.60}),
    "dino": ("ssl", "ViT-B/16", 86_000_000, {"t": 0.95, "u": 0.55, "v": 0.62}),
    "mobile": ("supervised", "MobileNet", 3_000_000, {"t": 0.60, "u": 0.45, "v": 0.50}),
    "clip": ("vlm", "ViT-B/16", 150_000_000, {"t": 0.90, "u": 0.92}),
}
CATEGORIES = {"t": "classification", "u": "classification", "v": "ood"}


@pytest.fixture
def write(home: Path, make_record: Callable[..., Record]) -> Callable[..., None]:
    """Write the record of a backbone that is right about such a share of 200 images."""

    def make(name: str, score: float, **options: Any) -> None:
        right = np.random.default_rng(sum(map(ord, name))).permutation(200) < round(200 * score)
        predicted = np.where(right, LABELS, 1 - LABELS)
        said = Predictions.from_probabilities([f"i{i}" for i in range(200)], LABELS, np.eye(2)[predicted], ["a", "b"])
        resamples = np.random.default_rng(0).integers(200, size=(500, 200))
        options.setdefault("draws", right[resamples].mean(axis=1))
        make_record(name, right.mean(), **options).write(Path("results"), said)

    return make


@pytest.fixture
def run(write: Callable[..., None], run_command: Run) -> Run:
    """Run the command on four backbones and three tasks, of which one was not run."""
    for name, (paradigm, architecture, parameters, scores) in BACKBONES.items():
        card = {"paradigm": paradigm, "architecture": architecture}
        for task, score in scores.items():
            write(name, score, task=task, category=CATEGORIES[task], parameters=parameters, card=card)
    return partial(run_command, leaderboard)


def _names(out: str) -> list[str]:
    """The backbones of the rows that are printed, in their order."""
    return [name for line in out.splitlines() for name in line.split()[:4] if name in BACKBONES]


def _head(out: str) -> str:
    return next(line for line in out.splitlines() if line.startswith("rank"))


class TestTable:
    def test_as_printed(self, run: Run) -> None:
        out = run("--without", "clip")
        head, *rows, meaning, filters = out.splitlines()
        assert head.split() == [
            *("rank", "95%", "group", "backbone", "t/linear", "u/linear", "v/linear", "mean", "z", "mean", "rank"),
            *("params", "(M)", "images/s"),
        ]
        cells = [row.split() for row in rows]
        assert [row[3] for row in cells] == ["dino", "deit", "mobile"] and [row[0] for row in cells] == ["1", "2", "3"]
        assert cells[2][1:3] == ["3-3", "2"] and cells[0][1].startswith("1-")
        assert cells[0][4:7] == ["0.950", "[0.850,", "1.050]"]
        assert meaning.startswith("Ranked by mean z over categories. 95%: the ranks that other test samples")
        assert filters == "The filters leave 3 of 4 backbones and 3 of 3 settings."

    def test_a_gap(self, run: Run) -> None:
        out = run()
        assert _names(out)[-1] == "clip" and "not run" in out
        assert "1 of 4 backbones lack a setting: they have no rank, and no cell is filled in." in out
        assert "--missing common ranks by the settings that all have, --missing drop those that have all." in out
        assert "The filters" not in out

    def test_missing(self, run: Run) -> None:
        common = run("--missing", "common")
        assert "v/linear" not in common and "1 of 3 settings that not all backbones have are left out." in common
        assert _names(common)[0] == "clip"
        drop = run("--missing", "drop")
        assert "clip" not in drop and "1 of 4 backbones lack a setting and are left out." in drop

    def test_over(self, run: Run) -> None:
        # v, alone in its category, counts as much as t and u together; alone, each a third.
        kept = ("--without", "clip", "-o", "t.csv")
        means = {}
        for over in ("categories", "settings"):
            assert f"Ranked by mean z over {over}." in run(*kept, "--over", over)
            table = pd.read_csv("t.csv").set_index("backbone")
            means[over] = table["mean_z"]
        z = table[["t/linear z", "u/linear z", "v/linear z"]]
        pd.testing.assert_series_equal(
            means["categories"], (z @ [0.25, 0.25, 0.5])[means["categories"].index], check_names=False, rtol=1e-4
        )
        pd.testing.assert_series_equal(means["settings"], z.mean(axis=1), check_names=False, rtol=1e-4)

    def test_by(self, run: Run) -> None:
        out = run("--missing", "drop", "--by", "win_rate")
        assert "win rate" in _head(out) and "Ranked by win rate over categories." in out
        assert "win rate" not in _head(run())

    def test_ddof(self, run: Run) -> None:
        run("--missing", "drop", "-t", "t", "-b", "deit,dino", "--ddof", 0, "-o", "t.csv")
        assert pd.read_csv("t.csv")["mean_z"].tolist() == [1, -1]

    def test_many_settings(self, run: Run, write: Callable[..., None]) -> None:
        for number in range(7):
            for name, (*_, scores) in BACKBONES.items():
                write(name, scores["t"], task=f"more{number}")
        out = run("--missing", "drop", "-o", "t.csv", "-o", "t.md")
        assert (
            "classification z" in _head(out)
            and "settings" in _head(out)
            and "ood z" in _head(out)
            and "/linear" not in _head(out)
        )
        assert "10 settings as the mean z of each category; --wide and --out have every cell." in out
        assert pd.read_csv("t.csv").filter(regex="linear$").shape == (3, 10)
        assert Path("t.md").read_text().count("/linear") == 10
        wide = run("--missing", "drop", "--wide")
        assert _head(wide).count("/linear") == 10 and "mean z of each category" not in wide


class TestFilters:
    @pytest.mark.parametrize(
        ("options", "left"),
        [
            (["--paradigm", "ssl,vlm"], {"dino", "clip"}),
            (["--paradigm", "ssl", "--paradigm", "vlm"], {"dino", "clip"}),
            (["--small"], {"mobile"}),
            (["--max-params", "86M"], {"deit", "dino", "mobile"}),
            (["--min-params", "0.1G"], {"clip"}),
            (["--min-params", "3000000", "--max-params", "90e6"], {"deit", "dino", "mobile"}),
            (["--without", "d*"], {"mobile", "clip"}),
            (["-b", "d*,mobile", "--without", "dino"], {"deit", "mobile"}),
            (["--category", "ood"], {"deit", "dino", "mobile"}),
        ],
    )
    def test_backbones(self, run: Run, options: list[str], left: set[str]) -> None:
        out = run(*options)
        assert set(_names(out)) == left
        assert f"The filters leave {len(left)} of 4 backbones and " in out

    def test_settings(self, run: Run) -> None:
        assert "The filters leave 3 of 4 backbones and 1 of 3 settings." in run("--category", "ood")
        assert "The filters leave 4 of 4 backbones and 2 of 3 settings." in run("-t", "t,u")

    def test_stale_runs(self, run: Run, write: Callable[..., None]) -> None:
        write("deit", 0.7, task="t", data="newer", created="2027")
        out = run("-t", "t")
        assert "3 runs on other weights, data or protocol versions than the newest are left out." in out


class TestGroups:
    @pytest.mark.parametrize("group", ["category", "task"])
    def test_a_ranking_each(self, run: Run, group: str) -> None:
        out = run("--group", group, "-o", "t.csv", "-o", "t.md")
        names = ["classification", "ood"] if group == "category" else ["t", "u", "v"]
        parts = [part for part in out.split(f"{group} ")[1:] if part.splitlines()[0].endswith(":")]
        assert [part.splitlines()[0] for part in parts] == [f"{name}:" for name in names]
        # Whoever has none of a group's settings is not in it.
        assert _names(parts[-1]) == ["dino", "deit", "mobile"] and "lack a setting" not in out
        for name in names:
            assert Path(f"t-{name}.csv").is_file() and Path(f"t-{name}.md").is_file()
        assert not Path("t.csv").exists()
        assert out.count("Ranked by mean z over categories. 95%:") == 1  # said once, below all of them

    def test_each_has_its_own_ranks(self, run: Run) -> None:
        run("--group", "task", "-o", "x.csv")
        tables = {task: pd.read_csv(f"x-{task}.csv") for task in "tuv"}
        assert {task: table["backbone"].iloc[0] for task, table in tables.items()} == {
            "t": "dino",
            "u": "clip",
            "v": "dino",
        }
        assert tables["t"]["rank"].tolist() == [1, 2, 3, 4] and tables["v"]["rank"].tolist() == [1, 2, 3]
        # deit and dino differ by 4 of 200 images on v: not told apart.
        assert tables["v"]["group"].tolist()[:2] == [1, 1] and tables["v"]["rank_high"].iloc[0] >= 2


class TestCosts:
    def test_columns_and_marks(self, run: Run) -> None:
        out = run("--cost", "--missing", "drop")
        assert all(name in _head(out) for name in ("GFLOPs", "peak memory (GB)", "GPU hours", "CPU hours", "Pareto"))
        assert "Pareto: * where no other is at least as good in both mean z and parameters, and better in one." in out
        assert "Hours count each run as if alone" in out and "several devices" not in out
        marks = {line.split()[3]: line.rstrip().endswith("*") for line in out.splitlines()[1:4]}
        assert marks == {"dino": True, "deit": False, "mobile": True}

    def test_hours_are_those_of_the_table(self, run: Run, make_record: Callable[..., Record]) -> None:
        from bob.results.draws import KEPT_RESAMPLES

        said = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], ["a", "b"])
        for task, hours in (("x", 1), ("y", 2)):
            record = make_record("deit", 0.5, task=task, draws=np.full(KEPT_RESAMPLES, 0.5))
            cost = record.cost.model_copy(update={"seconds": {"fit": 3600.0 * hours}})
            record.model_copy(update={"cost": cost, "environment": {"device": "cpu"}}).write(Path("results"), said)
        run("-t", "x,y", "-o", "both.csv", "--cost")
        run("-t", "x,y", "-o", "each.csv", "--cost", "--group", "task")
        hours = {name: pd.read_csv(f"{name}.csv")["cpu_hours"].tolist() for name in ("both", "each-x", "each-y")}
        assert hours == {"both": [3], "each-x": [1], "each-y": [2]}

    def test_front_of_another_cost(self, run: Run) -> None:
        out = run("--pareto", "flops", "--missing", "drop", "-o", "t.csv")
        assert "GFLOPs" in _head(out) and "GPU hours" not in _head(out)
        # All need as much, so the best alone is on it.
        assert pd.read_csv("t.csv")["pareto"].tolist() == [True, False, False]
        assert "and images/s, and better" in run("--pareto", "images_per_second")
        assert "Pareto" not in run()

    def test_several_devices_are_said(self, run: Run, write: Callable[..., None]) -> None:
        write("deit", 0.7, task="w", environment={"device": "NVIDIA H200"})
        line = "Rates, memory and hours were measured on several devices: NVIDIA H200, unknown."
        assert line in run("--cost") and line in run("--pareto", "images_per_second") and line not in run()


class TestFiles:
    def test_every_format(self, run: Run) -> None:
        out = run("-o", "x/t.csv", "-o", "t.md", "-o", "t.tex", "-o", "t.parquet")
        assert out.count("Written: /") == 4
        csv, parquet = pd.read_csv("x/t.csv"), pd.read_parquet("t.parquet")
        pd.testing.assert_frame_equal(csv, parquet, check_dtype=False, rtol=1e-4)
        assert Path("t.md").read_text().startswith("| rank | 95% | group | backbone | t/linear |")
        latex = Path("t.tex").read_text()
        assert "% Ranked by mean z over categories." in latex and r"\textbf{0.950} [0.850, 1.050]" in latex

    def test_tidy(self, run: Run) -> None:
        run("--tidy", "-o", "t.csv", "-o", "t.parquet")
        table = pd.read_csv("t.csv")
        assert len(table) == 11 and {"backbone", "metric", "value", "n", "standard_error"} <= set(table)
        assert len(pd.read_parquet("t.parquet")) == 11

    def test_tidy_files_can_be_ranked(self, run: Run) -> None:
        from bob.standings.long_table import read_long_table

        run("--tidy", "-o", "t.csv")
        cells, _ = read_long_table(Path("t.csv"))
        assert set(cells.table["setting"]) == {"t/linear", "u/linear", "v/linear"} and len(cells.table) == 11

    def test_old_records_are_said(self, run: Run, write: Callable[..., None]) -> None:
        assert "unpaired" not in run()
        write("old", 0.5, task="t", draws=None)
        assert "1 of 12 scores are of older records: their differences are taken as unpaired, and less sure." in run()


class TestOtherTables:
    def test_compare(self, run: Run) -> None:
        out = run("--compare", "deit", "dino", "-o", "t.csv")
        assert out.splitlines()[0].split()[:6] == ["setting", "metric", "n", "seeds", "deit", "dino"]
        assert "dino is better than deit in 1 of 3 settings, worse in 1, undecided in 1." in out
        assert list(pd.read_csv("t.csv")["better"]) == ["dino", "deit", "tie"]
        only = run("--compare", "deit", "dino", "-t", "t")
        assert "dino is better than deit in 1 of 1 setting" in only and "leave 4 of 4 backbones and 1 of 3" in only

    def test_same_architecture(self, run: Run) -> None:
        out = run("--same-architecture", "-o", "t.csv")
        head, *rows = out.splitlines()[:6]
        assert head.split()[:5] == ["setting", "architecture", "paradigm", "backbone", "supervised"]
        assert [row.split()[:3] for row in rows] == [
            ["t/linear", "ViT-B/16", "ssl"],
            ["t/linear", "ViT-B/16", "vlm"],
            ["u/linear", "ViT-B/16", "ssl"],
            ["u/linear", "ViT-B/16", "vlm"],
            ["v/linear", "ViT-B/16", "ssl"],
        ]
        assert rows[0].split()[3:6] == ["dino", "(of", "1)"] and rows[0].split()[-1] == "yes"
        assert "ssl is ahead of supervised in 2 of 3 comparisons (surely in 1) and behind in 1 (surely in 1)." in out
        assert "of 5 pairs of equals, about 0.2 would be called sure by chance." in out
        assert list(pd.read_csv("t.csv")["ahead"]) == ["ssl", "vlm", "supervised", "vlm", "ssl"]
        assert "vlm" not in run("--same-architecture", "--paradigm", "ssl,supervised")

    def test_trends(self, run: Run) -> None:
        out = run("--missing", "common", "--scaling", "--correlations", "tasks")
        rows = [line.split() for line in out.splitlines()]
        place = next(place for place, row in enumerate(rows) if row[:4] == ["family", "mean", "z", "with"])
        assert rows[place + 1][:3] == ["all", "parameters", "4"]
        assert ["t", "u", "4"] in [row[:3] for row in rows]
        assert "family" not in run() and "Spearman" not in run()


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--by", "meanz"], "--by meanz is not known. Did you mean: mean_z?"),
            (["--over", "taks"], "--over taks is not known. Did you mean: tasks?"),
            (["--missing", "impute"], "--missing impute is not known. Choose show, common or drop."),
            (["--group", "tasks"], "--group tasks is not known. Did you mean: task?"),
            (["--correlations", "task"], "--correlations task is not known. Did you mean: tasks?"),
            (["--compare", "deit", "dino", "--scaling"], "--compare and --scaling do not go together."),
            (["--pareto", "params"], "--pareto params is not known. Did you mean: parameters?"),
            (["--paradigm", "supervise"], "--paradigm supervise is not known. Did you mean: supervised?"),
            (["--category", "odd"], "--category odd: there is no record of such a task. Did you mean: ood?"),
            (["--without", "dinov2"], "--without dinov2 matches no backbone of these records. Did you mean: dino?"),
            (["--max-params", "many"], "--max-params many is no number of parameters. Write it as 30M"),
            (["--min-params", "-1"], "--min-params -1 is no number of parameters."),
            (["--min-params", "2M", "--max-params", "1M"], "--min-params is more than --max-params."),
            (["--paradigm", "depth"], "No record matches. Loosen --paradigm."),
            (["-b", "zzz"], "No record matches. Loosen --backbone, --task or --protocol."),
            (["--results", "none"], "There are no records in none/runs."),
            (["-o", "t.xlsx"], "Give a name that ends in .csv, .md, .tex or .parquet."),
            (["--tidy"], "--tidy is about the file that is written. Add --out NAME.csv."),
            (["--tidy", "-o", "t.md"], "Give a name that ends in .csv or .parquet."),
            (["--compare", "deit", "dino", "-o", "t.tex"], "Give a name that ends in .csv or .parquet."),
            (["--compare", "deit", "dyno"], "There is no run of dyno. Did you mean: dino?"),
            (["--compare", "deit", "deit"], "Expected two backbones, but got deit twice."),
            (["--compare", "deit", "dino", "--by", "borda"], "--compare and --by do not go together."),
            (["--compare", "deit", "dino", "--same-architecture"], "--compare and --same-architecture do not go"),
            (["--same-architecture", "--cost"], "--same-architecture and --cost do not go together."),
            (["--same-architecture", "--paradigm", "ssl"], "No architecture has both a supervised and an ssl or vlm"),
        ],
    )
    def test_are_one_line(self, run: Run, options: list[str], message: str) -> None:
        with pytest.raises(UserError) as caught:
            run(*options)
        assert message in str(caught.value) and "\n" not in str(caught.value)

    @pytest.mark.parametrize("missing", ["common", "drop"])
    def test_nothing_left(self, run: Run, write: Callable[..., None], missing: str) -> None:
        write("clip", 0.5, task="w")
        with pytest.raises(UserError, match=r"^None of 2 (settings|backbones) has a score "):
            run("-b", "clip,deit", "-t", "v,w", "--missing", missing)
