"""Statistics over paired seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bats_lab.studies.statistics import bonferroni, equivalence, equivalence_power, holm, mean_and_std, paired, power


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_paired_test_is_that_of_student(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    result = paired(a, b)
    if np.ptp(a - b) < 1e-9:
        return
    wanted = stats.ttest_rel(a, b)
    interval = wanted.confidence_interval(0.95)
    assert result.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


def test_seeds_of_which_one_is_missing_are_left_out() -> None:
    assert paired([0.5, np.nan, 0.7, 0.9], [0.4, 0.1, np.nan, 0.6]) == paired([0.5, 0.9], [0.4, 0.6])
    assert paired([np.nan], [0.1]).seeds == 0
    one = paired([0.5], [0.4])
    assert one.difference == pytest.approx(0.1) and np.isnan([one.low, one.high, one.p]).all()


def test_the_same_in_every_seed_is_no_difference() -> None:
    same = paired([0.5, 0.6], [0.5, 0.6])
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_treatments_of_different_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"values has shape \(2,\) and baseline \(3,\)"):
        paired([1, 2], [1, 2, 3])


def test_holm_corrects_the_smallest_the_most() -> None:
    corrected = holm(np.array([0.01, 0.04, np.nan, 0.03]))
    np.testing.assert_allclose(corrected, [0.03, 0.06, np.nan, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_bonferroni_counts_what_is_known() -> None:
    np.testing.assert_allclose(bonferroni([0.01, np.nan, 0.7]), [0.02, np.nan, 1.0])


def test_mean_is_told_with_its_spread_where_there_are_three_and_of_two_both_values() -> None:
    assert mean_and_std([97.0, np.nan, 98.0], digits=2) == "97.00 / 98.00"
    assert mean_and_std([97.0, 97.5, 98.0], digits=2) == "97.50 ± 0.50"
    assert (mean_and_std([1234.5], digits=0), mean_and_std([np.nan])) == ("1,234", "")


def test_equivalence_is_that_of_two_one_sided_tests() -> None:
    a, b = np.array([97.1, 97.0, 97.3, 97.1, 96.9]), np.array([97.0, 97.1, 97.1, 97.2, 96.9])
    interval = stats.ttest_rel(a, b).confidence_interval(0.9)
    # At 5 % two treatments are equal where the 90 % interval of their difference lies within the margins.
    edge = max(abs(interval.low), abs(interval.high))
    assert equivalence(a, b, edge * 1.001) < 0.05 < equivalence(a, b, edge * 0.999)
    assert equivalence([*a, np.nan], [*b, 1.0], 0.2) == equivalence(a, b, 0.2)
    assert np.isnan(equivalence([1.0], [1.0], 0.2)) and equivalence([1, 2], [1, 2], 0.2) == 0
    with pytest.raises(ValueError, match="margin is 0; it must be above 0"):
        equivalence(a, b, 0)


def test_power_is_the_share_of_experiments_that_see_a_difference() -> None:
    rng = np.random.default_rng(0)
    p = stats.ttest_1samp(rng.normal(1.2, 1.0, (4000, 6)), 0, axis=1).pvalue
    assert power(1.2, 6) == pytest.approx((p < 0.05).mean(), abs=0.03)
    assert power(0.0, 6, 0.01) == pytest.approx(0.01)


def test_power_to_show_equality_is_the_share_of_trials_that_do() -> None:
    rng = np.random.default_rng(1)
    trials = rng.normal(0, 0.15, (1500, 6))
    shown = np.mean([equivalence(trial, np.zeros(6), 0.2) < 0.01 for trial in trials])
    assert equivalence_power(0.15, 6, 0.2, 0.01) == pytest.approx(shown, abs=0.04)
    assert equivalence_power(2.0, 6, 0.2) < 0.05 and equivalence_power(0.01, 6, 0.2) == pytest.approx(1)
    with pytest.raises(ValueError, match="seeds is 1; it must be at least 2"):
        equivalence_power(0.1, 1, 0.2)
