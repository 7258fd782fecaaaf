"""Paired tests: by hand, as SciPy has them, and false as rarely as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bob.results.paired import McNemar, holm, mcnemar, over_seeds_too, paired_p_value


def _pair(gains: int, losses: int, both: int = 20, neither: int = 5) -> tuple[np.ndarray, np.ndarray]:
    right_a = np.repeat([False, True, True, False], [gains, losses, both, neither])
    right_b = np.repeat([True, False, True, False], [gains, losses, both, neither])
    return right_a, right_b


class TestMcNemar:
    def test_by_hand(self) -> None:
        """Of 6 that differ, 5 or more on one side have (6 + 1) / 64 ways, and so has the other side."""
        assert mcnemar(*_pair(5, 1)) == McNemar(5, 1, pytest.approx(14 / 64))
        assert mcnemar(*_pair(1, 5)) == McNemar(1, 5, pytest.approx(14 / 64))

    def test_an_even_split_is_no_difference(self) -> None:
        assert mcnemar(*_pair(3, 3)).p_value == 1
        assert mcnemar(*_pair(0, 0)) == McNemar(0, 0, 1)

    @pytest.mark.parametrize(("gains", "losses"), [(0, 1), (0, 9), (7, 2), (12, 30), (500, 590), (5500, 4500)])
    def test_equals_scipy(self, gains: int, losses: int) -> None:
        expected = stats.binomtest(gains, gains + losses).pvalue
        assert mcnemar(*_pair(gains, losses)).p_value == pytest.approx(expected, rel=1e-9)

    def test_many_disagreements_are_a_chi_square(self) -> None:
        """The textbook's form with continuity, (|gains - losses| - 1)^2 / (gains + losses)."""
        expected = stats.chi2.sf((abs(540 - 460) - 1) ** 2 / 1000, 1)
        assert mcnemar(*_pair(540, 460)).p_value == pytest.approx(expected, rel=0.01)

    def test_what_both_have_alike_does_not_count(self) -> None:
        assert mcnemar(*_pair(9, 2, both=0, neither=0)) == mcnemar(*_pair(9, 2, both=1000, neither=1000))

    @pytest.mark.parametrize("other", [np.ones(3, dtype=bool), np.ones((4, 1), dtype=bool)])
    def test_refuses_other_lengths(self, other: np.ndarray) -> None:
        with pytest.raises(ValueError, match="Expected two vectors of one length, but got shapes"):
            mcnemar(np.ones(4, dtype=bool), other)


class TestPairedPValue:
    def test_by_hand(self) -> None:
        """Two of 99 at or below 0: 2 * (2 + 1) / 100."""
        draws = np.r_[-1.0, 0.0, np.arange(1, 98)]
        assert paired_p_value(draws) == pytest.approx(0.06)
        assert paired_p_value(-draws) == pytest.approx(0.06)

    def test_never_less_than_the_replicates_can_tell(self) -> None:
        assert paired_p_value(np.full(1999, 0.3)) == pytest.approx(2 / 2000)

    def test_no_difference_at_all(self) -> None:
        assert paired_p_value(np.zeros(100)) == 1
        assert paired_p_value([-1.0, 1.0]) == 1

    def test_what_has_no_value_is_left_out(self) -> None:
        assert paired_p_value([np.nan, 1.0, 1.0, 1.0, -1.0]) == paired_p_value([1.0, 1.0, 1.0, -1.0])
        assert np.isnan(paired_p_value([np.nan, np.nan]))

    def test_agrees_with_the_interval(self) -> None:
        rng = np.random.default_rng(0)
        for mean in np.linspace(-4, 4, 81):
            draws = rng.normal(mean, size=2000)
            low, high = np.quantile(draws, [0.025, 0.975])
            p_value = paired_p_value(draws)
            assert (low > 0 or high < 0) == (p_value < 0.05) or 0.045 < p_value < 0.055

    def test_near_normal_draws_have_the_normal_tail(self) -> None:
        draws = stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000, loc=2)
        assert paired_p_value(draws) == pytest.approx(2 * stats.norm.sf(2), rel=0.01)


class TestOverSeeds:
    def test_one_seed_or_equal_ones_stay(self) -> None:
        draws = np.arange(5.0)
        assert over_seeds_too(draws, np.array([0.1])) is draws
        assert over_seeds_too(draws, np.array([0.3, 0.1 + 0.2, 0.3])) is draws

    def test_seeds_alone_make_students_interval(self) -> None:
        differences = np.array([0.5, 0.6, 0.61, 0.53])
        draws = over_seeds_too(np.full(100_000, differences.mean()), differences)
        expected = stats.t.interval(0.95, 3, differences.mean(), stats.sem(differences))
        assert np.quantile(draws, [0.025, 0.975]) == pytest.approx(expected, abs=1e-5)

    def test_seed_decides(self) -> None:
        draws, differences = np.linspace(0, 1, 50), np.array([0.1, 0.3])
        assert (over_seeds_too(draws, differences, 1) == over_seeds_too(draws, differences, 1)).all()
        assert (over_seeds_too(draws, differences, 1) != over_seeds_too(draws, differences, 2)).any()

    @pytest.mark.parametrize("seeds", [2, 3, 5])
    @pytest.mark.parametrize("spread", [0.0, 0.02, 0.1])
    def test_equal_backbones_are_rarely_called_different(self, seeds: int, spread: float) -> None:
        """Differences of samples and of seeds, both 0 on average: at most 5% are called real, and not next to none."""
        rng, false, trials = np.random.default_rng(0), 0, 1500
        normal = stats.norm.ppf((np.arange(400) + 0.5) / 400)
        for _ in range(trials):
            differences = rng.normal(scale=0.02) + rng.normal(scale=spread, size=seeds)
            draws = over_seeds_too(differences.mean() + 0.02 * normal, differences)
            false += paired_p_value(draws) < 0.05
        assert 0.005 <= false / trials <= 0.065


class TestHolm:
    def test_by_hand(self) -> None:
        """0.01 * 4; then 0.02 * 3, 0.03 * 2 and 0.9."""
        np.testing.assert_allclose(holm([0.03, 0.01, 0.9, 0.02]), [0.06, 0.04, 0.9, 0.06])

    def test_none_falls_below_one_before_it(self) -> None:
        np.testing.assert_allclose(holm([0.010, 0.011]), [0.02, 0.02])

    def test_none_is_above_one(self) -> None:
        np.testing.assert_array_equal(holm([0.5, 0.6, 0.7]), [1, 1, 1])

    def test_unknown_stays_unknown_and_does_not_count(self) -> None:
        np.testing.assert_allclose(holm([np.nan, 0.02, np.nan, 0.03]), [np.nan, 0.04, np.nan, 0.04])
        np.testing.assert_array_equal(holm([np.nan]), [np.nan])
        assert holm([]).shape == (0,)

    def test_one_test_needs_no_correction(self) -> None:
        np.testing.assert_array_equal(holm([0.04]), [0.04])

    def test_keeps_the_family_s_error(self) -> None:
        """Of 8 true hypotheses, dependent or not, at least one is rejected in about 5% of the cases, or fewer."""
        rng = np.random.default_rng(0)
        for shared in (0.0, 0.8):
            z = np.sqrt(shared) * rng.normal(size=(4000, 1)) + np.sqrt(1 - shared) * rng.normal(size=(4000, 8))
            any_false = [(holm(own) < 0.05).any() for own in 2 * stats.norm.sf(np.abs(z))]
            assert np.mean(any_false) <= 0.06
        assert (2 * stats.norm.sf(np.abs(z)) < 0.05).any(axis=1).mean() > 0.1  # as they would be without it

    @pytest.mark.parametrize("wrong", [-0.1, 1.5])
    def test_refuses_what_is_no_probability(self, wrong: float) -> None:
        with pytest.raises(ValueError, match=f"Expected `p_values` to be between 0 and 1, but got {wrong}"):
            holm([0.5, wrong])
