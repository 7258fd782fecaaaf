"""Files of the table: what CSV and Parquet give back, what Markdown shows, and LaTeX parsed again."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.results.record import Record
from bob.results.runs import tidy
from bob.standings.aggregate import without_gaps
from bob.standings.cells import cells_of
from bob.standings.formats import (
    Show,
    best_cells,
    compact,
    parts_of_names,
    to_latex,
    to_markdown,
    write_frame,
    write_table,
)
from bob.standings.grid import Grid
from bob.standings.standings import standings
from bob.standings.wide import facts_of, wide_table, with_pareto

Make = Callable[..., Record]
NOISE = np.linspace(-0.01, 0.01, 500)


def _grid(records: list[Record]) -> Grid:
    return without_gaps(Grid.of(cells_of(tidy(records))), "show")


def _table(records: list[Record], by: str = "mean_z") -> pd.DataFrame:
    runs = tidy(records)
    cells = cells_of(runs)
    grid = Grid.of(cells)
    return wide_table(cells.table, grid, standings(grid, by), facts_of(runs))


@pytest.fixture
def records(make_record: Make) -> list[Record]:
    """Two backbones on a setting with a difficult name, of which one lacks another."""
    return [
        make_record("a|x", 0.5, task="folder:/ö", draws=0.5 + NOISE),
        make_record("b_1%", 0.25, task="folder:/ö", draws=0.25 + NOISE),
        make_record("a|x", 1 / 3, task="t&t", images_per_second=12.3456789, draws=1 / 3 + NOISE),
    ]


def _latex_rows(text: str) -> list[list[str]]:
    """The rows of a tabular as their cells, by the rules of TeX: `&` parts cells unless a backslash is before it."""
    body = text.partition("\\toprule")[2].partition("\\bottomrule")[0]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]
        for line in body.splitlines()
        if line.endswith(r"\\")
    ]


def _plain(cell: str) -> str:
    """A cell as it is printed: macros that only style it, and escapes, undone."""
    styled = re.compile(r"\\(?:textbf|underline)\{((?:[^{}]|\{\})*)\}")
    while styled.search(cell):
        cell = styled.sub(r"\1", cell)
    cell = re.sub(r"^\$(.*)\$$", r"\1", cell)
    return re.sub(r"\\([&%$#_{}])", r"\1", cell.replace(r"\textbar{}", "|")).replace("--", "-").removeprefix("{}")


class TestCompact:
    def test_a_row(self, records: list[Record]) -> None:
        shown = compact(_table(records)).set_index("backbone")
        assert shown.loc["a|x"].to_dict() == {
            "rank": "1",
            "95%": "1-1",
            "group": "1",
            "folder:/ö/linear": "0.500 [0.400, 0.600]",
            "t&t/linear": "0.333 [0.233, 0.433]",
            "mean z": "+0.35",  # 0.71 in one of two settings, 0 in the other, where nobody else is
            "mean rank": "1.00",
            "params (M)": "1.00",
            "images/s": "11.2",
        }

    def test_what_was_not_run(self, records: list[Record]) -> None:
        row = compact(_table(records)).set_index("backbone").loc["b_1%"]
        assert row["t&t/linear"] == "not run"
        assert list(row[["rank", "95%", "group", "mean z", "mean rank"]]) == [""] * 5

    def test_seeds(self, make_record: Make) -> None:
        seeds = [make_record("a", 0.5, seed=seed) for seed in range(3)]
        shown = compact(_table([*seeds, make_record("b", 0.5)])).set_index("backbone")
        assert shown["t/linear seeds"].to_dict() == {"a": "3", "b": "1"}

    def test_categories(self, make_record: Make) -> None:
        scores = {"a": (0.9, 0.5, 0.1), "b": (0.1, 0.5, 0.2)}
        kinds = {"x": "classification", "y": "classification", "z": "ood"}
        records = [
            make_record(name, score, task=task, category=kinds[task])
            for name, own in scores.items()
            for task, score in zip("xyz", own, strict=True)
        ]
        shown = compact(_table(records), Show(categories={f"{task}/linear": kind for task, kind in kinds.items()}))
        # z of two is +-0.707: classification (0.707 + 0) / 2, ood -0.707; the mean over categories is between.
        assert shown.set_index("backbone").loc["a", ["classification z", "ood z", "mean z"]].tolist() == [
            "+0.35",
            "-0.71",
            "-0.18",
        ]
        assert not any("linear" in column for column in shown)

    def test_every_cost_and_the_front(self, records: list[Record]) -> None:
        costs = ("parameters", "flops", "images_per_second", "peak_memory_bytes", "gpu_hours", "cpu_hours")
        shown = compact(with_pareto(_table(records), "mean_z", "flops"), Show(costs=costs))
        assert list(shown.columns[-7:]) == [
            *("params (M)", "GFLOPs", "images/s", "peak memory (GB)", "GPU hours", "CPU hours"),
            "Pareto",
        ]
        assert dict(zip(shown["backbone"], shown["Pareto"], strict=True)) == {"a|x": "*", "b_1%": ""}

    def test_costs_that_nobody_knows_are_not_shown(self, records: list[Record]) -> None:
        assert "images/s" not in compact(_table(records).assign(images_per_second=np.nan))

    def test_what_ranks_is_shown(self, records: list[Record]) -> None:
        shown = compact(_table(records, "win_rate"), Show(by="win_rate"))
        assert [column for column in shown if "mean" in column or "win" in column] == [
            "mean z",
            "mean rank",
            "win rate",
        ]


class TestFiles:
    def test_csv(self, records: list[Record], tmp_path: Path) -> None:
        table = _table(records)
        write_table(table, tmp_path / "new" / "t.csv")
        text = (tmp_path / "new" / "t.csv").read_text()
        assert "0.333333" in text and "11.1728" in text
        back = pd.read_csv(tmp_path / "new" / "t.csv")
        pd.testing.assert_frame_equal(back, table, check_dtype=False, rtol=1e-5)
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.csv"]

    def test_missing_is_empty(self, records: list[Record], tmp_path: Path) -> None:
        write_table(_table(records), tmp_path / "t.csv")
        line = next(line for line in (tmp_path / "t.csv").read_text().splitlines() if "b_1%" in line)
        assert line.startswith(",,,,b_1%,baseline,0.25,0.15,0.35,-0.707107,,,,,")

    def test_parquet(self, records: list[Record], tmp_path: Path) -> None:
        table = with_pareto(_table(records), "mean_z", "parameters")
        write_table(table, tmp_path / "t.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table, check_exact=True)
        assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]

    def test_markdown(self, records: list[Record], tmp_path: Path) -> None:
        table = _table(records[:2])
        write_table(table, tmp_path / "t.md")
        lines = (tmp_path / "t.md").read_text(encoding="utf-8").splitlines()
        heads = "rank | 95% | group | backbone | folder:/ö/linear | mean z | mean rank | params (M) | images/s"
        assert lines[0] == f"| {heads} |"
        assert lines[1] == "|" + " --- |" * 9
        assert lines[2] == "| 1 | 1-1 | 1 | a\\|x | 0.500 [0.400, 0.600] | +0.71 | 1.00 | 1.00 | 10.0 |"
        assert to_markdown(table).splitlines() == lines

    @pytest.mark.parametrize("name", ["t.xlsx", "t", "csv"])
    def test_other_suffix(self, records: list[Record], tmp_path: Path, name: str) -> None:
        table = _table(records)
        with pytest.raises(UserError, match=r"Cannot tell .*Give a name that ends in \.csv, \.md, \.tex or \.parquet"):
            write_table(table, tmp_path / name)
        with pytest.raises(UserError, match=r"Give a name that ends in \.csv or \.parquet"):
            write_frame(table, tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_names_of_several(self) -> None:
        assert parts_of_names([""]) == [""]
        assert parts_of_names(["ood", "folder:/a b/", "folder:/a-b"]) == ["-ood", "-folder-a-b", "-folder-a-b-2"]


class TestLatex:
    def test_parsed_back_is_what_is_shown(self, records: list[Record]) -> None:
        table = _table(records)
        text = to_latex(table, marks=best_cells(_grid(records)), caption="Of 100%\nand more")
        shown = compact(table)
        assert [[_plain(cell) for cell in row] for row in _latex_rows(text)] == [
            list(shown.columns),
            *shown.to_numpy().tolist(),
        ]
        spec = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", text)
        assert spec and len(spec[1]) == len(shown.columns) and spec[1].index("l") == 3
        comments = text.partition("\\begin")[0].splitlines()
        assert comments[0] == "% Needs \\usepackage{booktabs}." and comments[2] == "% Of 100% and more"
        assert comments[1].startswith("% Bold: the best of its setting") and len(comments) == 3
        assert text.endswith("\\bottomrule\n\\end{tabular}\n")

    def test_signs_and_ranges(self, make_record: Make) -> None:
        rows = _latex_rows(to_latex(_table([make_record("a", 0.9), make_record("b", 0.1)])))
        assert rows[1][5] == "$+0.71$" and rows[2][5] == "$-0.71$" and rows[1][1] == "1--1"

    def test_special_characters(self, make_record: Make) -> None:
        name = r"\a&b%c$d#e_f{g}~h^i<j>|k"
        [_, row] = _latex_rows(to_latex(_table([make_record(name, 0.5)])))
        assert row[3] == (
            r"\textbackslash{}a\&b\%c\$d\#e\_f\{g\}\textasciitilde{}h\textasciicircum{}i\textless{}j\textgreater{}"
            r"\textbar{}k"
        )

    def test_the_best_is_bold_and_its_equals_underlined(self, make_record: Make) -> None:
        rng = np.random.default_rng(0)
        scores = {"best": 0.9, "close": 0.89, "far": 0.3}
        records = [
            make_record(name, score, draws=score + 0.02 * rng.standard_normal(500)) for name, score in scores.items()
        ]
        marks = best_cells(_grid(records))
        assert marks["t/linear"].to_dict() == {"best": 2, "close": 1, "far": 0}
        column = {row[3]: row[4] for row in _latex_rows(to_latex(_table(records), marks=marks))[1:]}
        assert column == {
            "best": r"\textbf{0.900} [0.800, 1.000]",
            "close": r"\underline{0.890} [0.790, 0.990]",
            "far": "0.300 [0.200, 0.400]",
        }

    def test_lower_may_be_better_and_two_the_best(self, make_record: Make) -> None:
        down = {"metric": "nll", "higher_is_better": False}
        records = [
            make_record(name, score, draws=np.full(500, score), **down)
            for name, score in (("a", 1.0), ("b", 1.0), ("c", 2.0))
        ]
        assert best_cells(_grid(records))["t/linear"].to_dict() == {"a": 2, "b": 2, "c": 0}

    def test_what_was_not_run_is_not_marked(self, records: list[Record]) -> None:
        assert best_cells(_grid(records)).loc["b_1%"].to_dict() == {"folder:/ö/linear": 0, "t&t/linear": 0}

    @pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
    def test_compiles(self, records: list[Record], tmp_path: Path) -> None:
        write_table(_table(records), tmp_path / "t.tex", marks=best_cells(_grid(records)))
        document = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{t.tex}\end{document}"
        (tmp_path / "d.tex").write_text(document)
        subprocess.run(["pdflatex", "-halt-on-error", "d.tex"], cwd=tmp_path, check=True, timeout=60)
