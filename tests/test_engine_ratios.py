"""Neurons whose membrane is not twice as slow as their synapse: the same engine without the closed form."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import assume, given
from scipy.special import lambertw
from strategies import (
    ESTIMATORS,
    EVENT_RULES,
    RULES,
    Case,
    assert_gradients_of_reference,
    assert_same_activity,
    assert_same_spikes,
    cases,
    kept,
    loss,
    random_case,
    with_weight,
)

from bats_lab.config import Config
from bats_lab.data.datasets import load_dataset
from bats_lab.engine import Mode, Neurons, Shape, get_backend
from bats_lab.network.exact import simulate_exactly
from bats_lab.network.feedforward import Network
from bats_lab.network.graphs import INPUT, Connection, Graph, Population
from bats_lab.runs.training import train
from bats_lab.spikes.estimators import STRAIGHT_THROUGH
from bats_lab.spikes.trains import Spikes

RATIOS = (0.4, 1.0, 1.0001, 1.5, 3.0, 5.0, 20.0)


def case_of(ratio: float, seed: int, rule: str = "drop", **changes) -> Case:
    """An ordinary case with another membrane, whose thresholds are as hard to reach as those of ratio 2."""
    case = random_case(seed, rule, **changes)
    thresholds = [v * min(1.0, ratio) for v in case.thresholds]
    return case.replace(tau_mem=ratio * case.tau_syn, thresholds=thresholds)


@given(case=cases(ratios=RATIOS, windows=(1.5, 10.0, 100.0)))
def test_spikes_are_those_of_the_reference(backend: str, case: Case) -> None:
    clear = case.clear_references()
    assume(clear)
    activity = case.simulate(backend)
    for sample, layers in clear.items():
        assert_same_spikes(activity, layers, sample, tolerance=1e-11 * (case.duration + 100 * case.tau_syn))


@pytest.mark.parametrize("ratio", [0.4, 1.0, 1.0001, 3.0])
@pytest.mark.parametrize("rule", RULES)
def test_hardly_any_sample_is_left_out_as_borderline(backend: str, rule: str, ratio: float) -> None:
    compared = spikes = 0
    for seed in range(4):
        case = case_of(ratio, seed, rule)
        activity = case.simulate(backend)
        spikes += sum(int(layer.spike_count.sum()) for layer in activity)
        for sample, layers in case.clear_references().items():
            compared += 1
            assert_same_spikes(activity, layers, sample, tolerance=1e-12)
    assert compared == 16 and spikes > 100


@pytest.mark.parametrize("ratio", [1.0, 3.0])
@pytest.mark.parametrize(("rule", "delta_t"), [("drop", 0.0), ("drop", 0.0004), ("graded", 0.01), ("clocked", 0.01)])
def test_wide_layers_agree_with_the_reference(backend: str, rule: str, delta_t: float, ratio: float) -> None:
    case = case_of(ratio, 201, rule, sizes=(6, 201, 3), samples=1, delta_t=delta_t, max_spikes=[4, 12])
    [(sample, layers)] = case.clear_references().items()
    assert_same_spikes(case.simulate(backend), layers, sample, tolerance=1e-12)


@pytest.mark.parametrize("delta_t", [0.0, 0.008])
@pytest.mark.parametrize("ratio", [1.0, 1.5, 5.0])
def test_spikes_are_those_of_an_ode_solver(backend: str, ratio: float, delta_t: float) -> None:
    case = case_of(ratio, 1, "graded", delta_t=delta_t, samples=2)
    activity = case.simulate(backend)
    for sample in range(2):
        assert_same_spikes(activity, case.reference(sample, solve=reference.ode), sample, tolerance=1e-9)


@pytest.mark.parametrize("ratio", RATIOS)
def test_float32_finds_the_spikes_of_float64(backend: str, ratio: float) -> None:
    case = case_of(ratio, 2, delta_t=0.0).rounded()
    for single, double in zip(case.simulate(backend, "float32"), case.simulate(backend), strict=True):
        np.testing.assert_array_equal(single.spike_count, double.spike_count)
        np.testing.assert_allclose(kept(single.times), kept(double.times), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("excess", "spikes"), [(-1e-9, 0), (1e-9, 1)])
def test_potential_that_just_misses_the_threshold_does_not_fire(backend: str, excess: float, spikes: int) -> None:
    # With one time constant a single input raises the potential to w τ / e.
    case = random_case(0, sizes=(1, 1), samples=1, delta_t=0.0, duration=2.0, tau_mem=0.13, thresholds=[0.2])
    case = case.replace(times=np.full((1, 1, 1), 0.01), weights=[np.array([[0.2 * np.e / 0.13 * (1 + excess)]])])
    assert case.simulate(backend)[0].spike_count.sum() == spikes


def test_crossing_with_one_time_constant_is_lambert_w(backend: str) -> None:
    case = random_case(0, sizes=(1, 1), samples=1, delta_t=0.0, duration=2.0, tau_mem=0.13, thresholds=[0.2])
    case = case.replace(times=np.full((1, 1, 1), 0.01), weights=[np.array([[6.0]])])
    wait = -0.13 * lambertw(-0.2 / (6.0 * 0.13)).real  # w t exp(-t/τ) = ϑ
    assert case.simulate(backend)[0].times[0, 0, 0] == pytest.approx(0.01 + wait, abs=1e-15)


def test_membrane_twice_as_slow_is_the_closed_form_bit_for_bit(backend: str) -> None:
    case = random_case(1, "defer")
    assert_same_activity(case.simulate(backend), case.replace(tau_mem=2 * case.tau_syn).simulate(backend))


def test_ratio_near_two_gives_nearly_the_spikes_of_the_closed_form(backend: str) -> None:
    case = random_case(1, delta_t=0.0)
    near = case.replace(tau_mem=2 * case.tau_syn * (1 + 1e-10))
    for a, b in zip(case.simulate(backend), near.simulate(backend), strict=True):
        np.testing.assert_allclose(a.times, b.times, rtol=0, atol=1e-8)
    for a, b in zip(case.gradients(backend), near.gradients(backend), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(a).max())


# Gradients


@given(case=cases(ratios=RATIOS, windows=(1.5, 10.0), estimators=(STRAIGHT_THROUGH, *ESTIMATORS)))
def test_gradients_are_those_of_the_reference(backend: str, case: Case) -> None:
    assume(assert_gradients_of_reference(case, backend, tolerance=1e-6))


@pytest.mark.parametrize("ratio", [0.4, 1.0, 5.0])
@pytest.mark.parametrize("delta_t", [0.0, 0.0005, 0.008, 0.03])
@pytest.mark.parametrize("rule", RULES)
def test_gradients_of_ordinary_networks_are_exact(backend: str, rule: str, delta_t: float, ratio: float) -> None:
    if rule == "clocked" and delta_t == 0:
        pytest.skip("a clock needs a time step")
    case = case_of(ratio, 1, rule, delta_t=delta_t)
    assert assert_gradients_of_reference(case, backend, tolerance=1e-10) == 4


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("estimator", ESTIMATORS[:2])
def test_gradients_of_other_estimators_are_exact(backend: str, estimator, rule: str) -> None:
    case = case_of(3.0, 1, rule, delta_t=0.008, estimator=estimator)
    assert assert_gradients_of_reference(case, backend, tolerance=1e-10) == 4


@pytest.mark.parametrize("rule", EVENT_RULES)
def test_gradients_of_wide_layers_are_exact(backend: str, rule: str) -> None:
    # Wide layers take the inputs of a tick in order of time.
    case = case_of(3.0, 0, rule, sizes=(6, 70, 66, 3), samples=1, delta_t=0.02, max_spikes=[4, 4, 12])
    assert assert_gradients_of_reference(case, backend, tolerance=1e-9) == 1


@pytest.mark.parametrize("ratio", [0.4, 1.0, 1.5, 2.0, 3.0, 5.0])
def test_gradients_are_central_differences(backend: str, ratio: float) -> None:
    case = case_of(ratio, 3, delta_t=0.0, sizes=(5, 4, 3), samples=3)
    gradients, n_spikes = case.gradients(backend), case.simulate(backend)[-1].spike_count.sum()
    for layer, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            up, down = (with_weight(case, layer, index, change) for change in (1e-6, -1e-6))
            if {int(c.simulate(backend)[-1].spike_count.sum()) for c in (up, down)} != {int(n_spikes)}:
                continue  # a spike came or went
            difference = (loss(up, backend) - loss(down, backend)) / 2e-6
            assert gradient[index] == pytest.approx(difference, rel=1e-5, abs=1e-6 * np.abs(gradient).max())


# Layers and networks that differ


CONSTANTS = {"tau_syn": (0.01, 0.02), "tau_mem": (0.03, 0.02)}


def test_layers_with_constants_of_their_own_are_those_of_the_event_based_simulator(backend: str) -> None:
    rng = np.random.default_rng(4)
    weights = [rng.normal(1, 2, (20, 6)) * 60, rng.normal(0.5, 1, (3, 20)) * 12]
    inputs = Spikes.from_padded(np.sort(rng.uniform(0, 0.1, (4, 6, 3)), axis=-1))
    network = Network(
        (6, 20, 3), thresholds=[1.0, 1.3], max_spikes=[300, 900], duration=0.2, weights=weights, dtype="float64",
        device=backend, **CONSTANTS,
    )  # fmt: skip
    shapes = zip("ab", (20, 3), CONSTANTS["tau_mem"], CONSTANTS["tau_syn"], (1.0, 1.3), strict=True)
    populations = [Population(*shape, threshold=threshold, reset="subtract") for *shape, threshold in shapes]
    graph = Graph(6, populations, [Connection(INPUT, "a", weights[0]), Connection("a", "b", weights[1])], pulse=1e-3)
    wanted = simulate_exactly(graph, inputs, duration=0.2)
    for name, activity in zip("ab", network.simulate(inputs), strict=True):
        for sample in range(4):
            times = np.sort(kept(activity.times[sample]))
            assert len(times) > 10
            np.testing.assert_allclose(times, np.sort(wanted.spikes[name].sample(sample)[1]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("rule", ["drop", "defer", "clocked"])
def test_networks_side_by_side_give_what_they_give_alone(backend: str, rule: str) -> None:
    case = random_case(2, rule)
    spikes, errors = case.network(backend).prepare(case.spikes()), case.errors()
    weights = [w[None] for w in case.weights]
    shape, modes = Shape((6, 5, 4, 3), tuple(case.max_spikes), "float64"), [Mode(rule=rule)]
    given = tuple(case.thresholds), case.tau_syn, case.duration
    neurons = [Neurons(*given, tau_mem) for tau_mem in (None, (0.13, 0.26, 0.5), 0.4)]

    def run(own: list[Neurons]) -> list:
        networks = get_backend(backend).networks(shape, own, [np.repeat(w, len(own), axis=0) for w in weights])
        networks.forward(networks.load([spikes] * len(own)), np.arange(4), modes * len(own))
        networks.backward(np.repeat(errors[None], len(own), axis=0))
        return [*(networks.crossings(layer)[0] for layer in range(3)), *networks.gradients()]

    together = run(neurons)
    for i, own in enumerate(neurons):
        for a, b in zip(together, run([own]), strict=True):
            np.testing.assert_array_equal(a[i], b[0])


@pytest.mark.parametrize("tau_mem", [0.0, -1.0, np.inf, (0.1,), (0.1, 0.0, 0.1)])
def test_time_constants_that_are_none_are_refused(tau_mem) -> None:
    with pytest.raises(ValueError, match=r"tau_mem is .*; it must be a time above 0, or one for each of the 3 layers"):
        random_case(0, tau_mem=tau_mem).network("cpu")


# Runs


def test_run_trains_with_time_constants_of_its_own() -> None:
    small = {"n_train": 300, "n_test": 100, "hidden": 40, "epochs": 12, "batch_size": 10, "delta_t": 0.002, "seed": 1}
    config = Config(
        tau_mem=(0.13, 0.05), tau_syn=0.05, threshold_hidden=0.1, threshold_output=0.15, learning_rate=0.01, **small
    )
    training = train(config, load_dataset("mnist_small", n_train=300, n_test=100), device="cpu")
    first, last = training.records[0], training.records[-1]
    assert last.train.loss < 0.6 * first.train.loss and last.test.accuracy > 0.6
    assert training.network.time_constants == [(0.13, 0.05), (0.05, 0.05)]
