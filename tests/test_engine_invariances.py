"""Facts about the engine that need no reference: what a change of the inputs must and must not change."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import assume, given
from strategies import (
    COUNTERS,
    EVENT_RULES,
    RULES,
    Case,
    assert_same_activity,
    cases,
    kept,
    random_case,
)

from bats_lab.network.feedforward import LayerActivity
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.trains import Spikes


def assert_close(first: list[LayerActivity], second: list[LayerActivity], case: Case, samples, shift: float = 0.0):
    """Assert the same spikes, `shift` seconds later in the second run, but for rounding."""
    assert len(samples) > 0
    for a, b in zip(first, second, strict=True):
        for name in ("spike_count", *COUNTERS):
            np.testing.assert_array_equal(getattr(a, name)[samples], getattr(b, name)[samples], err_msg=name)
        for name in ("times", "discretized"):
            before, after = getattr(a, name)[samples] + shift, getattr(b, name)[samples]
            np.testing.assert_allclose(before, after, rtol=0, atol=1e-11 * (case.duration + shift + 10 * case.tau_syn))


def clear_of(case: Case) -> list[int]:
    clear = list(case.clear_references())
    assume(clear)
    return clear


def ticks_of(activity: LayerActivity, case: Case) -> np.ndarray:
    """Ticks on which spikes were sent, one list a neuron, each tick checked to be whole."""
    sent = activity.discretized / case.delta_t
    np.testing.assert_allclose(sent[np.isfinite(sent)], np.round(sent[np.isfinite(sent)]), rtol=1e-9)
    return np.round(sent)


# What must shift, and what must stay


@given(case=cases())
def test_shifting_inputs_by_whole_ticks_shifts_all_spikes(backend: str, case: Case) -> None:
    shift = 7 * case.delta_t or 0.37 * case.tau_syn
    later = case.replace(times=case.times + shift, duration=case.duration + shift)
    clear = [i for i in clear_of(case) if i in later.clear_references()]
    assume(clear)
    assert_close(case.simulate(backend), later.simulate(backend), case, clear, shift=shift)


@given(case=cases())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scaling_weights_and_thresholds_changes_nothing(backend: str, dtype: str, case: Case) -> None:
    # A power of two, so that rounding is the same and every bit can be compared.
    scaled = case.replace(weights=[8 * w for w in case.weights], thresholds=[8 * v for v in case.thresholds])
    assert_same_activity(case.simulate(backend, dtype), scaled.simulate(backend, dtype))


@given(case=cases())
def test_scaling_weights_and_thresholds_by_any_factor_changes_no_time(backend: str, case: Case) -> None:
    scaled = case.replace(weights=[1.7 * w for w in case.weights], thresholds=[1.7 * v for v in case.thresholds])
    assert_close(case.simulate(backend), scaled.simulate(backend), case, clear_of(case))


@given(case=cases())
def test_changing_the_unit_of_time_changes_nothing(backend: str, case: Case) -> None:
    # In units a quarter as long all times are four times as many, and so are thresholds: u is a current times a time.
    unit = case.replace(
        times=4 * case.times,
        duration=4 * case.duration,
        delta_t=4 * case.delta_t,
        tau_syn=4 * case.tau_syn,
        thresholds=[4 * v for v in case.thresholds],
    )
    first, second = case.simulate(backend), unit.simulate(backend)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(4 * a.times, b.times)
        np.testing.assert_array_equal(4 * a.discretized, b.discretized)


@given(case=cases())
def test_permuting_inputs_changes_no_spike(backend: str, case: Case) -> None:
    order = np.random.default_rng(0).permutation(case.times.shape[1])
    permuted = case.replace(weights=[case.weights[0][:, order], *case.weights[1:]], times=case.times[:, order])
    assert_close(case.simulate(backend), permuted.simulate(backend), case, clear_of(case))


@given(case=cases())
def test_permuting_neurons_permutes_their_spikes(backend: str, case: Case) -> None:
    rng, weights = np.random.default_rng(0), [w.copy() for w in case.weights]
    orders = [rng.permutation(len(w)) for w in weights]
    for i, order in enumerate(orders):
        weights[i] = weights[i][order]
        if i + 1 < len(weights):
            weights[i + 1] = weights[i + 1][:, order]
    permuted = case.replace(weights=weights).simulate(backend)
    expected = case.simulate(backend)
    for a, order in zip(expected, orders, strict=True):
        a.times, a.discretized, a.spike_count = a.times[:, order], a.discretized[:, order], a.spike_count[:, order]
    assert_close(expected, permuted, case, clear_of(case))


@given(case=cases())
def test_silent_inputs_change_nothing(backend: str, case: Case) -> None:
    padded = np.pad(case.weights[0], ((0, 0), (3, 40)), constant_values=5.0)
    times = np.pad(case.times, ((0, 0), (3, 40), (0, 2)), constant_values=np.inf)
    more = case.replace(weights=[padded, *case.weights[1:]], times=times)
    assert_same_activity(case.simulate(backend), more.simulate(backend))


@given(case=cases(max_layers=1))
def test_more_neurons_beside_it_change_nothing_for_a_neuron(backend: str, case: Case) -> None:
    n = len(case.weights[0])
    wide = case.replace(weights=[np.vstack([case.weights[0], np.full((230, case.weights[0].shape[1]), 3.0)])])
    [alone], [beside] = case.simulate(backend), wide.simulate(backend)
    np.testing.assert_array_equal(alone.times, beside.times[:, :n])
    np.testing.assert_array_equal(alone.discretized, beside.discretized[:, :n])


@given(case=cases(kinds=("one_tick", "bursts", "on_grid"), continuous=False))
def test_order_of_inputs_within_a_tick_changes_no_spike(backend: str, case: Case) -> None:
    spikes = case.spikes()
    sample = np.repeat(np.arange(len(spikes)), spikes.count)
    order = np.lexsort((np.random.default_rng(0).random(len(sample)), spikes.ticks, sample))
    shuffled = Spikes(
        spikes.start,
        spikes.count,
        spikes.neuron[order],
        spikes.times[order],
        spikes.ticks,
        spikes.n_neurons,
        spikes.delta_t,
    )
    again = case.network(backend).simulate(shuffled, rule=case.rule)
    assert_close(case.simulate(backend), again, case, clear_of(case))


@pytest.mark.parametrize("rule", RULES)
def test_order_of_inputs_within_a_tick_changes_no_gradient(backend: str, rule: str) -> None:
    case = random_case(5, rule, delta_t=0.03)
    spikes = case.spikes()
    sample = np.repeat(np.arange(len(spikes)), spikes.count)
    order = np.lexsort((-spikes.times, spikes.ticks, sample))
    turned = Spikes(
        spikes.start, spikes.count, spikes.neuron[order], spikes.times[order], spikes.ticks, spikes.n_neurons, 0.03
    )
    for a, b in zip(
        case.gradients(backend), case.network(backend).gradients(turned, case.errors(), rule=rule), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(a).max())


@pytest.mark.parametrize("rule", RULES)
def test_splitting_a_weight_over_two_inputs_changes_no_spike(backend: str, rule: str) -> None:
    case = random_case(6, rule)
    halves = np.hstack([0.25 * case.weights[0], 0.75 * case.weights[0]])
    split = case.replace(weights=[halves, *case.weights[1:]], times=np.concatenate([case.times] * 2, axis=1))
    assert_close(case.simulate(backend), split.simulate(backend), case, range(4))


@given(case=cases(EVENT_RULES, max_layers=1))
def test_a_spike_limit_cuts_off_and_changes_nothing_before(backend: str, case: Case) -> None:
    [free], [limited] = (case.replace(max_spikes=[n]).simulate(backend) for n in (50, 2))
    np.testing.assert_array_equal(limited.times, free.times[..., :2])
    np.testing.assert_array_equal(limited.discretized, free.discretized[..., :2])
    np.testing.assert_array_equal(limited.truncated_neurons, np.isfinite(free.times[..., 1]).sum(axis=1))


@given(case=cases())
def test_what_comes_later_changes_nothing_before(backend: str, case: Case) -> None:
    # An input at a time adds spikes after it only, a longer window after its end only.
    middle = 0.3 * case.duration
    early = case.replace(times=np.where(case.times < middle, case.times, np.inf), duration=middle)
    for short, long in zip(early.simulate(backend), case.simulate(backend), strict=True):
        n = np.isfinite(short.times).sum(axis=-1, keepdims=True)
        before = np.arange(long.times.shape[-1]) < n
        # Rounding apart where a crossing falls on the very end.
        np.testing.assert_allclose(short.times[before], long.times[before], rtol=1e-9)
        # A clock sees a crossing at the next tick only.
        later = (long.discretized if case.rule == "clocked" else long.times)[~before]
        assert (later > middle * (1 - 1e-9)).all()


# The rules


@given(case=cases(("drop",), continuous=True))
def test_in_continuous_time_all_rules_are_one(backend: str, case: Case) -> None:
    for rule in ("merge", "defer", "graded"):
        assert_same_activity(case.simulate(backend), case.replace(rule=rule).simulate(backend))
    for activity in case.simulate(backend):
        np.testing.assert_array_equal(activity.times, activity.discretized)
        assert not any(getattr(activity, name).any() for name in COUNTERS[:4])


@given(case=cases(EVENT_RULES))
def test_potential_is_at_the_threshold_at_every_crossing(backend: str, case: Case) -> None:
    activity = case.simulate(backend)
    for sample in range(len(case.times)):
        events = reference.put_on_grid(case.times[sample], case.delta_t)
        arrivals = [(event.neuron, event.sent) for event in events]
        for layer, found in enumerate(activity):
            for j, row in enumerate(found.times[sample]):
                inputs = [(sent, case.weights[layer][j, i]) for i, sent in arrivals]
                times, threshold = kept(row), case.thresholds[layer]
                for t in times:
                    u = reference.potential(t, inputs, times, threshold=threshold, tau_syn=case.tau_syn)
                    size = sum(abs(w) * np.exp((z - t) / case.tau_syn / 2) for z, w in inputs if z < t)
                    assert u == pytest.approx(threshold, rel=1e-9, abs=1e-11 * case.tau_syn * size)
            arrivals = [(i, sent) for i, row in enumerate(found.discretized[sample]) for sent in kept(row)]


@given(case=cases(("clocked",), max_layers=1, windows=(1.5, 10.0)))
def test_clocked_neuron_fires_at_the_ticks_where_it_is_above_the_threshold(backend: str, case: Case) -> None:
    [activity] = case.simulate(backend)
    for sample in clear_of(case):
        events = reference.put_on_grid(case.times[sample], case.delta_t)
        for j, row in enumerate(activity.discretized[sample]):
            inputs = [(event.sent, case.weights[0][j, event.neuron]) for event in events]
            fired = set(np.round(kept(row) / case.delta_t).astype(int))
            resets = [k * case.delta_t for k in fired]
            last = max(fired) if len(fired) == case.max_spikes[0] else int(case.duration / case.delta_t + 1e-6)
            for k in range(1, last + 1):
                t = k * case.delta_t
                # A spike at the very tick resets after it was read.
                own = [r for r in resets if round(r / case.delta_t) < k]
                u = reference.potential(t, inputs, own, threshold=case.thresholds[0], tau_syn=case.tau_syn)
                assert (u >= case.thresholds[0]) == (k in fired)


@given(case=cases(EVENT_RULES, continuous=False))
def test_sent_times_are_ticks_after_the_crossing(backend: str, case: Case) -> None:
    for activity in case.simulate(backend):
        ticks, phase = ticks_of(activity, case), activity.times / case.delta_t
        sent = np.isfinite(ticks)
        delay = ticks[sent] - phase[sent]
        assert (delay > 0).all()
        if case.rule != "defer":
            assert (delay <= 1 + 2e-6).all()


@given(case=cases(("drop", "merge", "defer", "clocked"), continuous=False))
def test_at_most_one_spike_leaves_a_neuron_a_tick(backend: str, case: Case) -> None:
    for activity in case.simulate(backend):
        for row in ticks_of(activity, case).reshape(-1, activity.times.shape[-1]):
            assert (np.diff(kept(row)) >= 1).all()


@given(case=cases(EVENT_RULES, continuous=False))
def test_counters_account_for_every_crossing(backend: str, case: Case) -> None:
    for activity in case.simulate(backend):
        crossings, sent = (np.isfinite(x).sum(axis=(1, 2)) for x in (activity.times, activity.discretized))
        np.testing.assert_array_equal(crossings, sent + activity.merged + activity.lost_spikes)
        np.testing.assert_array_equal(activity.spike_count, np.isfinite(activity.discretized).sum(axis=2))
        assert (activity.lost_spikes <= activity.deferred).all()
        own = {"drop": "dropped", "merge": "merged", "defer": "deferred"}.get(case.rule)
        for name in ("dropped", "merged", "deferred"):
            assert name == own or not getattr(activity, name).any()


@given(case=cases(("drop",), max_layers=1, continuous=False))
def test_rules_that_reset_cross_at_the_same_times(backend: str, case: Case) -> None:
    # In a first layer merge, defer and graded differ in what is sent only.
    [merge], [defer], [graded] = (case.replace(rule=rule).simulate(backend) for rule in ("merge", "defer", "graded"))
    np.testing.assert_array_equal(merge.times, graded.times)
    np.testing.assert_array_equal(defer.times, graded.times)
    np.testing.assert_array_equal(
        merge.spike_count + merge.merged[:, None] * 0, np.isfinite(merge.discretized).sum(axis=2)
    )
    first = np.isfinite(merge.discretized)
    np.testing.assert_array_equal(merge.discretized[first], graded.discretized[first])


@pytest.mark.parametrize("rule", RULES)
def test_a_fine_grid_is_nearly_continuous_time(backend: str, rule: str) -> None:
    case = random_case(2, "drop", sizes=(6, 5, 3))
    coarse = 2e-6
    continuous = case.replace(delta_t=0.0).simulate(backend)
    on_grid = case.replace(rule=rule, delta_t=coarse).simulate(backend)
    for a, b in zip(continuous, on_grid, strict=True):
        np.testing.assert_array_equal(a.spike_count, b.spike_count)
        np.testing.assert_allclose(a.times, b.times, rtol=0, atol=50 * coarse)


def test_spikes_of_a_grid_are_those_of_its_discretized_inputs(backend: str) -> None:
    # Continuous inputs at the ticks themselves give a first layer the very same crossings.
    case = random_case(7, "graded", sizes=(6, 5))
    spikes = case.spikes()
    times = discretize_spikes(Spikes.from_padded(case.times), case.delta_t).padded(sent=True)
    on_ticks = case.replace(times=times, delta_t=0.0).simulate(backend)
    [activity] = case.network(backend).simulate(spikes, rule="graded")
    np.testing.assert_allclose(activity.times, on_ticks[0].times, rtol=1e-12)
