"""The time grid: eq. 14, its tolerance, ticks, and the collision rules by name."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from bats_lab.spikes.estimators import (
    ESTIMATORS,
    Estimator,
    discretize_stochastically,
    smooth_discretize,
    surrogate_slope,
)
from bats_lab.spikes.grid import GRID_TOLERANCE, discretize, discretize_spikes, first_tick_from, to_ticks
from bats_lab.spikes.rules import RULES, rule_code
from bats_lab.spikes.trains import Spikes

STEPS = st.sampled_from([1e-4, 5e-4, 1e-3, 3e-3, 0.004, 0.007, 0.01, 0.2])


def exact_tick(time: float, delta_t: float) -> Fraction:
    """How many time steps a time is, as an exact fraction of the two floats."""
    return Fraction(time) / Fraction(delta_t)


@given(time=st.floats(0, 10), delta_t=STEPS)
def test_sent_time_is_that_of_eq_14(time: float, delta_t: float) -> None:
    phase = exact_tick(time, delta_t)
    if abs(phase - round(phase)) > 2 * GRID_TOLERANCE:
        assert to_ticks(time, delta_t) == math.floor(phase) + 1
        assert discretize(np.array([time]), delta_t)[0] == (math.floor(phase) + 1) * delta_t


@given(tick=st.integers(0, 200_000), delta_t=STEPS)
def test_time_on_the_grid_moves_a_full_step(tick: int, delta_t: float) -> None:
    assert to_ticks(tick * delta_t, delta_t) == tick + 1
    # Also where the product was rounded the other way.
    assert to_ticks(np.nextafter(tick * delta_t, 0), delta_t) == tick + 1
    assert to_ticks(np.nextafter(tick * delta_t, 1e3), delta_t) == tick + 1


@given(tick=st.integers(1, 10_000), delta_t=STEPS)
def test_time_counts_as_on_a_tick_within_the_tolerance_only(tick: int, delta_t: float) -> None:
    assert to_ticks((tick - 0.5 * GRID_TOLERANCE) * delta_t, delta_t) == tick + 1
    assert to_ticks((tick - 2 * GRID_TOLERANCE) * delta_t, delta_t) == tick


@given(times=st.lists(st.floats(0, 10), min_size=2, max_size=9), delta_t=STEPS)
def test_order_is_kept_and_spikes_leave_later_but_by_no_more_than_a_step(times: list[float], delta_t: float) -> None:
    times = np.sort(times)
    sent = discretize(times, delta_t)
    assert (np.diff(sent) >= 0).all()
    slack = 1e-12 + GRID_TOLERANCE * delta_t
    assert (sent > times).all() and (sent <= times + delta_t + slack).all()


def test_negative_times_follow_the_formula() -> None:
    np.testing.assert_allclose(discretize(np.array([-0.013, -0.01, -1e-9]), 0.01), [-0.01, 0.0, 0.01])


def test_no_spike_stays_no_spike_and_nan_stays_nan() -> None:
    times = np.array([[np.inf, 0.001], [np.nan, -np.inf]])
    np.testing.assert_array_equal(discretize(times, 0.01), [[np.inf, 0.01], [np.nan, -np.inf]])
    np.testing.assert_array_equal(times, [[np.inf, 0.001], [np.nan, -np.inf]])


def test_continuous_time_changes_nothing() -> None:
    times = np.array([0.0, 0.013, np.inf])
    np.testing.assert_array_equal(discretize(times, 0), times)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0, 3)])
def test_shape_is_kept(shape: tuple[int, ...]) -> None:
    assert discretize(np.zeros(shape), 0.01).shape == shape


def test_whole_seconds_are_times_as_well() -> None:
    np.testing.assert_array_equal(discretize(np.array([0, 1, 2]), 0.5), [0.5, 1.5, 2.5])


@given(tick=st.integers(0, 50), delta_t=STEPS)
def test_single_precision_gives_the_ticks_of_double_precision_on_grids_that_are_not_fine(
    tick: int, delta_t: float
) -> None:
    # Where a float32 has eps * tick below the tolerance: some 16 ticks on the grid, any number between ticks.
    time = tick % 16 * delta_t
    single, double = np.array([time], np.float32), np.array([time])
    assert to_ticks(single, delta_t).tolist() == to_ticks(double, delta_t).tolist()
    middle = np.array([(tick + 0.5) * delta_t])
    assert to_ticks(middle.astype(np.float32), delta_t).tolist() == [tick + 1]
    sent = discretize(middle.astype(np.float32), delta_t)
    assert sent.dtype == np.float32 and sent[0] == np.float32((tick + 1) * delta_t)


def test_ticks_are_int32_and_those_of_a_number_an_int() -> None:
    assert to_ticks(np.array([0.5]), 0.1).dtype == np.int32
    assert type(to_ticks(0.5, 0.1)) is int and to_ticks(0.5, 0.1) == 6


def test_largest_tick_there_is_can_be_reached_and_no_other_goes_unnoticed() -> None:
    assert to_ticks(np.array([2.0**31 - 1.5]), 1.0).tolist() == [2**31 - 1]
    for times in ([2.0**31], [-(2.0**33)], [np.inf], [np.nan]):
        with pytest.raises(ValueError, match=r"which is more than 2147483647 ticks of 1\.0 s"):
            to_ticks(np.array(times), 1.0)
    with pytest.raises(ValueError, match=r"times reach 1000.0 s, which is more than .* ticks of 1e-07 s"):
        discretize(np.array([np.inf, 1e3]), 1e-7)


@pytest.mark.parametrize("delta_t", [-0.01, math.nan, math.inf, -math.inf])
def test_time_step_that_makes_no_sense_is_refused(delta_t: float) -> None:
    spikes = Spikes.from_padded(np.array([[0.01]]))
    for function, given_times in ((discretize, np.array([0.01])), (to_ticks, np.array([0.01]))):
        with pytest.raises(ValueError, match=f"^delta_t is {delta_t}; it must be"):
            function(given_times, delta_t)
    with pytest.raises(ValueError, match=f"^delta_t is {delta_t}; it must be"):
        discretize_spikes(spikes, delta_t)


def test_ticks_need_a_time_step() -> None:
    with pytest.raises(ValueError, match=r"^delta_t is 0; it must be a number above 0"):
        to_ticks(np.array([0.1]), 0)


def test_spike_trains_are_put_on_another_grid_from_their_continuous_times() -> None:
    spikes = Spikes.from_padded(np.array([[0.0012, 0.0031, 0.0062], [0.001, np.inf, np.inf]]))
    coarse = discretize_spikes(discretize_spikes(spikes, 0.001), 0.004)
    assert coarse.ticks.tolist() == [1, 1, 2, 1] and coarse.delta_t == 0.004
    np.testing.assert_array_equal(coarse.times, spikes.times)
    back = discretize_spikes(coarse, 0)
    assert back.delta_t == 0 and not back.ticks.any()


@given(tick=st.integers(1, 10_000), delta_t=STEPS)
def test_first_tick_from_a_time_is_that_tick_if_it_is_one(tick: int, delta_t: float) -> None:
    assert first_tick_from(tick * delta_t, delta_t) == tick
    assert first_tick_from((tick + 0.01) * delta_t, delta_t) == tick + 1


def test_rules_are_numbered_as_they_are_listed() -> None:
    assert [rule_code(rule) for rule in RULES] == list(range(5))
    with pytest.raises(ValueError, match=r"^rule is 'dorp'; it must be one of drop, merge, defer, graded, clocked\."):
        rule_code("dorp")


# What stands for the derivative of the time grid


@given(time=st.floats(0, 0.2), delta_t=STEPS, width=st.floats(0.01, 3))
def test_surrogate_slope_is_the_sum_over_all_jumps_of_the_grid(time: float, delta_t: float, width: float) -> None:
    slope = surrogate_slope(np.array(time), delta_t, width)
    assert slope == pytest.approx(reference.smooth_slope(time, delta_t, width), rel=1e-6)


@given(width=st.floats(0.02, 3))
def test_surrogate_slope_is_the_derivative_of_the_smooth_grid_and_1_on_average(width: float) -> None:
    times, h = np.linspace(0.01, 0.02, 2001), 1e-8
    difference = (smooth_discretize(times + h, 0.01, width) - smooth_discretize(times - h, 0.01, width)) / (2 * h)
    slope = surrogate_slope(times, 0.01, width)
    np.testing.assert_allclose(slope, difference, rtol=1e-4)
    assert slope[:-1].mean() == pytest.approx(1, rel=1e-9) and slope.min() > 0


def test_smooth_grid_lies_between_the_grid_and_a_straight_line() -> None:
    times = np.linspace(0.0005, 0.0995, 100)  # in the middle between ticks
    np.testing.assert_allclose(smooth_discretize(times, 0.001, 1e-6), discretize(times, 0.001), atol=1e-8)
    np.testing.assert_allclose(smooth_discretize(times, 0.01, 10), times + 0.005, atol=1e-12)


@given(time=st.floats(0, 0.2), delta_t=STEPS)
def test_stochastic_rounding_has_the_same_mean_delay_for_every_time(time: float, delta_t: float) -> None:
    uniform = (np.arange(1000) + 0.5) / 1000
    sent = discretize_stochastically(np.full(1000, time), delta_t, uniform)
    assert sent.mean() - time == pytest.approx(delta_t / 2, abs=1.1e-3 * delta_t)
    assert np.abs(sent - discretize(np.array([time]), delta_t)).max() <= delta_t * (1 + 1e-9)
    ticks = sent / delta_t
    np.testing.assert_allclose(ticks, np.round(ticks), atol=1e-6)


def test_estimators_are_known_by_name_and_refused_if_they_make_no_sense() -> None:
    assert [Estimator(name).by_sent for name in ESTIMATORS] == [False, True, True, True]
    assert [Estimator(name, 0.3).slope_width for name in ESTIMATORS] == [0, 0, 0.3, 0]
    with pytest.raises(ValueError, match=r"^estimator is 'exact'; it must be one of straight_through, delayed, surr"):
        Estimator("exact")
    with pytest.raises(ValueError, match=r"^width is -1; it must be a number above 0\."):
        Estimator("surrogate", -1)
