"""Rank intervals: by hand, as a plain reading of the paper has them, and as often right as they say."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from bob.standings.rank_intervals import rank_intervals, tied_groups

Arrays = tuple[np.ndarray, np.ndarray]


def _field(seed: int = 0, size: int = 12, resamples: int = 300) -> Arrays:
    """Values with joint draws: noise of their own, of different widths, and a part that all share."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=size)
    own, shared = rng.normal(size=(resamples, size)), rng.normal(size=(resamples, 1))
    return values, values + own * rng.uniform(0.05, 0.5, size=size) + shared


def _slowly(values: np.ndarray, draws: np.ndarray, confidence: float = 0.95) -> Arrays:
    """One pair after another, in float64."""
    size, low, high = len(values), [], []
    for j in range(size):
        others = [k for k in range(size) if k != j]
        found = {k: (values[k] - values[j], draws[:, k] - draws[:, j]) for k in others}
        deviation = {k: own.std(ddof=1) for k, (_, own) in found.items()}
        largest = np.max([np.abs(own - d) / deviation[k] for k, (d, own) in found.items()], axis=0)
        critical = np.quantile(largest, confidence)
        low.append(1 + sum(d > critical * deviation[k] for k, (d, _) in found.items()))
        high.append(size - sum(d < -critical * deviation[k] for k, (d, _) in found.items()))
    return np.array(low), np.array(high)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_equals_the_slow_way(seed: int, confidence: float) -> None:
    values, draws = _field(seed)
    found, expected = rank_intervals(values, draws, confidence), _slowly(values, draws, confidence)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found, rank_intervals(values, draws.astype(np.float32), confidence))
    assert 0 < (found[1] - found[0]).mean() < 10  # or the case would show nothing


def test_by_hand() -> None:
    """Draws of 1 apart: c against a and b is sure by far; a and b differ by 0.1 and vary by 1."""
    values, noise = np.array([1.0, 1.1, -9.0]), np.random.default_rng(0).normal(size=(200, 3))
    low, high = rank_intervals(values, values + noise)
    assert (low.tolist(), high.tolist()) == ([1, 1, 3], [2, 2, 3])
    assert tied_groups(values, values + noise).tolist() == [1, 1, 2]


def test_what_all_share_does_not_matter() -> None:
    values, noise = np.array([0.0, 0.1]), np.random.default_rng(0).normal(size=(500, 2))
    shared = 5 * np.random.default_rng(1).normal(size=(500, 1))
    assert rank_intervals(values, values + shared + 0.01 * noise)[1].tolist() == [2, 1]
    assert rank_intervals(values, values + shared + 0.2 * noise)[1].tolist() == [2, 2]


def test_more_confidence_more_ranks() -> None:
    values, draws = _field(size=30)
    width = [np.subtract(*rank_intervals(values, draws, each)[::-1]).sum() for each in (0.5, 0.9, 0.99)]
    assert width[0] < width[1] < width[2]


class TestNothingVaries:
    def test_equal_ones_are_tied(self) -> None:
        """Two names for one backbone, and one that is better in every resample by the same."""
        own = np.random.default_rng(0).normal(scale=0.1, size=100).astype(np.float32)
        values = np.array([0.7, 0.7, 0.8])
        draws = np.stack([own, own, own], axis=1) + values.astype(np.float32)
        low, high = rank_intervals(values, draws)
        assert (low.tolist(), high.tolist()) == ([2, 2, 1], [3, 3, 1])
        assert tied_groups(values, draws).tolist() == [2, 2, 1]

    def test_all_right_and_all_wrong(self) -> None:
        values = np.array([1.0, 0.3, 1.0])
        low, high = rank_intervals(values, np.tile(values, (50, 1)))
        assert (low.tolist(), high.tolist()) == ([1, 3, 1], [2, 3, 2])

    def test_some_vary_and_some_do_not(self) -> None:
        values = np.array([1.0, 0.5, 0.55, 1.0])
        draws = values + np.random.default_rng(0).normal(scale=0.1, size=(100, 4)) * [0, 1, 1, 0]
        low, high = rank_intervals(values, draws)
        assert (low.tolist(), high.tolist()) == ([1, 3, 3, 1], [2, 4, 4, 2])


class TestUnknown:
    def test_one_backbone(self) -> None:
        assert [each.tolist() for each in rank_intervals(np.array([0.5]), np.full((9, 1), 0.5))] == [[1], [1]]
        assert tied_groups(np.array([0.5]), np.full((9, 1), 0.5)).tolist() == [1]

    def test_none(self) -> None:
        assert [len(each) for each in rank_intervals(np.array([]), np.empty((9, 0)))] == [0, 0]
        assert tied_groups(np.array([]), np.empty((9, 0))).shape == (0,)

    def test_unknown_values_take_no_part(self) -> None:
        values, draws = _field()
        gaps, holes = np.insert(values, 3, np.nan), np.insert(draws, 3, np.nan, axis=1)
        for found, expected in zip(rank_intervals(gaps, holes), rank_intervals(values, draws), strict=True):
            assert np.isnan(found[3])
            np.testing.assert_array_equal(np.delete(found, 3), expected)
        assert tied_groups(gaps, holes)[3] == 0
        np.testing.assert_array_equal(np.delete(tied_groups(gaps, holes), 3), tied_groups(values, draws))

    def test_all_unknown(self) -> None:
        values = np.full(3, np.nan)
        assert np.isnan(rank_intervals(values, np.full((5, 3), np.nan))).all()
        assert tied_groups(values, np.full((5, 3), np.nan)).tolist() == [0, 0, 0]

    def test_unknown_uncertainty_leaves_no_interval(self) -> None:
        values, draws = _field()
        draws[:, 2] = np.nan
        assert np.isnan(rank_intervals(values, draws)).all()
        assert not tied_groups(values, draws).any()

    def test_a_resample_without_a_value_is_left_out(self) -> None:
        values, draws = _field()
        holes = draws.copy()
        holes[7, 2] = np.nan
        expected = rank_intervals(values, np.delete(draws, 7, axis=0))
        np.testing.assert_array_equal(rank_intervals(values, holes), expected)

    @pytest.mark.parametrize(("shape", "confidence"), [((5, 2), 0.95), ((3,), 0.95), ((5, 3), 95)])
    def test_wrong_arguments(self, shape: tuple[int, ...], confidence: float) -> None:
        for ask in (rank_intervals, tied_groups):
            with pytest.raises(ValueError, match=r"Expected `(draws|confidence)` to be"):
                ask(np.zeros(3), np.zeros(shape), confidence)


class TestGroups:
    def test_by_hand(self) -> None:
        """Steps of 1 with a noise that ties what is 1 apart and tells what is 2 apart."""
        values = np.array([0.0, 4.0, 1.0, 3.0, 2.0])
        draws = values + np.random.default_rng(0).normal(scale=0.4, size=(2000, 5))
        assert tied_groups(values, draws).tolist() == [3, 1, 2, 1, 2]

    @pytest.mark.parametrize("seed", range(5))
    def test_a_group_is_what_its_leader_is_not_told_apart_from(self, seed: int) -> None:
        values, draws = _field(seed, size=20)
        groups, (_, high) = tied_groups(values, draws), rank_intervals(values, draws)
        assert sorted(set(groups)) == list(range(1, groups.max() + 1))
        best = int(values.argmax())
        assert groups[best] == 1 and (groups == 1).sum() == high[best]  # no rank worse than all tied with it
        leaders = [values[groups == number].max() for number in range(1, groups.max() + 1)]
        assert leaders == sorted(leaders, reverse=True)


def test_holds_the_true_rank_as_often_as_it_says() -> None:
    """Ten backbones, two of them equal and three close; noise that they partly share."""
    truth = np.array([0.0, 0.0, 0.1, 0.15, 0.2, 0.6, 1.0, 1.5, 2.0, 3.0])
    best = 1 + (truth[:, None] < truth).sum(axis=1)  # of equal ones, either may come first
    worst = len(truth) - (truth[:, None] > truth).sum(axis=1)
    rng, held = np.random.default_rng(0), []
    deviations = 0.15 * np.sqrt(0.5) * (rng.normal(size=(400, 10)) + rng.normal(size=(400, 1)))
    for _ in range(500):
        values = truth + 0.15 * np.sqrt(0.5) * (rng.normal(size=10) + rng.normal())
        low, high = rank_intervals(values, values + deviations)
        held.append((low <= best) & (worst <= high))
    assert np.mean(held, axis=0).min() >= 0.93


def test_a_thousand_backbones_need_little_memory() -> None:
    values, draws = _field(size=1000, resamples=500)
    draws = draws.astype(np.float32)
    tracemalloc.start()
    rank_intervals(values, draws)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50e6
