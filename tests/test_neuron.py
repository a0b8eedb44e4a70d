"""One neuron: its potential against the equations and an ODE solver, and what becomes of its crossings."""

from __future__ import annotations

import re

import numpy as np
import pytest
import reference
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import EVENT_RULES, RULES, cases

from bats_lab.network.neuron import Neuron, potential, simulate_neuron

# A drive whose crossings follow each other within 6 to 10 ms, pulled down once and driven again.
BURST = {"times": [0.01, 0.03, 0.07, 0.11], "weights": [12.0, 24.0, -70.0, 70.0]}


def settings(neuron: Neuron) -> dict[str, float]:
    return {"tau_syn": neuron.tau_syn, "threshold": neuron.threshold}


@given(st.integers(0, 2**32 - 1), st.sampled_from((0.004, 0.13, 20.0)))
def test_potential_is_that_of_the_equations(seed: int, tau_syn: float) -> None:
    rng = np.random.default_rng(seed)
    inputs, resets, times = (np.sort(rng.uniform(0, 0.2, n)) for n in (6, 4, 30))
    weights = rng.normal(0, 20, 6)
    found = potential(times, input_times=inputs, weights=weights, reset_times=resets, tau_syn=tau_syn, threshold=0.2)
    pairs = list(zip(inputs, weights, strict=True))
    wanted = [reference.potential(t, pairs, resets, threshold=0.2, tau_syn=tau_syn) for t in times]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_potential_is_that_of_an_ode_solver(rule: str) -> None:
    neuron = simulate_neuron(**BURST, delta_t=0.008, rule=rule)
    events = [(t, 0.0, w) for t, w in zip(neuron.input_sent, neuron.weights, strict=True)]
    events = sorted([*events, *((t, -neuron.threshold, 0.0) for t in neuron.reset_times)])
    state, latest = np.zeros(2), 0.0
    for time, jump, weight in [*events, (neuron.duration, 0.0, 0.0)]:
        if time > latest:
            middle = (latest + time) / 2
            slopes = lambda _, v: [-v[0] / 0.26 + v[1], -v[1] / 0.13]  # noqa: E731
            solved = solve_ivp(slopes, (latest, time), state, t_eval=[middle, time], rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(neuron.potential(np.array([middle, time])), solved.y[0], atol=1e-8)
            state = solved.y[:, -1]
        state, latest = state + np.array([jump, weight]), time


@pytest.mark.parametrize("rule", [None, *EVENT_RULES])
def test_potential_is_at_the_threshold_at_a_crossing_and_near_zero_after_it(rule: str | None) -> None:
    neuron = simulate_neuron(**BURST, delta_t=0.008 if rule else 0.0, rule=rule or "drop")
    assert len(neuron.times) > 2
    np.testing.assert_allclose(neuron.potential(neuron.times), neuron.threshold, rtol=1e-9)
    np.testing.assert_allclose(neuron.potential(np.nextafter(neuron.times, 1)), 0, atol=1e-9)


def test_clocked_neuron_is_reset_at_the_tick_by_the_threshold() -> None:
    neuron = simulate_neuron(**BURST, delta_t=0.008, rule="clocked")
    at = neuron.potential(neuron.discretized)
    assert (at >= neuron.threshold).all() and at.max() > 1.1 * neuron.threshold
    np.testing.assert_allclose(neuron.potential(np.nextafter(neuron.discretized, 1)), at - neuron.threshold, atol=1e-9)


def test_potential_of_a_neuron_that_dropped_its_crossing_stays_above_the_threshold() -> None:
    neuron = simulate_neuron([0.003, 0.021], [14.0, 30.0], delta_t=0.008, rule="drop")
    assert len(neuron.ignored) == 1 and neuron.silenced_from == neuron.ignored[0]
    after = np.linspace(neuron.ignored[0] + 1e-9, neuron.duration, 200)
    assert (neuron.potential(after) > neuron.threshold).all()
    assert neuron.times[-1] < neuron.ignored[0]
    graded = simulate_neuron([0.003, 0.021], [14.0, 30.0], delta_t=0.008, rule="graded")
    assert graded.spike_count > 3 * neuron.spike_count and graded.silenced_from is None


def test_inhibition_lets_a_silent_neuron_fire_again() -> None:
    neuron = simulate_neuron(**BURST, delta_t=0.008, rule="drop")
    assert len(neuron.ignored) == 2
    assert neuron.ignored[0] < neuron.times[-1] < neuron.ignored[1] == neuron.silenced_from


@given(case=cases(("drop",), continuous=False, max_layers=1, samples=1))
def test_ignored_crossings_are_as_many_as_the_engine_dropped(case) -> None:  # type: ignore[no-untyped-def]
    case = case.replace(weights=[case.weights[0][:1]])
    assume(case.clear_references())
    times = case.times[0]
    given = np.isfinite(times)
    weights = np.broadcast_to(case.weights[0][0][:, None], times.shape)[given]
    neuron = simulate_neuron(
        times[given], weights, tau_syn=case.tau_syn, threshold=case.thresholds[0], delta_t=case.delta_t,
        rule=case.rule, duration=case.duration, max_spikes=case.max_spikes[0],
    )  # fmt: skip
    [activity] = case.simulate("cpu")
    assert len(neuron.ignored) == activity.dropped[0]
    np.testing.assert_array_equal(neuron.times, activity.times[0, 0][np.isfinite(activity.times[0, 0])])


@pytest.mark.parametrize("rule", RULES)
def test_counts_are_those_of_the_engine(rule: str) -> None:
    # Near the end of the window a queue of deferred spikes is lost.
    neuron = simulate_neuron(**BURST, delta_t=0.02, rule=rule)
    total = simulate_neuron(**BURST, delta_t=0.02, rule="graded").spike_count
    assert neuron.spike_count == len(np.unique(np.round(neuron.discretized[np.isfinite(neuron.discretized)], 9))) or (
        rule == "graded"
    )
    assert len(neuron.ignored) > 0 if rule == "drop" else len(neuron.ignored) == 0
    assert (neuron.unsent > 0) == (rule in ("merge", "defer"))
    assert (neuron.deferred > 0) == (rule == "defer")
    if rule in ("merge", "defer"):
        assert neuron.spike_count + neuron.unsent == total


def test_neuron_without_input_does_nothing() -> None:
    neuron = simulate_neuron([], [])
    assert neuron.spike_count == 0 and not neuron.potential(neuron.moments()).any()


def test_neuron_that_used_up_its_spikes_ends_there() -> None:
    neuron = simulate_neuron(**BURST, max_spikes=2)
    assert neuron.truncated and neuron.spike_count == 2
    assert neuron.end == neuron.times[1] == neuron.moments()[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": [0.1]}, "times and weights have the shapes (1,) and (4,)"),
        ({"weights": [1, 2, np.nan, 4]}, "must be finite"),
        ({"times": [-0.1, 0, 0, 0]}, "negative time"),
        ({"rule": "dorp"}, "rule is 'dorp'"),
        ({"delta_t": -0.001}, "delta_t is -0.001"),
        ({"rule": "clocked"}, "a clock needs a time step"),
        ({"threshold": 0}, "thresholds is [0]"),
        ({"tau_syn": 0}, "tau_syn is 0"),
    ],
)
def test_bad_value_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        simulate_neuron(**(BURST | changes))
