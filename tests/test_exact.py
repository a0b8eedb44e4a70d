"""Graphs in continuous time: closed forms, an ODE solver, and a network that others published."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import lambertw

from bats_lab.network.exact import next_crossing, simulate_exactly
from bats_lab.network.feedforward import Network
from bats_lab.network.graphs import INPUT, Connection, Graph, Population, graph_of_network
from bats_lab.spikes.trains import Spikes

PUBLISHED = Path(os.environ.get("BATS_LAB_DATA", "")) / "published" / "yin_yang_h30.npz"


def crossing(v: float, q: float, i: float, tau_mem: float, tau_syn: float, threshold: float) -> float:
    values = (v, q, i, 1 / tau_mem, 1 / tau_syn if tau_syn else 0, threshold)
    return next_crossing(*map(float, values))


@pytest.mark.parametrize("current", [1.0, 2.0, 30.0])
def test_crossing_of_double_time_constant_is_the_closed_form(current: float) -> None:
    # v = i τ (y − y²), y = exp(−x/τ): a quadratic (eq. 8)
    tau, threshold, v = 2.0, 0.35, 0.1
    a, b = current * tau, v + current * tau
    y = (b + np.sqrt(b * b - 4 * a * threshold)) / (2 * a)
    np.testing.assert_allclose(crossing(v, 0, current, tau, 1.0, threshold), -tau * np.log(y), rtol=1e-13)


@pytest.mark.parametrize("current", [1.2, 2.0, 30.0])
def test_crossing_of_equal_time_constants_is_lamberts_w(current: float) -> None:
    # v = i x exp(−x/τ), so −x/τ = W(−θ/(i τ))
    tau, threshold = 0.7, 0.3
    exact = -tau * lambertw(-threshold / (current * tau)).real
    np.testing.assert_allclose(crossing(0, 0, current, tau, tau, threshold), exact, rtol=1e-13)
    np.testing.assert_allclose(crossing(0, 0, current, tau, tau * (1 + 1e-12), threshold), exact, rtol=1e-10)


def test_crossing_without_synapse_is_a_logarithm() -> None:
    np.testing.assert_allclose(crossing(0.2, 3.0, 0, 0.5, 0, 1.0), 0.5 * np.log((1.5 - 0.2) / (1.5 - 1.0)), rtol=1e-14)
    assert crossing(0.2, 3.0, 0, np.inf, 0, 1.0) == pytest.approx(0.8 / 3, rel=1e-15)
    assert crossing(0.2, 1.9, 0, 0.5, 0, 1.0) == np.inf


def test_crossing_is_found_wherever_a_fine_grid_sees_one() -> None:
    rng = np.random.default_rng(1)
    x = np.linspace(0, 60, 60_001)[1:]
    crossed = 0
    for _ in range(200):
        tau_mem, tau_syn = rng.choice([0.3, 1.0, 1.7, 2.0, np.inf]), rng.choice([0.3, 1.0, 1.7])
        v, q, i = rng.uniform(-2, 0.9), rng.choice([0, rng.uniform(-1, 2)]), rng.uniform(-6, 6)
        leak, delta = 1 / tau_mem, 1 / tau_syn - 1 / tau_mem
        spread = -np.expm1(-delta * x) / delta if delta else x
        area = -np.expm1(-leak * x) / leak if leak else x
        potential = v * np.exp(-leak * x) + q * area + i * np.exp(-leak * x) * spread
        above = np.flatnonzero(potential > 1.0)
        found = crossing(v, q, i, tau_mem, tau_syn, 1.0)
        if len(above):
            crossed += 1
            assert abs(found - x[above[0]]) < 1.1e-3
        elif np.isfinite(found):  # later than the grid, or too narrow for it
            assert found > 60 or potential.max() > 1 - 1e-6
    assert 40 < crossed < 160


@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(0.02, 0.005), (0.01, 0.01), (0.004, 0.012), (np.inf, 0.01)])
def test_spikes_are_those_of_an_ode_solver(tau_mem: float, tau_syn: float) -> None:
    rng = np.random.default_rng(3)
    inputs, weights = np.sort(rng.uniform(0, 0.05, 12)), rng.uniform(-0.4, 1.0, 12) * 400
    population = Population("n", 1, tau_mem, tau_syn, threshold=1.0, drive=20.0, v_leak=0.1, reset="subtract")
    graph = Graph(12, [population], [Connection(INPUT, "n", weights[None])], pulse=1e-3)
    found = simulate_exactly(graph, Spikes.from_padded(inputs[None]), duration=0.08).spikes["n"].times

    def slope(_: float, y: np.ndarray) -> list[float]:
        return [(0.1 - y[0]) / tau_mem + y[1], (20.0 - y[1]) / tau_syn]

    def rises(_: float, y: np.ndarray) -> float:
        return y[0] - 1.0

    rises.terminal, rises.direction = True, 1  # type: ignore[attr-defined]
    state, now, expected = np.array([0.1, 0.0]), 0.0, []
    stops = [*zip(inputs, weights, strict=True), (0.08, 0.0)]
    while stops:
        solved = solve_ivp(slope, (now, stops[0][0]), state, events=rises, rtol=1e-10, atol=1e-12)
        state, now = solved.y[:, -1], solved.t[-1]
        if solved.status == 1:
            expected.append(now)
            state = state - np.array([1.0, 0.0])
        else:
            state = state + np.array([0.0, stops.pop(0)[1]])
    assert len(expected) > 3
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_trained_layers_fire_as_the_engine_has_them() -> None:
    rng = np.random.default_rng(0)
    network = Network(
        (8, 12, 4), thresholds=[0.1, 0.3], max_spikes=[90, 90], tau_syn=0.13, duration=0.2, dtype="float64",
        device="cpu", weights=[rng.uniform(-1, 3, (12, 8)), rng.uniform(-1, 3, (4, 12))],
    )  # fmt: skip
    inputs = Spikes.from_padded(rng.uniform(0, 0.1, (20, 8)))
    response = simulate_exactly(graph_of_network(network), inputs, duration=0.2)
    for layer, activity in enumerate(network.simulate(inputs), start=1):
        found = response.spikes[f"layer{layer}"]
        assert activity.spike_count.sum() == len(found.times) > 50
        expected = np.sort(activity.times[np.isfinite(activity.times)])
        np.testing.assert_allclose(np.sort(found.times), expected, atol=1e-9)


def test_inputs_of_one_moment_act_together() -> None:
    lif = Population("n", 1, tau_mem=1.0, threshold=1.0, kick=2.0)
    graph = Graph(2, [lif], [Connection(INPUT, "n", np.array([[1.0, -0.8]]))], pulse=0.01)
    assert len(simulate_exactly(graph, Spikes.from_padded(np.array([[0.1, 0.1]])), duration=1).spikes["n"].times) == 0


def test_delays_are_kept_exactly() -> None:
    graph = Graph(
        2,
        [Population("n", 1, tau_mem=np.inf, threshold=1.0, kick=1.25)],
        [Connection(INPUT, "n", np.array([[1.0, 1.0]]), delay=np.array([0.3, 0.0]))],
        pulse=0.01,
    )
    found = simulate_exactly(graph, Spikes.from_padded(np.array([[0.1, 0.2]])), duration=1).spikes["n"].times
    np.testing.assert_allclose(found, [0.208, 0.406], rtol=1e-12)


def test_neuron_that_fires_without_end_is_named() -> None:
    graph = Graph(1, [Population("hot", 1, np.inf, threshold=1e-9, drive=1.0)], [], pulse=0.01)
    with pytest.raises(ValueError, match="'hot' fired"):
        simulate_exactly(graph, Spikes.from_padded(np.array([[0.1]])), duration=1)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs published/yin_yang_h30.npz in BATS_LAB_DATA")
def test_published_network_gives_the_spike_times_it_gave_there() -> None:
    data = np.load(PUBLISHED)
    weights = [data["weights_hidden"], data["weights_output"]]
    network = Network(
        (4, 30, 3), thresholds=[1, 1], max_spikes=[1, 1], tau_syn=1.0, duration=20.0, weights=weights, dtype="float64"
    )
    inputs, expected = Spikes.from_padded(data["input_times"]), data["output_times"]
    engine = network.simulate(inputs)[-1].times[:, :, 0]
    events = simulate_exactly(graph_of_network(network), inputs, duration=20.0).spikes["layer2"].padded(1)
    for times in (engine, events[:, :, 0]):
        fired = np.isfinite(expected)
        assert (np.isfinite(times) == fired).all()
        assert np.abs(times[fired] - expected[fired]).max() < 1e-4
        assert np.count_nonzero(times.argmin(axis=1) == data["labels"]) == 967
