"""Whether a backbone beats another: as a slow paired bootstrap has it, over seeds and settings, in plain words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bob.errors import UserError
from bob.results.paired import holm, mcnemar
from bob.results.predictions import Predictions
from bob.results.record import PREDICTIONS_FILE, RUNS, Record
from bob.results.runs import comparable, tidy
from bob.standings.versus import COLUMNS, TIE, verdict, versus

Make = Callable[..., Record]
SIZE = 200


def _predictions(right: np.ndarray, confidence: float = 0.9, first: int = 0) -> Predictions:
    """Right or wrong, and as sure either way."""
    table = np.where(right[:, None], [confidence, 1 - confidence], [1 - confidence, confidence])
    names = [f"i{i + first}" for i in range(len(right))]
    return Predictions.from_probabilities(names, np.zeros(len(right), dtype=int), table, ["yes", "no"])


def _share(share: float, seed: int, size: int = SIZE) -> np.ndarray:
    """Right about that share; hard samples are hard for all."""
    rng = np.random.default_rng(seed)
    hard, own = np.random.default_rng(99).normal(size=size), rng.normal(size=size)
    return np.sqrt(0.8) * hard + np.sqrt(0.2) * own < stats.norm.ppf(share)


class _Folder:
    """A folder of records, and the frame of its runs."""

    def __init__(self, path: Path, make: Make) -> None:
        self.path, self._make, self._records = path, make, list[Record]()

    def add(self, backbone: str, predictions: Predictions, **said: object) -> Record:
        record = self._make(backbone, **said)
        record.write(self.path, predictions)
        self._records.append(record)
        return record

    def versus(self, a: str = "old", b: str = "new") -> pd.DataFrame:
        return versus(comparable(tidy(self._records)), self.path, a, b)


@pytest.fixture
def folder(tmp_path: Path, make_record: Make) -> _Folder:
    return _Folder(tmp_path / "results", make_record)


@pytest.fixture
def three(folder: _Folder) -> _Folder:
    """Three settings: much better, much worse, alike."""
    for task, old, new in (("up", 0.5, 0.8), ("down", 0.8, 0.5), ("same", 0.7, 0.7)):
        folder.add("old", _predictions(_share(old, 1)), task=task)
        folder.add("new", _predictions(_share(new, 2)), task=task)
    return folder


class TestOneSetting:
    def test_equals_the_slow_way(self, folder: _Folder) -> None:
        a, b = _share(0.7, 1), _share(0.8, 2)
        folder.add("old", _predictions(a), task="t")
        folder.add("new", _predictions(b), task="t")
        [row] = folder.versus().to_dict("records")
        change = b.astype(float) - a
        rng = np.random.default_rng(1)
        slow = np.array([change[rng.integers(SIZE, size=SIZE)].mean() for _ in range(4000)])
        assert (row["setting"], row["metric"], row["category"]) == ("t/linear", "top1", "classification")
        assert (row["n"], row["seeds"]) == (SIZE, 1)
        assert (row["a"], row["b"]) == pytest.approx((a.mean(), b.mean()))
        assert row["difference"] == pytest.approx(change.mean())
        assert (row["low"], row["high"]) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.01)
        assert row["p_value"] == pytest.approx(2 * (slow <= 0).mean(), abs=0.005)
        assert row["p_mcnemar"] == mcnemar(a, b).p_value
        assert row["p_holm"] == row["p_value"] < 0.05
        assert row["better"] == "new"

    def test_the_other_way_round(self, three: _Folder) -> None:
        forth, back = three.versus(), three.versus("new", "old")
        np.testing.assert_allclose(forth[["difference", "low", "high"]], -back[["difference", "high", "low"]])
        for column in ("p_value", "p_mcnemar", "p_holm", "better"):
            assert forth[column].equals(back[column])

    def test_alike_to_the_last_sample(self, folder: _Folder) -> None:
        for name in ("old", "new"):
            folder.add(name, _predictions(_share(0.7, 1)))
        [row] = folder.versus().to_dict("records")
        assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
        assert (row["p_value"], row["p_mcnemar"], row["better"]) == (1, 1, TIE)

    def test_less_is_better(self, folder: _Folder) -> None:
        """Both are right about the same; the one that is too sure has the higher loss."""
        right = _share(0.7, 1)
        for name, confidence in (("old", 0.7), ("new", 0.999)):
            folder.add(name, _predictions(right, confidence), metric="nll", higher_is_better=False)
        [row] = folder.versus().to_dict("records")
        assert row["difference"] > 0 and row["low"] > 0
        assert row["better"] == "old"
        assert np.isnan(row["p_mcnemar"])


class TestSeeds:
    def test_equal_seeds_are_one(self, folder: _Folder) -> None:
        for seed in (0, 1, 2):
            folder.add("old", _predictions(_share(0.7, 1)), seed=seed)
            folder.add("new", _predictions(_share(0.8, 2)), seed=seed)
        three = folder.versus()
        one = _Folder(folder.path, folder._make)
        one.add("old", _predictions(_share(0.7, 1)), protocol="knn")
        one.add("new", _predictions(_share(0.8, 2)), protocol="knn")
        numbers = ["n", "a", "b", "difference", "low", "high", "p_value", "p_mcnemar", "p_holm"]
        np.testing.assert_allclose(three[numbers].astype(float), one.versus()[numbers].astype(float))
        assert three["seeds"].tolist() == [3]

    def test_those_in_common_are_averaged(self, folder: _Folder) -> None:
        right = {(name, seed): _share(share, 10 * seed + k) for seed in range(4) for name, share, k in _TWO}
        for (name, seed), own in right.items():
            if (name, seed) not in (("old", 0), ("new", 3)):
                folder.add(name, _predictions(own), seed=seed)
        [row] = folder.versus().to_dict("records")
        change = [right["new", seed].mean() - right["old", seed].mean() for seed in (1, 2)]
        assert row["seeds"] == 2
        assert row["difference"] == pytest.approx(np.mean(change))
        assert row["p_mcnemar"] == mcnemar(right["old", 1], right["new", 1]).p_value

    def test_that_disagree_widen_the_interval(self, folder: _Folder) -> None:
        for seed, share in enumerate((0.6, 0.75, 0.9)):
            folder.add("old", _predictions(_share(0.7, 1)), seed=seed, task="unsteady")
            folder.add("new", _predictions(_share(share, 2)), seed=seed, task="unsteady")
            folder.add("old", _predictions(_share(0.7, 1)), seed=seed, task="steady")
            folder.add("new", _predictions(_share(0.75, 2)), seed=seed, task="steady")
        steady, unsteady = folder.versus().to_dict("records")
        assert unsteady["high"] - unsteady["low"] > 2 * (steady["high"] - steady["low"])
        assert -1 <= unsteady["low"] < 0 < unsteady["high"] <= 1
        assert unsteady["better"] == TIE


_TWO = (("old", 0.6, 1), ("new", 0.8, 2))


class TestSettings:
    def test_a_row_each(self, three: _Folder) -> None:
        table = three.versus()
        assert tuple(table.columns) == COLUMNS
        assert table["setting"].tolist() == ["down/linear", "same/linear", "up/linear"]
        assert table["better"].tolist() == ["old", TIE, "new"]
        np.testing.assert_array_equal(table["p_holm"], holm(table["p_value"]))
        assert (table["p_holm"] >= table["p_value"]).all()

    def test_what_one_alone_was_run_on_is_left_out(self, three: _Folder) -> None:
        three.add("old", _predictions(_share(0.5, 1)), task="extra")
        three.add("other", _predictions(_share(0.5, 1)), task="up")
        assert len(three.versus()) == 3

    def test_many_settings_have_resamples_enough_to_be_sure(self, folder: _Folder) -> None:
        """Of 2,000 resamples, none beyond 0 would leave an adjusted p-value of 0.05 with 51 settings."""
        for number in range(51):
            for name, share in (("old", 0.2), ("new", 0.9)):
                folder.add(name, _predictions(_share(share, 1, 50)), task=f"t{number}")
        assert (folder.versus()["better"] == "new").all()


class TestVerdict:
    def test_it_depends(self, three: _Folder) -> None:
        lines = verdict(three.versus(), "old", "new")
        assert lines[0] == "new is better than old in 1 of 3 settings, worse in 1, undecided in 1."
        assert lines[1] == "So it depends: new is better in up/linear; old in down/linear."
        expected = "no difference called better or worse is chance (paired bootstrap, adjusted for 3 settings by Holm)"
        assert lines[2] == f"With 95% confidence, {expected}."
        assert len(lines) == 3

    def test_one_wins(self, three: _Folder) -> None:
        table = three.versus().iloc[1:]
        assert verdict(table, "old", "new")[1] == "So new beats old where they differ: up/linear."
        lines = verdict(three.versus().iloc[:2], "old", "new")
        assert lines[0] == "new is better than old in 0 of 2 settings, worse in 1, undecided in 1."
        assert lines[1] == "So old beats new where they differ: down/linear."

    def test_nobody_wins(self, three: _Folder) -> None:
        lines = verdict(three.versus().iloc[[1]], "old", "new")
        assert lines[0] == "new is better than old in 0 of 1 setting, worse in 0, undecided in 1."
        assert lines[1] == "So neither is known to be better; that does not show that they are equal."
        assert lines[2] == "With 95% confidence, nothing is told apart (paired bootstrap)."

    def test_says_what_a_reader_may_stumble_over(self, three: _Folder) -> None:
        table = three.versus()
        table.loc[1, ["low", "high", "p_value", "p_holm"]] = [0.001, 0.02, 0.04, 0.12]
        table.loc[0, "p_mcnemar"] = 0.2
        table.loc[2, "seeds"] = 3
        lines = verdict(table, "old", "new")[3:]
        assert lines == [
            "1 setting undecided although its interval is without 0: of 3 settings, some are so by chance.",
            "down/linear: too few samples differ for the exact test (McNemar) to be sure.",
            "McNemar's p is of the lowest seed alone; the rest is about the mean over seeds.",
        ]


class TestMistakes:
    def test_unknown_backbone(self, three: _Folder) -> None:
        with pytest.raises(UserError, match=r"^There is no run of neww\. Did you mean: new\?$"):
            three.versus("old", "neww")
        with pytest.raises(UserError, match=r"^There is no run of resnet50\. Make one: `bob run -b resnet50 "):
            three.versus("resnet50", "new")

    def test_twice_the_same(self, three: _Folder) -> None:
        with pytest.raises(UserError, match="Expected two backbones, but got new twice"):
            three.versus("new", "new")

    @pytest.mark.parametrize("said", [{"task": "other"}, {"protocol": "knn"}, {"seed": 1}, {"data": "moved"}])
    def test_no_shared_setting(self, folder: _Folder, said: dict[str, object]) -> None:
        folder.add("old", _predictions(_share(0.7, 1)))
        folder.add("new", _predictions(_share(0.7, 2)), **said)
        with pytest.raises(UserError, match="on the same task, data, protocol version and seed"):
            versus(tidy(folder._records), folder.path, "old", "new")

    def test_missing_predictions(self, three: _Folder) -> None:
        record = next(each for each in three._records if each.request.task == "same")
        path = three.path / RUNS / record.request.folder_name() / PREDICTIONS_FILE
        path.unlink()
        with pytest.raises(UserError, match=f"^Expected a file of predictions at {path}, but got none"):
            three.versus()

    def test_other_samples(self, folder: _Folder) -> None:
        folder.add("old", _predictions(_share(0.7, 1)))
        folder.add("new", _predictions(_share(0.7, 2), first=1))
        with pytest.raises(UserError, match="old and new were not tested on the same samples: sample 0 of old is i0"):
            folder.versus()

    def test_other_samples_with_another_seed(self, folder: _Folder) -> None:
        for seed in (0, 4):
            for name in ("old", "new"):
                folder.add(name, _predictions(_share(0.7, 1), first=seed), seed=seed)
        with pytest.raises(UserError, match="old with seed 0 and old with seed 4 were not tested on the same samples"):
            folder.versus()
