"""Published tables: what is read, what their intervals are, what is refused, and how they join."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.results.record import Record
from bob.results.runs import tidy
from bob.standings.cells import COLUMNS, Cells, cells_of
from bob.standings.long_table import FACTS, by_card, join, keep, read_long_table, to_long

HEAD = "backbone,task,dataset,setting,metric,value"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(*lines: str, head: str = HEAD, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        return path

    return made


def test_names_of_settings_and_defaults(write: Write) -> None:
    path = write(
        "a,classification,x,linear,top1,0.5",
        "b,classification,x,linear,nll,1.5",
        "",
        '" a ",ood,"y, 2",knn,top1,0.7',
        "a,ood,z,knn,glory,7",
    )
    cells, notes = read_long_table(path)
    assert list(cells.table.columns) == [*COLUMNS, *FACTS]
    assert list(cells.table["setting"]) == ["x/linear (top1)", "x/linear (nll)", "y, 2/knn", "z/knn"]
    assert list(cells.table["backbone"]) == ["a", "b", "a", "a"]
    assert list(cells.table["higher_is_better"]) == [True, False, True, True]  # of nll we know it
    assert notes == ["t.csv: nothing says which way `glory` goes; taken as higher is better."]
    assert (cells.table["source"] == "t.csv").all() and (cells.table["seeds"] == 1).all()
    assert cells.table[["low", "high", "standard_error", "n"]].isna().all(axis=None)
    assert np.isnan(cells.draws).all() and cells.independent.all()


def test_how_sure_a_score_is(write: Write) -> None:
    path = write(
        "a,c,x,s,top1,0.8,100,0.02,0.7,0.95",  # the column itself
        "b,c,x,s,top1,0.8,100,,0.7,0.95",  # its bounds
        "c,c,x,s,top1,0.8,100,,,",  # n of a proportion
        "d,c,x,s,top1,80,100,,,",  # in percent: unknown
        "e,c,y,s,mrr,0.8,100,,,",  # no proportion
        "f,c,y,s,mrr,0.8,,0.1,,",
        head=f"{HEAD},n,standard_error,low,high",
    )
    cells, _ = read_long_table(path)
    error = cells.table["standard_error"].to_numpy()
    np.testing.assert_allclose(error, [0.02, 0.25 / 3.919928, 0.04, np.nan, np.nan, 0.1], rtol=1e-6)
    bounds = cells.table[["low", "high"]].to_numpy()
    np.testing.assert_allclose(bounds[[0, 1]], [[0.7, 0.95]] * 2)
    np.testing.assert_allclose(bounds[2], [0.8 - 1.959964 * 0.04, 0.8 + 1.959964 * 0.04], rtol=1e-6)
    known = ~np.isnan(error)
    np.testing.assert_allclose(cells.draws[known].mean(axis=1), cells.table["score"][known], atol=0.02)
    np.testing.assert_allclose(cells.draws[known].std(axis=1), error[known], rtol=0.15)
    assert np.isnan(cells.draws[~known]).all()
    np.testing.assert_array_equal(read_long_table(path)[0].draws, cells.draws)


def test_facts_and_other_columns(write: Write) -> None:
    path = write(
        "a,c,x,s,m,1,true,cnn net,1e6,,Paper,hello",
        "a,c,y,s,m,2,TRUE,,,,,hello",
        "b,c,y,s,m,3,1,vit,,5,,hello",
        head=f"\ufeff{HEAD},higher_is_better,architecture,parameters,pretraining_images,source,colour",
    )
    cells, notes = read_long_table(path)
    assert notes == ["t.csv: columns that are not read: colour."]
    assert list(cells.table["architecture"]) == ["cnn net", "cnn net", "vit"]
    assert list(cells.table["parameters"][:2]) == [1e6, 1e6] and np.isnan(cells.table["parameters"][2])
    assert list(cells.table["source"]) == ["Paper", "", ""] and (cells.table["paradigm"] == "").all()


@pytest.mark.parametrize(
    "lines, head, words",
    [
        ([], HEAD, "has no rows"),
        ([], "", "has no column 'backbone'. The first line must name, separated by commas: backbone, task"),
        (["a,c,x,s,m,1"], HEAD.replace("backbone", "backbones"), "no column 'backbone'. Is 'backbone' what is called:"),
        (["a;c"], HEAD.replace(",", ";"), "has no column 'backbone'. The first line"),
        (["a,c,x,s,m,1"], HEAD.replace("metric", "value"), "has the column 'value' twice"),
        (["a,c,x,s,m"], HEAD, "line 2: 5 values, but the first line names 6 columns"),
        (["a,c,x,s,m,1", ",c,x,s,m,1"], HEAD, "line 3: `backbone` is empty"),
        (["a,c,x,s,m,1", "", "b,c,x,s,m,high"], HEAD, "line 4: expected `value` to be a finite number, but got 'high'"),
        (["a,c,x,s,m,nan"], HEAD, "line 2: expected `value` to be a finite number, but got 'nan'"),
        (["a,c,x,s,m,inf"], HEAD, "line 2: expected `value` to be a finite number, but got 'inf'"),
        (["a,c,x,s,m,"], HEAD, "line 2: `value` is empty"),
        (["a,c,x,s,m,1,-3"], f"{HEAD},n", "line 2: expected `n` to be a number, 1 or more, but got '-3'"),
        (["a,c,x,s,m,1,-0.1"], f"{HEAD},standard_error", "expected `standard_error` to be a number, 0 or more"),
        (["a,c,x,s,m,1,2,"], f"{HEAD},low,high", "line 2: one of `low` and `high` is empty"),
        (["a,c,x,s,m,1,2,1"], f"{HEAD},low,high", "line 2: `low` is above `high`"),
        (["a,c,x,s,m,1,maybe"], f"{HEAD},higher_is_better", "to be true or false, but got 'maybe'"),
        (["a,c,x,s,m,1"] * 2, HEAD, r"line 3: a on x/s \(m\) is already in line 2. Delete one"),
        (
            ["a,c,x,s,m,1,true", "b,c,x,s,m,1,false"],
            f"{HEAD},higher_is_better",
            "line 3: `higher_is_better` is 'False', but another line has it otherwise for x/s/m",
        ),
        (["a,c,x,s,m,1", "b,d,x,s,m,1"], HEAD, "line 3: `task` is 'd', but another line has it otherwise for x/s/m"),
        (["a,c,x,s,m,1,5", "a,c,y,s,m,1,6"], f"{HEAD},parameters", "`parameters` is '6.0', but .* for a. Make them"),
        (['a,c,x,s,m,"1'], HEAD, "Cannot read .*t.csv: Error: unexpected end of data. Give a table in CSV"),
    ],
)
def test_mistakes(write: Write, lines: list[str], head: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        read_long_table(write(*lines, head=head))
    assert "t.csv" in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    for name, content in (("a.csv", b"\xff\xfe\x00\x01"), ("b.parquet", b"not parquet"), ("c.csv", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"Cannot read .*{name}"):
            read_long_table(tmp_path / name)
    with pytest.raises(UserError, match=r"Give a name that ends in .csv or .parquet"):
        read_long_table(tmp_path / "a.xlsx")


def test_parquet_says_the_same_as_csv(write: Write, tmp_path: Path) -> None:
    path = write("a,c,x,top,top1,0.5,true,10", "b,c,x,top,top1,0.6,true,", head=f"{HEAD},higher_is_better,n")
    pd.read_csv(path).to_parquet(tmp_path / "t.parquet")
    first, second = (read_long_table(tmp_path / name)[0] for name in ("t.csv", "t.parquet"))
    pd.testing.assert_frame_equal(first.table.drop(columns="source"), second.table.drop(columns="source"))
    pd.DataFrame({"backbone": ["a"], "task": ["c"]}).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(UserError, match=r"bad.parquet has no column 'dataset'"):
        read_long_table(tmp_path / "bad.parquet")


def test_our_own_go_round(tmp_path: Path, make_record: Callable[..., Record]) -> None:
    own = cells_of(
        tidy(
            [
                make_record("a", 0.5, seed=0),
                make_record("a", 0.6, seed=1),
                make_record("b", 0.7, draws=np.linspace(0.6, 0.8, 500)),
                make_record("b", 1.7, task="u", metric="nll", higher_is_better=False),
            ]
        )
    )
    to_long(own).to_csv(tmp_path / "own.csv", index=False)
    read, notes = read_long_table(tmp_path / "own.csv")
    assert notes == []
    pd.testing.assert_frame_equal(read.table[list(COLUMNS)], own.table, check_dtype=False)
    pd.testing.assert_frame_equal(to_long(read)[list(to_long(own))], to_long(own), check_dtype=False)


def _cells(write: Write, *lines: str, name: str = "t.csv", head: str = HEAD) -> Cells:
    return read_long_table(write(*lines, name=name, head=head))[0]


def test_join(write: Write) -> None:
    first = _cells(write, "a,c,x,s,top1,0.1", "b,c,x,s,top1,0.2", "a,c,y,s,top1,0.5")
    second = _cells(write, "c,c,x,s,top1,0.3", "a,c,z,s,top1,0.4", "c,c,y,s,nll,0.5", name="u.csv")
    both = join(first, second)
    found = both.table.set_index(["backbone", "setting"])["score"].to_dict()
    assert found == {
        **{("a", "x/s"): 0.1, ("b", "x/s"): 0.2, ("c", "x/s"): 0.3, ("a", "z/s"): 0.4},
        **{("a", "y/s (top1)"): 0.5, ("c", "y/s (nll)"): 0.5},  # one name, two metrics
    }
    assert both.draws.shape == (6, 500) and list(both.table.index) == list(range(6))
    assert list(both.table["source"].unique()) == ["t.csv", "u.csv"]
    one = keep(both, (both.table["backbone"] == "c").to_numpy())
    assert list(one.table["score"]) == [0.3, 0.5] and len(one.draws) == len(one.independent) == 2


def test_what_does_not_join(write: Write) -> None:
    first = _cells(write, "a,c,x,s,top1,0.1")
    with pytest.raises(UserError, match=r"Two tables have a score of a on x/s \(top1\)"):
        join(first, _cells(write, "a,c,x,s,top1,0.3"))
    with pytest.raises(UserError, match=r"disagree on x/s: kind of task c, d"):
        join(first, _cells(write, "b,d,x,s,top1,0.3"))
    with pytest.raises(UserError, match=r"disagree on x/s: higher_is_better True, False"):
        join(first, _cells(write, "b,c,x,s,top1,0.3,no", head=f"{HEAD},higher_is_better"))


def test_by_card(write: Write) -> None:
    head = f"{HEAD},card"
    cells = by_card(_cells(write, "A,c,x,s,top1,0.1,resnet", "B,c,x,s,top1,0.2,", head=head))
    assert list(cells.table["backbone"]) == ["resnet", "B"]
    with pytest.raises(UserError, match=r"Two rows of setting x/s have the card resnet"):
        by_card(_cells(write, "A,c,x,s,top1,0.1,resnet", "B,c,x,s,top1,0.2,resnet", head=head))
