"""Platforms: every recorded trace is reproduced, and each property of a profile does what its name says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bats_lab.network.feedforward import Network
from bats_lab.network.graphs import INPUT, Connection, Graph, Population, graph_of_network
from bats_lab.network.platforms import PLATFORMS, Profile, profile_named, simulate
from bats_lab.spikes.trains import Spikes

TRACES = np.load(Path(__file__).parent / "traces" / "lif.npz")
#: What the smallest weight adds where the recording was made: 1/256 in Lava's converter, 0.04/102.02 on SpiNNaker 2.
STEPS = {"lava_fixed": 1 / 256, "loihi": 1 / 256, "spinnaker2": 0.04 / 102.02}
#: The unit of the recorded potential.
UNITS = {"snntorch": 0.04, "spinnaker2": 0.04, "nengo": 0.1, "lava_fixed": 2**-14, "loihi": 2**-14}
#: Largest deviation of the potential from the recording, in thresholds.
DEVIATIONS = {
    "exact": 3e-8,
    "norse": 5e-7,
    "snntorch": 3e-7,
    "sinabs": 0,
    "rockpool": 4e-8,
    "spyx": 0,
    "nengo": 1e-8,
    "lava_float": 4e-7,
    "lava_fixed": 0,
    "loihi": 0,
    "spinnaker2": 1e-7,
}


def neuron(**options: object) -> Graph:
    """Return one LIF neuron; by default that of the recordings, whose input spikes last 0.1 ms."""
    values = {"tau_mem": np.float32(0.0025), "threshold": np.float32(0.1), "kick": 0.04} | options
    return Graph(1, [Population("lif", 1, **values)], [Connection(INPUT, "lif", np.array([[1.0]]))], pulse=1e-4)


def train(steps: list[int] | np.ndarray, delta_t: float = 1e-4) -> Spikes:
    return Spikes.from_padded(np.asarray(steps)[None, None] * delta_t)


def steps(graph: Graph, profile: str | Profile, given: list[int], n: int = 100) -> list[int]:
    response = simulate(graph, train(given), profile, delta_t=1e-4, duration=n * 1e-4)
    return (response.spikes["lif"].ticks - 1).tolist()


@pytest.mark.parametrize("name", DEVIATIONS)
def test_recorded_trace_is_reproduced(name: str) -> None:
    graph = neuron(reset="subtract" if name == "exact" else "zero")
    profile = replace(profile_named(name), step=STEPS.get(name))
    response = simulate(graph, train(TRACES["inputs"]), profile, delta_t=1e-4, duration=0.1, record=["lif"])
    fired = response.spikes["lif"]
    found = fired.times / 1e-4 if name == "exact" else fired.ticks - 1
    assert np.floor(found).astype(int).tolist() == TRACES[f"{name}_spikes"].tolist()
    potential, recorded = response.potential["lif"][0, 0], TRACES[name] * UNITS.get(name, 1)
    if name == "loihi":  # the chip's probe reads 128 in the step of a spike: bits of its state, not a potential
        potential, recorded = (np.delete(x, TRACES["loihi_spikes"]) for x in (potential, recorded))
    assert np.abs(potential - recorded).max() <= DEVIATIONS[name] * 0.1


def test_traces_hold_every_platform_of_the_table() -> None:
    assert set(PLATFORMS) - {"ideal"} == set(DEVIATIONS)
    assert sum(len(TRACES[f"{name}_spikes"]) for name in DEVIATIONS) == 44


def test_every_platform_names_its_source() -> None:
    assert all(profile.source for profile in PLATFORMS.values())


def test_delay_moves_each_layer_by_a_tick() -> None:
    layers = [Population(name, 1, tau_mem=0.0025, threshold=0.1, kick=0.04) for name in ("first", "lif")]
    wires = [Connection(a, b, np.array([[9.0]])) for a, b in ((INPUT, "first"), ("first", "lif"))]
    graph = Graph(1, layers, wires, pulse=1e-4)
    found = [steps(graph, replace(PLATFORMS["ideal"], delay=delay, spikes_per_tick=1), [10]) for delay in range(3)]
    assert found == [[10], [12], [14]]


def test_recurrent_spike_takes_a_tick_where_others_take_none() -> None:
    graph = neuron(reset="zero")
    graph = replace(graph, connections=[*graph.connections, Connection("lif", "lif", np.array([[3.0]]))])
    assert steps(graph, "norse", [10, 10, 10], 20) == list(range(10, 20))


def test_delays_of_a_connection_are_rounded_to_ticks() -> None:
    graph = Graph(
        2,
        [Population("lif", 1, tau_mem=0.0025, threshold=0.1, kick=0.04)],
        [Connection(INPUT, "lif", np.array([[3.0, 3.0]]), delay=np.array([3.2e-4, 0.8e-4]))],
        pulse=1e-4,
    )
    inputs = Spikes.from_padded(np.array([[0.001, 0.002]]))
    response = simulate(graph, inputs, "ideal", delta_t=1e-4, duration=0.01)
    assert (response.spikes["lif"].ticks - 1).tolist() == [13, 21]


def test_potential_at_the_threshold_fires_only_where_that_is_inclusive() -> None:
    graph = neuron(tau_mem=np.inf, threshold=1.0, kick=0.25)
    base = replace(PLATFORMS["ideal"], spikes_per_tick=1)
    assert steps(graph, base, [1, 2, 3, 4, 5]) == [4]
    assert steps(graph, replace(base, inclusive=False), [1, 2, 3, 4, 5]) == [5]


def test_many_spikes_per_tick_take_off_as_many_thresholds() -> None:
    graph = neuron(tau_mem=np.inf, threshold=1.0, kick=3.25, reset="subtract")
    base = PLATFORMS["ideal"]
    assert steps(graph, base, [5]) == [5, 5, 5]
    assert steps(graph, replace(base, spikes_per_tick=1), [5]) == [5, 6, 7]
    assert steps(graph, replace(base, reset="zero"), [5]) == [5]


@pytest.mark.parametrize("name", ["exact", "norse", "sinabs", "loihi"])
def test_neuron_stops_after_its_most_spikes(name: str) -> None:
    many = list(range(5, 90))
    for most in (1, 3):
        response = simulate(neuron(max_spikes=most), train(many), name, delta_t=1e-4, duration=0.01)
        assert len(response.spikes["lif"].times) == most
    assert len(simulate(neuron(), train(many), name, delta_t=1e-4, duration=0.01).spikes["lif"].times) > 5


def test_threshold_tested_before_the_input_fires_a_tick_later() -> None:
    late = ("threshold", "synapse", "input", "membrane", "reset")
    assert steps(neuron(kick=0.2), replace(PLATFORMS["ideal"], order=late), [7]) == [8]


def test_states_saturate_and_currents_wrap() -> None:
    chip = replace(PLATFORMS["lava_fixed"], step=1.0, state_bits=12, weight_bits=8)
    graph = neuron(tau_mem=np.inf, threshold=1e6, kick=16.0)
    for kick, highest in ((16.0, 2**11 - 1), (40.0, 0)):
        response = simulate(
            replace(graph, populations=[replace(graph["lif"], kick=kick)]),
            train([1, 2, 3]),
            chip,
            delta_t=1e-4,
            duration=0.001,
            record=["lif"],
        )
        potential = response.potential["lif"] * 64
        assert potential.max() == highest


def test_weights_are_whole_steps_of_the_word() -> None:
    two = replace(PLATFORMS["ideal"], weight_bits=2)
    graph = Graph(
        2,
        [Population("lif", 2, tau_mem=np.inf, threshold=10.0)],
        [Connection(INPUT, "lif", np.array([[1.0, 0.4], [-1.0, 0.6]]))],
        pulse=1e-4,
    )
    inputs = Spikes.from_padded(np.array([[1e-4, np.inf], [np.inf, 1e-4]]))
    response = simulate(graph, inputs, two, delta_t=1e-4, duration=0.001, record=["lif"])
    np.testing.assert_allclose(response.potential["lif"][:, :, -1], [[1, -1], [0, 1]])


def test_synapse_on_the_ideal_clock_is_exact_at_ticks() -> None:
    network = Network((1, 1), thresholds=[9.0], max_spikes=[1], tau_syn=0.13, duration=0.2, weights=[np.array([[5.0]])])
    graph, inputs = graph_of_network(network), train([3], 0.01)
    found = [
        simulate(graph, inputs, p, delta_t=0.01, duration=0.2, record=["layer1"]).potential["layer1"][0, 0]
        for p in ("exact", replace(PLATFORMS["ideal"], gain="euler"))
    ]
    t = np.arange(1, 21) * 0.01 - 0.03
    closed = np.where(t > 0, 5 * 0.26 * (np.exp(-t / 0.26) - np.exp(-t / 0.13)), 0)
    np.testing.assert_allclose(found[0], closed, atol=1e-12)
    assert np.abs(found[1] - closed).max() < 0.05


def test_forced_spikes_replace_a_population_s_own_for_what_follows() -> None:
    layers = [Population(name, 1, tau_mem=0.0025, threshold=0.1, kick=0.04) for name in ("first", "lif")]
    graph = Graph(1, layers, [Connection("first", "lif", np.array([[9.0]]))], pulse=1e-4)
    response = simulate(graph, train([]), "norse", delta_t=1e-4, duration=0.01, forced={"first": train([30])})
    assert [len(response.spikes[name].times) for name in ("first", "lif")] == [0, 1]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"order": ("input",)}, "order"),
        ({"decay": "rk4"}, "decay"),
        ({"reset": "soft"}, "reset"),
        ({"weight_bits": 1}, "weight_bits"),
        ({"state_bits": 8}, "state_bits"),
    ],
)
def test_profile_refuses_what_it_cannot_do(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Profile("mine", **options)


def test_unknown_platform_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'truenorth'.*loihi"):
        profile_named("truenorth")


def test_population_that_is_not_there_is_named_with_those_there_are() -> None:
    how: dict = {"delta_t": 1e-4, "duration": 0.01}
    with pytest.raises(ValueError, match=r"'hidden'; there are lif"):
        simulate(neuron(), train([1]), "norse", record=["hidden"], **how)
    with pytest.raises(ValueError, match="no profile for lif"):
        simulate(neuron(), train([1]), {}, **how)
    with pytest.raises(ValueError, match="2 neurons; the graph has 1"):
        simulate(neuron(), Spikes.from_padded(np.ones((1, 2))), "norse", **how)
