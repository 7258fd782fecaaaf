"""The frame of runs: which of them count, which may stand in one table, and what the filters keep."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.results.record import Record
from bob.results.runs import SCHEMA, comparable, select, summary, tidy
from bob.results.statistics import over_seeds

Make = Callable[..., Record]


class TestRows:
    def test_what_a_record_says(self, make_record: Make) -> None:
        card = {"architecture": "ViT-B/16", "paradigm": "ssl", "pretraining_images": 7, "licence": "MIT"}
        environment = {"device": "NVIDIA H200", "bob": "1.2", "packages": {"torch": "2.6"}}
        draws = np.linspace(0, 1, 500)
        record = make_record("a", 0.7, category="ood", draws=draws, card=card, environment=environment, flops=11)
        [run] = tidy([record]).to_dict("records")
        assert list(run) == SCHEMA.names
        said = {"backbone": "a", "paradigm": "ssl", "architecture": "ViT-B/16", "pretraining_images": 7}
        said |= {"category": "ood", "task": "t", "protocol": "linear", "seed": 0, "metric": "top1", "score": 0.7}
        said |= {"n": 9, "flops": 11, "device": "NVIDIA H200", "bob": "1.2", "run_id": record.run_id}
        assert {key: run[key] for key in said} == said
        assert json.loads(run["environment"]) == environment
        np.testing.assert_array_equal(np.frombuffer(run["resampled"], "<f4"), draws.astype(np.float32))

    def test_command_of_an_older_record(self, make_record: Make) -> None:
        [run] = tidy([make_record("my model.py:make", protocol="knn@5shot", seed=3)]).to_dict("records")
        words = ["--backbone", "my model.py:make", "--task", "t", "--protocol", "knn@5shot", "--seed", "3"]
        assert shlex.split(run["command"]) == ["bob", "run", *words, "--precision", "float32"]

    def test_command_of_a_record_that_has_one(self, make_record: Make) -> None:
        record = make_record().model_copy(update={"command": "bob run -b a -t t --set epochs=3"})
        assert list(tidy([record])["command"]) == ["bob run -b a -t t --set epochs=3"]

    def test_unknown_facts_are_missing_not_zero(self, make_record: Make) -> None:
        [run] = tidy([make_record()]).to_dict("records")
        assert np.isnan(run["pretraining_images"]) and np.isnan(run["block"])
        assert (run["resampled"], run["architecture"], run["device"]) == (b"", "", "unknown")

    def test_damaged_resamples(self, make_record: Make) -> None:
        with pytest.raises(UserError, match="resampled scores of a record are damaged"):
            tidy([make_record().model_copy(update={"resampled": "abc"})])

    def test_no_records(self) -> None:
        assert list(tidy([]).columns) == SCHEMA.names


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
        assert list(kept.loc[kept["backbone"] == "a", "protocol"]) == ["linear"]

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
        kept = comparable(tidy(records)).groupby("protocol")["backbone"].apply(list).to_dict()
        assert kept == {"linear": ["b"], "knn": ["a", "b"]}

    def test_a_column_has_one_metric(self, make_record: Make) -> None:
        records = [
            make_record("a", 0.9, created="2026-01-01"),
            make_record("b", 2.5, metric="nll", higher_is_better=False, created="2026-01-02"),
        ]
        assert list(comparable(tidy(records))["backbone"]) == ["b"]


class TestSelect:
    def test_by_names_and_globs(self, make_record: Make) -> None:
        names = ("a1", "a2", "b[1]")
        runs = tidy([make_record(n, protocol=p, task=t) for n in names for p in "xy" for t in ("t", "u")])
        assert set(select(runs, ["a*"], [], [])["backbone"]) == {"a1", "a2"}
        assert set(select(runs, ["b[1]", "a2"], [], [])["backbone"]) == {"b[1]", "a2"}
        assert len(select(runs, ["a1"], ["t"], ["x"])) == 1
        pd.testing.assert_frame_equal(select(runs, [], [], []), runs)
        with pytest.raises(UserError, match="No record matches"):
            select(runs, ["zzz"], [], [])

    PROTOCOLS = ("knn", "knn@5shot", "knn@5shot@block3", "knn@block0", "knn@block11", "knn@patches9")

    @pytest.mark.parametrize(
        ("patterns", "kept"),
        [
            ([], [0, 1, 5]),
            (["knn*"], [0, 1, 5]),
            (["knn@5shot"], [1]),
            (["knn@block11"], [4]),
            (["knn@block*"], [3, 4]),
            (["*@*"], [1, 2, 3, 4, 5]),
            (["knn", "*@block3"], [0, 2]),
        ],
    )
    def test_layerwise_runs_are_kept_where_they_are_named(
        self, make_record: Make, patterns: list[str], kept: list[int]
    ) -> None:
        runs = tidy([make_record(protocol=name) for name in self.PROTOCOLS])
        assert list(select(runs, [], [], patterns)["protocol"]) == [self.PROTOCOLS[place] for place in kept]

    def test_layerwise_runs_alone_do_not_make_a_table(self, make_record: Make) -> None:
        with pytest.raises(UserError, match=r"No record matches.*`bob depth`"):
            select(tidy([make_record(protocol="knn@block3")]), [], [], [])


class TestSummary:
    def test_of_seeds(self, make_record: Make) -> None:
        scores = np.array([0.2, 0.4, 0.6])
        runs = tidy([make_record(score=score, seed=seed) for seed, score in enumerate(scores)])
        low, high = over_seeds(scores, scores - 0.1, scores + 0.1)
        found = summary(runs)
        assert found["score"] == pytest.approx(0.4) and found["seeds"] == 3
        assert (found["low"], found["high"]) == (max(low, 0), min(high, 1))

    def test_a_metric_without_a_largest_value_is_not_cut(self, make_record: Make) -> None:
        runs = tidy(
            [make_record(score=s, seed=n, metric="nll", higher_is_better=False) for n, s in enumerate([0.5, 2.5])]
        )
        assert float(str(summary(runs)["high"])) > 1
