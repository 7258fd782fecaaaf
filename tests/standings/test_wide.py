"""The wide table: scores, z and ranks as worked by hand, no cell filled in, costs and who is on the front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bob.results.record import Record
from bob.results.runs import comparable, tidy
from bob.results.statistics import over_seeds
from bob.standings.aggregate import BY, without_gaps
from bob.standings.cells import cells_of
from bob.standings.grid import Grid
from bob.standings.standings import standings
from bob.standings.wide import COSTS, MEASURED, facts_of, settings_of, wide_table, with_pareto

Make = Callable[..., Record]


def make_table(records: list[Record], by: str = "mean_z", ddof: int = 1, missing: str = "show") -> pd.DataFrame:
    runs = comparable(tidy(records))
    cells = cells_of(runs)
    grid = without_gaps(Grid.of(cells), missing)
    return wide_table(cells.table, grid, standings(grid, by, "settings", ddof), facts_of(runs), ddof)


def _table(records: list[Record], **options: Any) -> pd.DataFrame:
    return make_table(records, **options).set_index("backbone")


def two_settings(make_record: Make) -> list[Record]:
    linear = {"a": 0.6, "b": 0.9, "c": 0.6}
    knn = {"a": 0.8, "b": 0.5, "c": 0.2}
    return [make_record(name, score) for name, score in linear.items()] + [
        make_record(name, score, protocol="knn") for name, score in knn.items()
    ]


# linear: mean 0.7, deviations -0.1, 0.2, -0.1, sum of squares 0.06, over n - 1 = 2: 0.03. knn: mean 0.5,
# deviations 0.3, 0, -0.3, variance 0.09.
Z_LINEAR = {"a": -0.1 / 0.03**0.5, "b": 0.2 / 0.03**0.5, "c": -0.1 / 0.03**0.5}
Z_KNN = {"a": 1.0, "b": 0.0, "c": -1.0}


class TestByHand:
    def test_scores_and_z(self, make_record: Make) -> None:
        table = _table(two_settings(make_record))
        assert table["t/linear z"].to_dict() == pytest.approx(Z_LINEAR)
        assert table["t/knn z"].to_dict() == pytest.approx(Z_KNN)
        mean = {name: (Z_LINEAR[name] + Z_KNN[name]) / 2 for name in "abc"}
        assert table["mean_z"].to_dict() == pytest.approx(mean)
        assert (table["mean_z_low"] <= table["mean_z"]).all() and (table["mean_z"] <= table["mean_z_high"]).all()
        assert table["t/knn"].to_dict() == {"a": 0.8, "b": 0.5, "c": 0.2}
        assert table["t/knn low"].to_dict() == pytest.approx({"a": 0.7, "b": 0.4, "c": 0.1})
        assert table["t/knn high"].to_dict() == pytest.approx({"a": 0.9, "b": 0.6, "c": 0.3})
        assert (table["settings"] == 2).all()

    def test_places(self, make_record: Make) -> None:
        table = _table(two_settings(make_record))
        # Ranks: linear b 1, a and c share 2.5; knn a 1, b 2, c 3.
        assert table["mean_rank"].to_dict() == {"a": 1.75, "b": 1.5, "c": 2.75}
        assert table["borda"].to_dict() == {"a": 1.25, "b": 1.5, "c": 0.25}
        assert table["win_rate"].to_dict() == {"a": 0.625, "b": 0.75, "c": 0.125}
        assert table["rank"].to_dict() == {"b": 1, "a": 2, "c": 3}
        assert list(table.index) == ["b", "a", "c"]

    def test_what_ranks(self, make_record: Make) -> None:
        # c is far ahead once and just behind twice: z 1.15, 0.57, 0.57 of a's -0.57, 0.59, 0.59; but a is first twice.
        scores = {"a": (0.51, 0.62, 0.62), "b": (0.50, 0.10, 0.10), "c": (0.90, 0.61, 0.61)}
        records = [
            make_record(name, score, protocol=protocol)
            for name, own in scores.items()
            for protocol, score in zip(("x", "y", "z"), own, strict=True)
        ]
        leaders = {by: make_table(records, by=by)["backbone"].iloc[0] for by in BY}
        assert leaders == {"mean_z": "c", "mean_rank": "a", "borda": "a", "win_rate": "a"}

    def test_ddof(self, make_record: Make) -> None:
        table = _table(two_settings(make_record), ddof=0)
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
        assert settings_of(table) == ["t/linear"]

    def test_one_seed_has_no_column_of_seeds(self, make_record: Make) -> None:
        assert "t/linear seeds" not in _table([make_record("a", 0.5), make_record("b", 0.6)])

    def test_ties_share_a_rank_and_stand_by_name(self, make_record: Make) -> None:
        table = _table([make_record(name, score) for name, score in (("d", 0.5), ("b", 0.5), ("c", 0.9), ("a", 0.1))])
        assert list(table.index) == ["c", "b", "d", "a"]
        assert list(table["rank"]) == [1, 2.5, 2.5, 4]

    @pytest.mark.parametrize("ddof", [0, 1])
    def test_one_backbone(self, make_record: Make, ddof: int) -> None:
        row = _table([make_record("a", 0.5)], ddof=ddof).loc["a"]
        assert (row["rank"], row["mean_z"], row["mean_rank"]) == (1, 0, 1)

    @pytest.mark.parametrize("ddof", [0, 1])
    def test_equal_scores(self, make_record: Make, ddof: int) -> None:
        table = _table([make_record(name, 0.1 + 0.2) for name in "abc"], ddof=ddof)
        assert (table["mean_z"] == 0).all() and (table["rank"] == 2).all()


class TestMissingCells:
    @pytest.fixture
    def records(self, make_record: Make) -> list[Record]:
        return [*two_settings(make_record), make_record("best", 0.99)]

    def test_stay_empty_and_cost_the_rank(self, records: list[Record]) -> None:
        table = make_table(records)
        row = table.set_index("backbone").loc["best"]
        assert row[["t/knn", "t/knn low", "t/knn high", "t/knn z", "mean_z", "mean_rank", "rank"]].isna().all()
        assert row["settings"] == 1 and row["t/linear"] == 0.99
        assert list(table["backbone"]) == ["b", "a", "c", "best"]
        assert list(table["rank"].dropna()) == [1, 2, 3]

    def test_common(self, records: list[Record]) -> None:
        table = make_table(records, missing="common")
        assert settings_of(table) == ["t/linear"] and table["backbone"].iloc[0] == "best"
        assert (table["settings"] == 1).all() and not any(name.startswith("t/knn") for name in table)

    def test_drop(self, records: list[Record]) -> None:
        table = make_table(records, missing="drop")
        assert list(table["backbone"]) == ["b", "a", "c"]
        # z is among those that are left.
        pd.testing.assert_frame_equal(table, make_table(records[:-1]))


class TestColumns:
    def test_order(self, make_record: Make) -> None:
        table = make_table(two_settings(make_record))
        first = ["rank", "rank_low", "rank_high", "group", "backbone", "paradigm"]
        parts = [f"t/{p}{part}" for p in ("knn", "linear") for part in ("", " low", " high", " z")]
        overall = ["mean_z", "mean_z_low", "mean_z_high", "mean_rank", "borda", "win_rate", "settings"]
        assert list(table.columns) == [*first, *parts, *overall, "parameters", "flops", *MEASURED]
        assert list(table.columns[-len(MEASURED) :]) == list(MEASURED) and COSTS[-len(MEASURED) :] == MEASURED
        assert settings_of(table) == ["t/knn", "t/linear"]

    def test_do_not_depend_on_the_order_of_records(self, make_record: Make) -> None:
        records = two_settings(make_record)
        pd.testing.assert_frame_equal(make_table(records), make_table(records[::-1]))

    def test_protocols_with_modifiers(self, make_record: Make) -> None:
        records = [make_record(b, protocol=p) for b in "ab" for p in ("knn@10%", "knn@patches9")]
        assert settings_of(make_table(records)) == ["t/knn@10%", "t/knn@patches9"]


def _run(record: Record, device: str, seconds: float, memory: int = 1) -> Record:
    cost = record.cost.model_copy(update={"seconds": {"extract": seconds}, "peak_memory_bytes": memory})
    return record.model_copy(update={"cost": cost, "environment": {"device": device}})


class TestCosts:
    def test_by_hand(self, make_record: Make) -> None:
        records = [
            _run(make_record("a", images_per_second=10.0, created="2026-01-02"), "cpu", 1800, 5),
            _run(make_record("a", seed=1, images_per_second=30.0, created="2026-01-01"), "NVIDIA H200", 7200, 9),
            _run(make_record("a", protocol="knn", images_per_second=20.0, created="2026-01-01"), "mps", 3600, 7),
            _run(make_record("b", parameters=5, flops=3), "unknown", 3600),
        ]
        facts = facts_of(tidy(records))
        assert facts.loc["a", list(MEASURED)].to_dict() == {
            "images_per_second": 20.0,
            "peak_memory_bytes": 9,
            "gpu_hours": 3.0,
            "cpu_hours": 0.5,
        }
        assert facts.loc["a", ["parameters", "flops"]].tolist() == [1_000_000, 7]
        # A record that does not say its device counts on neither.
        assert facts.loc["b", ["parameters", "flops", "gpu_hours", "cpu_hours"]].tolist() == [5, 3, 0, 0]

    def test_newest_facts_count(self, make_record: Make) -> None:
        named = {"2026-01-01": "ViT", "2026-01-03": "ViT-B/16", "2026-01-02": "ViT"}
        records = [
            make_record("a", protocol=f"p{created}", created=created, card={"architecture": architecture})
            for created, architecture in named.items()
        ]
        assert facts_of(tidy(records))["architecture"].to_dict() == {"a": "ViT-B/16"}
        assert facts_of(tidy(records), ["t/p2026-01-02"])["architecture"].to_dict() == {"a": "ViT"}

    def test_front(self, make_record: Make) -> None:
        sizes = {"big": (0.9, 100), "small": (0.7, 10), "middle": (0.6, 50), "tiny": (0.1, 1)}
        records = [make_record(name, score, parameters=size) for name, (score, size) in sizes.items()]
        table = make_table(records)
        marked = with_pareto(table, "mean_z", "parameters")
        assert marked.set_index("backbone")["pareto"].to_dict() == {
            "big": True,
            "small": True,
            "middle": False,
            "tiny": True,
        }
        # Of ranks less is better; of rates more.
        by_rank = with_pareto(make_table(records, by="mean_rank"), "mean_rank", "parameters")
        assert list(by_rank["pareto"]) == list(marked["pareto"])
        rates = [make_record(n, s, images_per_second=float(r)) for n, (s, r) in sizes.items()]
        assert with_pareto(make_table(rates), "mean_z", "images_per_second")["pareto"].tolist() == [True] + 3 * [False]

    def test_who_has_no_rank_is_not_on_the_front(self, make_record: Make) -> None:
        table = make_table([*two_settings(make_record), make_record("best", 0.99, parameters=1)])
        assert with_pareto(table, "mean_z", "parameters").set_index("backbone")["pareto"].to_dict() == {
            "b": True,
            "a": False,
            "c": False,
            "best": False,
        }
