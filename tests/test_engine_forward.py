"""The forward pass: the reference's spikes, spikes of an ODE solver, and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import BORDERLINE, EVENT_RULES, RULES, Case, assert_same_spikes, cases, kept, random_case

from bats_lab.engine import Mode
from bats_lab.network.feedforward import Network
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.trains import Spikes

TAU_SYN, TAU = 0.13, 0.26


def one_neuron(weights, times, *, threshold=0.2, limit=30, duration=0.2, delta_t=0.01, rule="drop") -> Case:
    """One sample, one neuron, one input spike a weight."""
    times = np.array(times, float).reshape(1, -1, 1)
    return Case([np.array([weights], float)], times, [threshold], [limit], TAU_SYN, duration, delta_t, rule)


def spike_after(threshold: float, weight: float) -> float:
    """Time from a single input to the first spike, from eq. 5 and 8: w tau (y - y^2) = threshold, y = exp(-t/tau)."""
    return -TAU * math.log((1 + math.sqrt(1 - 4 * threshold / (weight * TAU))) / 2)


# Against the reference


@given(case=cases())
def test_spikes_are_those_of_the_reference(backend: str, case: Case) -> None:
    clear = case.clear_references()
    assume(clear)
    activity = case.simulate(backend)
    for sample, layers in clear.items():
        assert_same_spikes(activity, layers, sample, tolerance=1e-12 * (case.duration + 100 * case.tau_syn))


@given(case=cases(("clocked",), max_layers=2))
def test_clocked_spikes_are_those_of_integration_tick_by_tick(backend: str, case: Case) -> None:
    clear = case.clear_references()
    assume(clear)
    activity = case.simulate(backend)
    for sample, layers in clear.items():
        assert_same_spikes(activity, layers, sample, tolerance=1e-12 * (case.duration + 100 * case.tau_syn))


@given(case=cases(windows=(1.5, 10.0, 100.0), drives=(1.0, 4.0, 16.0)))
def test_float32_finds_the_same_spikes_where_rounding_does_not_decide(backend: str, case: Case) -> None:
    case = case.rounded()
    clear = case.clear_references("float32")
    assume(clear)
    activity = case.simulate(backend, "float32")
    for sample, layers in clear.items():
        assert_same_spikes(activity, layers, sample, tolerance=2e-6 * (case.duration + 10 * case.tau_syn))


@pytest.mark.parametrize("rule", RULES)
def test_hardly_any_sample_is_left_out_as_borderline(backend: str, rule: str) -> None:
    compared = {"float64": 0, "float32": 0}
    for seed in range(10):
        case = random_case(seed, rule).rounded()
        references = case.clear_references("float64")
        for dtype, tolerance in (("float64", 1e-13), ("float32", 1e-5)):
            activity = case.simulate(backend, dtype)
            for sample, layers in references.items():
                if case.margin(layers, sample) > BORDERLINE[dtype]:
                    compared[dtype] += 1
                    assert_same_spikes(activity, layers, sample, tolerance)
    assert compared["float64"] == 40
    assert compared["float32"] >= 30


@pytest.mark.parametrize("width", [15, 16, 17, 64, 65, 201, 430, 603])
@pytest.mark.parametrize(("rule", "delta_t"), [("drop", 0.0), ("drop", 0.0004), ("graded", 0.01), ("clocked", 0.01)])
def test_wide_layers_agree_with_the_reference(backend: str, width: int, rule: str, delta_t: float) -> None:
    case = random_case(width, rule, sizes=(6, width, 3), samples=1, delta_t=delta_t, max_spikes=[4, 12])
    [(sample, layers)] = case.clear_references().items()
    assert_same_spikes(case.simulate(backend), layers, sample, tolerance=1e-12)


@pytest.mark.parametrize("delta_t", [0.0, 0.00001, 0.0004])
@pytest.mark.parametrize("rule", EVENT_RULES)
def test_layer_that_fires_all_at_once_agrees_with_the_reference(backend: str, rule: str, delta_t: float) -> None:
    # Hundreds of spikes of one sample, most within a millisecond, have to reach the next layer in order of time.
    case = random_case(1, rule, sizes=(4, 70, 3), samples=1, delta_t=delta_t, max_spikes=[6, 20])
    case = case.replace(weights=[abs(case.weights[0]) * 40, case.weights[1]])
    [(sample, layers)] = case.clear_references().items()
    assert_same_spikes(case.simulate(backend), layers, sample, tolerance=1e-12)


def test_many_inputs_in_many_groups_agree_with_the_reference(backend: str) -> None:
    case = random_case(3, sizes=(400, 8, 3), samples=2, delta_t=0.0005, max_spikes=[30, 30])
    activity, clear = case.simulate(backend), case.clear_references()
    assert len(clear) == 2
    for sample, layers in clear.items():
        assert_same_spikes(activity, layers, sample, tolerance=1e-12)


# Against numerical integration of eq. 1 and 2


@pytest.mark.parametrize("delta_t", [0.0, 0.008])
@pytest.mark.parametrize("rule", EVENT_RULES)
def test_spikes_are_those_of_an_ode_solver(backend: str, rule: str, delta_t: float) -> None:
    case = random_case(11, rule, samples=2, delta_t=delta_t)
    activity = case.simulate(backend)
    for sample in range(2):
        layers = case.reference(sample, solve=reference.ode)
        assert case.margin(layers, sample) > 1e-6
        assert_same_spikes(activity, layers, sample, tolerance=1e-10)


def test_spikes_are_those_of_an_ode_solver_on_a_long_window(backend: str) -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 1000 * TAU_SYN, (1, 2, 12)), axis=-1)
    case = random_case(0, sizes=(2, 2, 1), times=times, duration=1000 * TAU_SYN, delta_t=0.0, max_spikes=[200, 200])
    layers = case.reference(0, solve=reference.ode)
    assert_same_spikes(case.simulate(backend), layers, 0, tolerance=1e-9)
    assert len(kept(case.simulate(backend)[0].times)) > 50


# By hand


def test_single_spike_crosses_where_the_closed_form_says(backend: str) -> None:
    [activity] = one_neuron([6.0], [0.03], delta_t=0.0).simulate(backend)
    assert activity.times[0, 0, 0] == pytest.approx(0.03 + spike_after(0.2, 6.0), abs=1e-15)


def test_input_acts_from_its_tick_on(backend: str) -> None:
    [activity] = one_neuron([6.0], [0.033], delta_t=0.01, rule="graded").simulate(backend)
    assert activity.times[0, 0, 0] == pytest.approx(0.04 + spike_after(0.2, 6.0), abs=1e-15)


@pytest.mark.parametrize(("excess", "spikes"), [(-1e-9, 0), (1e-9, 1)])
def test_potential_that_just_misses_the_threshold_does_not_fire(backend: str, excess: float, spikes: int) -> None:
    # A single input raises the potential to w tau / 4.
    case = one_neuron([4 * 0.2 / TAU * (1 + excess)], [0.01], delta_t=0.0, duration=1.0)
    assert case.simulate(backend)[0].spike_count.sum() == spikes


@pytest.mark.parametrize(("excess", "spikes"), [(-1e-9, 0), (1e-9, 1)])
def test_crossing_counts_up_to_the_end_of_the_window(backend: str, excess: float, spikes: int) -> None:
    end = (0.01 + spike_after(0.2, 6.0)) * (1 + excess)
    [activity] = one_neuron([6.0], [0.01], delta_t=0.0, duration=end).simulate(backend)
    assert activity.spike_count.sum() == spikes


@pytest.mark.parametrize("rule", RULES)
def test_empty_input_gives_silence(backend: str, rule: str) -> None:
    case = random_case(0, rule, times=np.full((3, 6, 2), np.inf))
    for activity in case.simulate(backend):
        assert np.isinf(activity.times).all() and activity.spike_count.sum() == 0


@pytest.mark.parametrize("rule", RULES)
def test_inhibited_neurons_stay_silent(backend: str, rule: str) -> None:
    case = random_case(0, rule)
    for activity in case.replace(weights=[-abs(w) for w in case.weights]).simulate(backend):
        assert np.isinf(activity.times).all() and np.isinf(activity.discretized).all()
        assert activity.spike_count.sum() == activity.dropped.sum() == activity.truncated_neurons.sum() == 0


def test_no_samples_give_empty_arrays_of_the_right_shape(backend: str) -> None:
    activity = random_case(0, times=np.zeros((0, 6, 2))).simulate(backend)
    assert [a.times.shape for a in activity] == [(0, 5, 12), (0, 4, 12), (0, 3, 12)]
    assert [a.dropped.shape for a in activity] == [(0,)] * 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_times_are_padded_to_the_limit_in_the_type_of_the_run(backend: str, dtype: str) -> None:
    for activity in random_case(0, "merge").simulate(backend, dtype):
        assert activity.times.shape == activity.discretized.shape == (4, activity.spike_count.shape[1], 12)
        assert activity.times.dtype == activity.discretized.dtype == dtype
        assert (np.diff(np.where(np.isinf(activity.times), 1e9 + np.arange(12), activity.times)) > 0).all()


@pytest.mark.parametrize("rule", RULES)
def test_every_neuron_at_its_limit_is_counted(backend: str, rule: str) -> None:
    limit = 1 if rule == "drop" else 2  # neurons driven this hard drop their second crossing
    case = random_case(0, rule, max_spikes=[limit] * 3)
    activity = case.replace(weights=[abs(w) * 50 for w in case.weights]).simulate(backend)
    for layer in activity:
        assert (layer.truncated_neurons == layer.times.shape[1]).all()
        assert (np.isfinite(layer.times).sum(axis=-1) == limit).all()


def test_inputs_on_one_tick_act_together(backend: str) -> None:
    together = one_neuron([90.0, -90.0], [0.051, 0.059], delta_t=0.01)
    apart = one_neuron([90.0, -90.0], [0.049, 0.051], delta_t=0.01)
    assert together.simulate(backend)[0].spike_count.sum() == 0
    assert apart.simulate(backend)[0].spike_count.sum() > 0


@pytest.mark.parametrize("rule", RULES)
def test_inputs_after_the_window_do_nothing(backend: str, rule: str) -> None:
    # The last one falls into the window but is sent after it.
    case = one_neuron([6.0, 90.0, 90.0], [0.03, 0.2, 0.192], duration=0.195, rule=rule)
    alone = case.replace(times=np.where(case.times > 0.1, np.inf, case.times))
    np.testing.assert_array_equal(case.simulate(backend)[0].times, alone.simulate(backend)[0].times)


def test_input_on_the_grid_is_sent_a_full_step_later(backend: str) -> None:
    for tick in range(19):
        [activity] = one_neuron([6.0], [tick * 0.01], rule="graded", duration=0.5).simulate(backend)
        assert activity.times[0, 0, 0] == pytest.approx((tick + 1) * 0.01 + spike_after(0.2, 6.0))


# Crossings before the own spike has left: 200 raises the potential from 0 to the threshold within a tick, many times.


def test_drop_ignores_crossings_until_the_spike_has_left(backend: str) -> None:
    [activity] = one_neuron([200.0], [0.015], rule="drop", duration=2.0).simulate(backend)
    # The second crossing is ignored, the potential stays high, and the current decays below what a crossing needs.
    assert kept(activity.discretized).tolist() == pytest.approx([0.03])
    assert activity.dropped.tolist() == [1] and activity.spike_count.tolist() == [[1]]


def test_dropping_neuron_fires_again_after_it_came_down(backend: str) -> None:
    # The inhibition pulls the potential below the threshold before the third input lifts it again.
    [activity] = one_neuron([200.0, -330.0, 300.0], [0.015, 0.025, 0.065], rule="drop").simulate(backend)
    assert kept(activity.discretized).tolist() == pytest.approx([0.03, 0.09])
    assert activity.dropped.tolist() == [2]


def test_merge_resets_without_sending(backend: str) -> None:
    [activity] = one_neuron([200.0], [0.015], rule="merge", duration=0.05).simulate(backend)
    times = kept(activity.times)
    assert len(times) == activity.spike_count.sum() + activity.merged.sum()
    assert kept(activity.discretized).tolist() == pytest.approx([0.03, 0.04, 0.05])
    # The first crossing of a tick is the one that is sent.
    ticks = np.floor(times / 0.01)
    first = np.flatnonzero(np.diff(ticks, prepend=-1))
    np.testing.assert_array_equal(np.isfinite(activity.discretized[0, 0, : len(times)]).nonzero()[0], first)


def test_defer_sends_on_the_next_free_tick(backend: str) -> None:
    [activity] = one_neuron([60.0], [0.015], rule="defer", duration=0.2, limit=12).simulate(backend)
    ticks = np.round(kept(activity.discretized) / 0.01)
    assert ticks.tolist() == list(range(3, 15))
    assert activity.deferred.sum() == (ticks > np.floor(kept(activity.times) / 0.01) + 1).sum() > 0
    assert activity.lost_spikes.sum() == 0


def test_defer_loses_and_counts_what_finds_no_tick_in_the_window(backend: str) -> None:
    [activity] = one_neuron([200.0], [0.015], rule="defer", duration=0.05).simulate(backend)
    assert kept(activity.discretized).tolist() == pytest.approx([0.03, 0.04, 0.05])
    assert activity.lost_spikes.sum() == np.isfinite(activity.times).sum() - 3 > 0


def test_graded_sends_every_crossing_on_its_own_tick(backend: str) -> None:
    [activity] = one_neuron([200.0], [0.015], rule="graded", duration=0.045).simulate(backend)
    times = kept(activity.times)
    np.testing.assert_allclose(kept(activity.discretized), (np.floor(times / 0.01) + 1) * 0.01)
    assert len(set(np.round(kept(activity.discretized), 6))) < len(times) == activity.spike_count.sum()
    assert activity.dropped.sum() == activity.merged.sum() == activity.deferred.sum() == 0


def test_receiver_of_graded_spikes_sees_their_count(backend: str) -> None:
    two = one_neuron([200.0], [0.015], rule="graded", limit=2, duration=0.5)
    two = two.replace(weights=[*two.weights, np.array([[3.0]])], thresholds=[0.2, 0.2], max_spikes=[2, 30])
    hidden, output = two.simulate(backend)
    assert kept(hidden.discretized).tolist() == pytest.approx([0.03, 0.03])
    assert output.times[0, 0, 0] == pytest.approx(0.03 + spike_after(0.2, 6.0))


def test_clock_sees_an_input_one_tick_after_it_is_sent(backend: str) -> None:
    [activity] = one_neuron([1e4], [0.015], rule="clocked", limit=3).simulate(backend)
    assert kept(activity.discretized).tolist() == pytest.approx([0.03, 0.04, 0.05])


def test_clock_misses_what_happens_between_its_ticks(backend: str) -> None:
    # The potential is highest 0.18 s after the input, and nearly gone at the next tick.
    case = one_neuron([4.0], [0.1], delta_t=1.0, duration=3.0)
    assert case.simulate(backend)[0].spike_count.sum() == 1
    assert case.replace(rule="clocked").simulate(backend)[0].spike_count.sum() == 0


def test_clocked_crossing_is_where_the_potential_crossed_or_else_the_tick(backend: str) -> None:
    [activity] = one_neuron([60.0], [0.0], rule="clocked", duration=0.05).simulate(backend)
    times, sent = kept(activity.times), kept(activity.discretized)
    assert times[0] == pytest.approx(0.01 + spike_after(0.2, 60.0))
    assert times[0] < sent[0] and times[-1] == pytest.approx(sent[-1])


@pytest.mark.parametrize("rule", EVENT_RULES)
def test_spike_that_leaves_after_the_window_counts_but_reaches_nobody(backend: str, rule: str) -> None:
    first = one_neuron([6.0], [0.0], rule=rule, delta_t=0.0).simulate(backend)[0].times[0, 0, 0]
    case = one_neuron([6.0], [0.0], rule=rule, duration=0.01 + first + 1e-4)
    case = case.replace(weights=[*case.weights, np.array([[1e6]])], thresholds=[0.2, 0.2], max_spikes=[30, 30])
    hidden, output = case.simulate(backend)
    assert hidden.spike_count.sum() == 1 and kept(hidden.discretized)[0] > case.duration
    assert output.spike_count.sum() == 0


# Bad arguments


def test_clock_without_time_step_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=r"clocked.*time step above 0"):
        random_case(0, "clocked", delta_t=0.0).simulate(backend)


def test_unknown_rule_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=r"'queue'; it must be one of drop, merge"):
        random_case(0, "queue").simulate(backend)


def test_spikes_of_another_layer_size_are_refused(backend: str) -> None:
    spikes = discretize_spikes(Spikes.from_padded(np.zeros((1, 7))), 0.008)
    with pytest.raises(ValueError, match="7 neurons; the network has 6 inputs"):
        random_case(0).network(backend).simulate(spikes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": [3]}, "two layers or more"),
        ({"sizes": [3, 0]}, "one neuron or more"),
        ({"thresholds": [0.0]}, "thresholds is .*entries above 0"),
        ({"max_spikes": [1, 1]}, "max_spikes is .*must have 1 entries"),
        ({"tau_syn": math.inf}, "tau_syn is inf"),
        ({"duration": -1.0}, "duration is -1.0"),
        ({"dtype": "float16"}, "'float16'; it must be float32 or float64"),
        ({"weights": [np.zeros((3, 2))]}, r"weights have the shapes .*\(post, pre\)"),
    ],
)
def test_impossible_network_is_refused(backend: str, changes: dict, message: str) -> None:
    settings = dict(sizes=[3, 2], thresholds=[0.1], max_spikes=[1], tau_syn=0.13, duration=0.2, device=backend)
    with pytest.raises(ValueError, match=message):
        Network(**(settings | changes))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", RULES)
def test_weights_that_are_not_finite_touch_no_other_neuron(backend: str, rule: str, value: float) -> None:
    case = random_case(0, rule, sizes=(6, 5))
    broken = case.weights[0].copy()
    broken[2, 3] = value
    [whole], [activity] = case.simulate(backend), case.replace(weights=[broken]).simulate(backend)
    np.testing.assert_array_equal(np.delete(activity.times, 2, axis=1), np.delete(whole.times, 2, axis=1))


# Order


@given(keys=st.lists(st.integers(0, 20), max_size=300), begin=st.integers(0, 40))
def test_crossings_are_sorted_stably_whatever_their_number(keys: list[int], begin: int) -> None:
    from bats_lab.engine.cpu.order import _sort_part

    times = np.array(keys, np.float32)
    order = np.arange(len(keys), dtype=np.int32)[::-1].copy()
    wanted = order.copy()
    begin = min(begin, len(keys))
    wanted[begin:] = wanted[begin:][np.argsort(times[wanted[begin:]], kind="stable")]
    _sort_part(order, times, begin, len(keys))
    np.testing.assert_array_equal(order, wanted)


# Stochastic rounding


def mixed(value: int) -> int:
    """The finalizer of SplitMix64."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


@pytest.mark.parametrize("rule", ["drop", "merge", "graded"])
def test_spikes_are_rounded_by_the_random_numbers_of_their_places(backend: str, rule: str) -> None:
    case = random_case(1, rule, delta_t=0.012, sizes=(6, 40, 2), samples=5)
    networks, key = case.network(backend).networks, 0x0123456789ABCDEF
    samples = networks.load([case.spikes()])
    networks.forward(samples, np.arange(5), [Mode(rule)])
    [times], [sent] = networks.crossings(0)
    networks.forward(samples, np.arange(5), [Mode(rule)], noise=[key])
    [same_times], [rounded] = networks.crossings(0)
    # Whether and when a neuron crosses, and what its rule then does, is as it is without.
    np.testing.assert_array_equal(times, same_times)
    np.testing.assert_array_equal(np.isinf(sent), np.isinf(rounded))
    moves = set()
    for i, j, k in np.argwhere(np.isfinite(rounded)).tolist():
        random = (mixed(mixed(key) + (i * 40 + j) * 12 + k) >> 40) / 2**24
        assert rounded[i, j, k] == pytest.approx(0.012 * math.floor(times[i, j, k] / 0.012 + 0.5 + random))
        moves.add(round((rounded[i, j, k] - sent[i, j, k]) / 0.012))
    assert moves == {-1, 0, 1}


def test_deferred_spikes_are_rounded_from_where_they_were_deferred_to(backend: str) -> None:
    case = random_case(1, "defer", delta_t=0.012, sizes=(6, 40, 2), samples=5)
    networks = case.network(backend).networks
    samples = networks.load([case.spikes()])
    networks.forward(samples, np.arange(5), [Mode("defer")])
    [counts], [sent] = networks.counts(0), networks.crossings(0)[1]
    networks.forward(samples, np.arange(5), [Mode("defer")], noise=[7])
    np.testing.assert_array_equal(networks.counts(0)[0], counts)
    moves = (networks.crossings(0)[1][0][np.isfinite(sent)] - sent[np.isfinite(sent)]) / 0.012
    assert counts[:, 2].any() and set(np.round(moves)) == {-1, 0, 1}


def test_next_layer_receives_spikes_where_they_were_rounded_to(backend: str) -> None:
    case = random_case(4, "graded", delta_t=0.012, sizes=(6, 8, 3), samples=3)
    networks = case.network(backend).networks
    networks.forward(networks.load([case.spikes()]), np.arange(3), [Mode("graded")], noise=[11])
    [found], [rounded] = networks.crossings(1)[0], networks.crossings(0)[1]
    below = Spikes.from_padded(np.where(np.isfinite(rounded), rounded - 0.006, np.inf))
    alone = case.replace(weights=case.weights[1:], thresholds=case.thresholds[1:], max_spikes=[12]).network(backend)
    [activity] = alone.simulate(discretize_spikes(below, 0.012), rule="graded")
    np.testing.assert_allclose(found, activity.times, rtol=0, atol=1e-12)
