"""The table: scores, z and ranks as worked by hand, no cell filled in, nothing compared that is not comparable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.results.leaderboard import (
    MEASURED,
    compact,
    comparable,
    leaderboard,
    select,
    settings_of,
    tidy,
    to_markdown,
    write_table,
)
from bob.results.record import Record
from bob.results.statistics import over_seeds

Make = Callable[..., Record]


def _table(records: list[Record], ddof: int = 1) -> pd.DataFrame:
    return leaderboard(tidy(records), ddof).set_index("backbone")


def _two_settings(make_record: Make) -> list[Record]:
    linear = {"a": 0.6, "b": 0.9, "c": 0.6}
    knn = {"a": 0.8, "b": 0.5, "c": 0.2}
    return [make_record(name, score) for name, score in linear.items()] + [
        make_record(name, score, protocol="knn") for name, score in knn.items()
    ]


class TestByHand:
    def test_scores_z_and_ranks(self, make_record: Make) -> None:
        table = _table(_two_settings(make_record))
        # linear: mean 0.7, deviations -0.1, 0.2, -0.1, sum of squares 0.06, over n - 1 = 2: 0.03. knn: mean 0.5,
        # deviations 0.3, 0, -0.3, variance 0.09.
        z_linear = {"a": -0.1 / 0.03**0.5, "b": 0.2 / 0.03**0.5, "c": -0.1 / 0.03**0.5}
        z_knn = {"a": 1.0, "b": 0.0, "c": -1.0}
        assert table["t/linear z"].to_dict() == pytest.approx(z_linear)
        assert table["t/knn z"].to_dict() == pytest.approx(z_knn)
        assert table["mean_z"].to_dict() == pytest.approx({n: (z_linear[n] + z_knn[n]) / 2 for n in "abc"})
        # Ranks: linear b 1, a and c share 2.5; knn a 1, b 2, c 3.
        assert table["mean_rank"].to_dict() == {"a": 1.75, "b": 1.5, "c": 2.75}
        assert table["rank"].to_dict() == {"b": 1, "a": 2, "c": 3}
        assert list(table.index) == ["b", "a", "c"]
        assert table["t/knn"].to_dict() == {"a": 0.8, "b": 0.5, "c": 0.2}
        assert table["t/knn low"].to_dict() == pytest.approx({"a": 0.7, "b": 0.4, "c": 0.1})
        assert table["t/knn high"].to_dict() == pytest.approx({"a": 0.9, "b": 0.6, "c": 0.3})
        assert (table["settings"] == 2).all()

    def test_ddof(self, make_record: Make) -> None:
        table = _table(_two_settings(make_record), ddof=0)
        assert table["t/knn z"].to_dict() == pytest.approx({"a": 1.5**0.5, "b": 0, "c": -(1.5**0.5)})

    def test_lower_is_better(self, make_record: Make) -> None:
        table = _table(
            [make_record(n, s, metric="nll", higher_is_better=False) for n, s in (("a", 2.0), ("b", 1.0), ("c", 3.0))]
        )
        assert table["rank"].to_dict() == {"b": 1, "a": 2, "c": 3}
        assert table["t/linear z"].to_dict() == pytest.approx({"b": 1, "a": 0, "c": -1})

    def test_both_directions_in_one_table(self, make_record: Make) -> None:
        records = [make_record("a", 0.9), make_record("b", 0.1)]
        records += [
            make_record(name, score, protocol="knn", metric="nll", higher_is_better=False)
            for name, score in (("a", 0.1), ("b", 5.0))
        ]
        table = _table(records)
        assert table["rank"].to_dict() == {"a": 1, "b": 2}
        assert table["mean_z"].to_dict() == pytest.approx({"a": 0.5**0.5, "b": -(0.5**0.5)})

    def test_seeds_are_averaged(self, make_record: Make) -> None:
        records = [make_record("a", score, seed=seed) for seed, score in enumerate((0.2, 0.6, 0.7))]
        table = _table([*records, make_record("b", 0.6)])
        assert table["t/linear"].to_dict() == pytest.approx({"a": 0.5, "b": 0.6})
        assert table["t/linear seeds"].to_dict() == {"a": 3, "b": 1}
        assert table["rank"].to_dict() == {"b": 1, "a": 2}
        scores = np.array([0.2, 0.6, 0.7])
        low, _ = over_seeds(scores, scores - 0.1, scores + 0.1)
        assert low < 0 and table["t/linear low"].to_dict() == pytest.approx({"a": 0.0, "b": 0.5})
        assert table["t/linear high"].to_dict() == pytest.approx({"a": 1.0, "b": 0.7})
        shown = compact(table.reset_index()).set_index("backbone")
        assert shown["t/linear seeds"].to_dict() == {"a": "3", "b": "1"}
        assert settings_of(table) == ["t/linear"]

    def test_seeds_widen_the_interval(self, make_record: Make) -> None:
        records = [make_record("a", score, seed=seed) for seed, score in enumerate((0.48, 0.5, 0.52))]
        table = _table([*records, make_record("b", 0.5)])
        widths = table["t/linear high"] - table["t/linear low"]
        assert 0.2 < widths["a"] < 0.25 and widths["b"] == pytest.approx(0.2)

    def test_one_seed_has_no_column_of_seeds(self, make_record: Make) -> None:
        assert "t/linear seeds" not in _table([make_record("a", 0.5), make_record("b", 0.6)])

    def test_a_metric_without_a_largest_value_is_not_cut(self, make_record: Make) -> None:
        scores = {"nll": (0.2, 2.6, 1.7)}
        records = [
            make_record("a", score, seed=seed, metric="nll", higher_is_better=False)
            for seed, score in enumerate(scores["nll"])
        ]
        row = _table(records).loc["a"]
        assert row["t/linear high"] > 2.6 and row["t/linear low"] == 0

    def test_ties_share_a_rank_and_stand_by_name(self, make_record: Make) -> None:
        table = _table([make_record(name, score) for name, score in (("d", 0.5), ("b", 0.5), ("c", 0.9), ("a", 0.1))])
        assert list(table.index) == ["c", "b", "d", "a"]
        assert list(table["rank"]) == [1, 2.5, 2.5, 4]

    @pytest.mark.parametrize("ddof", [0, 1])
    def test_one_backbone(self, make_record: Make, ddof: int) -> None:
        row = _table([make_record("a", 0.5)], ddof).loc["a"]
        assert (row["rank"], row["mean_z"], row["mean_rank"]) == (1, 0, 1)

    @pytest.mark.parametrize("ddof", [0, 1])
    def test_equal_scores(self, make_record: Make, ddof: int) -> None:
        table = _table([make_record(name, 0.1 + 0.2) for name in "abc"], ddof)
        assert (table["mean_z"] == 0).all() and (table["rank"] == 2).all()


class TestMissingCells:
    @pytest.fixture
    def table(self, make_record: Make) -> pd.DataFrame:
        best_but_incomplete = make_record("best", 0.99)
        return leaderboard(tidy([*_two_settings(make_record), best_but_incomplete]))

    def test_stay_empty_and_cost_the_rank(self, table: pd.DataFrame) -> None:
        row = table.set_index("backbone").loc["best"]
        assert row[["t/knn", "t/knn low", "t/knn high", "t/knn z", "mean_z", "mean_rank", "rank"]].isna().all()
        assert row["settings"] == 1 and row["t/linear"] == 0.99
        assert list(table["backbone"]) == ["b", "a", "c", "best"]
        assert list(table["rank"].dropna()) == [1, 2, 3]

    def test_are_shown_as_not_run(self, table: pd.DataFrame) -> None:
        shown = compact(table).set_index("backbone")
        assert shown.loc["best", "t/knn"] == "not run"
        assert list(shown.loc["best", ["rank", "mean z", "mean rank"]]) == ["", "", ""]

    def test_are_empty_in_the_file(self, table: pd.DataFrame, tmp_path: Path) -> None:
        write_table(table, tmp_path / "t.csv")
        line = next(line for line in (tmp_path / "t.csv").read_text().splitlines() if "best" in line)
        assert line.startswith(",best,baseline,,,,,0.99,")


class TestWhatCounts:
    def test_newest_of_two_runs_of_one_name(self, make_record: Make) -> None:
        old = make_record("a", 0.9, weights="old", created="2026-01-01T00:00:00.000+00:00")
        new = make_record("a", 0.4, weights="new", created="2026-01-01T00:00:00.001+00:00")
        for records in ([old, new], [new, old]):
            runs = tidy(records)
            assert list(runs["score"]) == [0.4]
            assert list(comparable(runs)["score"]) == [0.4]

    def test_a_row_has_one_set_of_weights(self, make_record: Make) -> None:
        records = [
            make_record("a", 0.9, protocol="knn", weights="old", created="2026-01-01"),
            make_record("a", 0.4, protocol="linear", weights="new", created="2026-01-02"),
            make_record("b", 0.5, protocol="knn", created="2026-01-03"),
            make_record("b", 0.5, protocol="linear", created="2026-01-03"),
        ]
        runs = tidy(records)
        kept = comparable(runs)
        assert (len(runs), len(kept)) == (4, 3)
        table = leaderboard(kept).set_index("backbone")
        assert np.isnan(table.loc["a", "t/knn"]) and table.loc["a", "t/linear"] == 0.4

    def test_zero_shot_runs_share_a_row_with_the_others(self, make_record: Make) -> None:
        zero_shot = make_record("a", 0.6, protocol="zero_shot", created="2026-01-02")
        identity = {**zero_shot.request.backbone_identity, "text": {"prompts": "p"}}
        request = zero_shot.request.model_copy(update={"backbone_identity": identity})
        records = [make_record("a", 0.5, created="2026-01-01"), zero_shot.model_copy(update={"request": request})]
        assert list(comparable(tidy(records))["protocol"]) == ["linear", "zero_shot"]

    def test_a_column_has_one_set_of_images(self, make_record: Make) -> None:
        records = [
            make_record("a", 0.9, data="old", created="2026-01-01"),
            make_record("b", 0.5, data="new", created="2026-01-02"),
            make_record("a", 0.9, data="old", protocol="knn", created="2026-01-01"),
            make_record("b", 0.5, data="old", protocol="knn", created="2026-01-01"),
        ]
        table = leaderboard(comparable(tidy(records))).set_index("backbone")
        assert np.isnan(table.loc["a", "t/linear"]) and table.loc["b", "t/linear"] == 0.5
        assert table["t/knn"].to_dict() == {"a": 0.9, "b": 0.5}

    def test_a_column_has_one_metric(self, make_record: Make) -> None:
        records = [
            make_record("a", 0.9, created="2026-01-01"),
            make_record("b", 2.5, metric="nll", higher_is_better=False, created="2026-01-02"),
        ]
        assert list(comparable(tidy(records))["backbone"]) == ["b"]

    def test_select(self, make_record: Make) -> None:
        records = [make_record(n, protocol=p, task=t) for n in ("a1", "a2", "b[1]") for p in "xy" for t in ("t", "u")]
        assert {r.request.backbone for r in select(records, ["a*"], [], [])} == {"a1", "a2"}
        assert {r.request.backbone for r in select(records, ["b[1]", "a2"], [], [])} == {"b[1]", "a2"}
        assert len(select(records, ["a1"], ["t"], ["x"])) == 1
        assert len(select(records, [], [], [])) == len(records)
        with pytest.raises(UserError, match="No record matches"):
            select(records, ["zzz"], [], [])


class TestLayerwise:
    PROTOCOLS = ("knn", "knn@5shot", "knn@block0", "knn@block11", "knn@patches9", "knn@5shot@block3")

    @pytest.mark.parametrize(
        ("patterns", "kept"),
        [
            ([], [0, 1, 4]),
            (["knn*"], [0, 1, 4]),
            (["knn@5shot"], [1]),
            (["knn@block11"], [3]),
            (["knn@block*"], [2, 3]),
            (["*@*"], [1, 2, 3, 4, 5]),
            (["knn", "*@block3"], [0, 5]),
        ],
    )
    def test_are_kept_where_they_are_named(self, make_record: Make, patterns: list[str], kept: list[int]) -> None:
        records = [make_record(protocol=name) for name in self.PROTOCOLS]
        found = [record.request.protocol["name"] for record in select(records, [], [], patterns)]
        assert found == [self.PROTOCOLS[place] for place in kept]

    def test_alone_they_do_not_make_a_table(self, make_record: Make) -> None:
        with pytest.raises(UserError, match=r"No record matches.*`bob depth`"):
            select([make_record(protocol="knn@block3")], [], [], [])

    def test_protocols_with_modifiers_are_columns(self, make_record: Make) -> None:
        records = [make_record(b, protocol=p) for b in "ab" for p in ("knn@10%", "knn@patches9")]
        assert settings_of(leaderboard(tidy(records))) == ["t/knn@10%", "t/knn@patches9"]


class TestFiles:
    def test_columns(self, make_record: Make) -> None:
        table = leaderboard(tidy(_two_settings(make_record)))
        parts = [f"t/{p}{part}" for p in ("knn", "linear") for part in ("", " low", " high", " z")]
        last = ["mean_z", "mean_rank", "settings", "parameters", *MEASURED]
        assert list(table.columns) == ["rank", "backbone", "paradigm", *parts, *last]
        assert settings_of(table) == ["t/knn", "t/linear"]

    def test_csv(self, make_record: Make, tmp_path: Path) -> None:
        table = leaderboard(tidy([make_record("a", 1 / 3, images_per_second=12.3456789), make_record("b", 0.25)]))
        write_table(table, tmp_path / "new" / "t.csv")
        text = (tmp_path / "new" / "t.csv").read_text()
        assert "0.333333" in text and "12.3457" in text
        back = pd.read_csv(tmp_path / "new" / "t.csv")
        pd.testing.assert_frame_equal(back, table, check_dtype=False, rtol=1e-5)
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.csv"]

    def test_markdown(self, make_record: Make, tmp_path: Path) -> None:
        table = leaderboard(tidy([make_record("a|x", 0.5, task="folder:/ö"), make_record("b", 0.25, task="folder:/ö")]))
        write_table(table, tmp_path / "t.md")
        lines = (tmp_path / "t.md").read_text(encoding="utf-8").splitlines()
        assert lines[0] == "| rank | backbone | folder:/ö/linear | mean z | mean rank | params (M) | images/s |"
        assert lines[1] == "|" + " --- |" * 7
        assert lines[2] == "| 1 | a\\|x | 0.500 [0.400, 0.600] | +0.71 | 1.00 | 1.00 | 10.0 |"
        assert to_markdown(table).splitlines() == lines

    @pytest.mark.parametrize("name", ["t.xlsx", "t", "csv"])
    def test_other_suffix(self, make_record: Make, tmp_path: Path, name: str) -> None:
        with pytest.raises(UserError, match=r"Cannot tell the format of .*Give a name that ends in \.csv or \.md"):
            write_table(leaderboard(tidy([make_record()])), tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_the_table_does_not_depend_on_the_order_of_records(self, make_record: Make) -> None:
        records = _two_settings(make_record)
        pd.testing.assert_frame_equal(leaderboard(tidy(records)), leaderboard(tidy(records[::-1])))
