"""Continuous time held against Brian2, a simulator of others, at 1 µs; skipped where it is not installed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from bats_lab.network.exact import simulate_exactly
from bats_lab.network.graphs import INPUT, Connection, Graph, Population
from bats_lab.spikes.trains import Spikes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import brian2
    except (ImportError, AttributeError):  # not there, or older than the NumPy beside it
        pytest.skip("needs brian2", allow_module_level=True)

STEP = 1e-6


def in_order(neuron: Any, times: Any) -> np.ndarray:
    """Return neuron and time of each spike, by both; what comes at the end of the window may miss it elsewhere."""
    spikes = np.stack([np.asarray(neuron, float), np.asarray(times, float)], axis=1)
    spikes = spikes[spikes[:, 1] < 0.0399]
    return spikes[np.lexsort(spikes.T[::-1])]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("tau_mem", "tau_syn"), [(0.02, 0.01), (0.01, 0.01), (0.012, 0.003)])
def test_layers_fire_within_a_step_of_brian2(tau_mem: float, tau_syn: float) -> None:
    rng = np.random.default_rng(5)
    inputs = np.round(rng.uniform(0, 0.02, 10), 6)
    weights = [rng.uniform(-150, 400, (6, 10)), rng.uniform(-150, 400, (3, 6))]
    populations = [Population(name, n, tau_mem, tau_syn, reset="subtract") for name, n in (("a", 6), ("b", 3))]
    connections = [Connection(INPUT, "a", weights[0]), Connection("a", "b", weights[1])]
    graph = Graph(10, populations, connections, pulse=1e-3)
    found = simulate_exactly(graph, Spikes.from_padded(inputs[None]), duration=0.04)

    brian2.start_scope()
    brian2.prefs.codegen.target = "numpy"
    brian2.defaultclock.dt = STEP * brian2.second
    equations = "dv/dt = -v/tau_mem + current : 1\ndcurrent/dt = -current/tau_syn : Hz"
    names = {"tau_mem": tau_mem * brian2.second, "tau_syn": tau_syn * brian2.second}
    make = {"threshold": "v >= 1", "reset": "v -= 1", "method": "rk4", "namespace": names}
    layers = [brian2.NeuronGroup(n, equations, **make) for n in (6, 3)]
    source = brian2.SpikeGeneratorGroup(10, np.arange(10), inputs * brian2.second)
    wires = []
    for before, after, w in zip([source, layers[0]], layers, weights, strict=True):
        wire = brian2.Synapses(before, after, "w : Hz", on_pre="current += w")
        wire.connect()
        wire.w = w.T.ravel() * brian2.Hz
        wires.append(wire)
    monitors = [brian2.SpikeMonitor(layer) for layer in layers]
    brian2.Network(source, *layers, *wires, *monitors).run(0.04 * brian2.second)
    for name, monitor in zip("ab", monitors, strict=True):
        trains = found.spikes[name]
        ours, theirs = (in_order(*pair) for pair in ((trains.neuron, trains.times), (monitor.i, monitor.t)))
        assert len(ours) > 3
        assert ours[:, 0].tolist() == theirs[:, 0].tolist()
        # Theirs come at the end of a step; a reset there hands that on to the neuron's next spike.
        difference = np.abs(theirs - ours)[:, 1]
        first = np.unique(ours[:, 0], return_index=True)[1]
        assert difference.max() < 12 * STEP
        assert difference[first].max() < (1.01 if name == "a" else 6) * STEP
