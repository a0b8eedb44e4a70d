"""The same network in SANA-FE, a simulator of neuromorphic chips, on its Loihi: what it counts, and what it charges.

SANA-FE (``pip install sanafe``, GPL-3) is optional, and imported only here when :func:`simulate_twin` is called.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bats_lab.network.feedforward import Network
from bats_lab.spikes.grid import ticks_within
from bats_lab.spikes.trains import Spikes
from bats_lab.studies.chip.energy import energy, layer_counts, used_cores
from bats_lab.studies.chip.prices import HARDWARE, Hardware
from bats_lab.studies.chip.quantization import quantize_weights

__all__ = ["compare_twin", "simulate_twin"]

#: By what potentials are multiplied, so that SANA-FE's grid of 1/64 for them is far below the threshold.
_THRESHOLD = 1e5


def simulate_twin(network: Network, spikes: Spikes, *, bits: int = 8) -> pd.DataFrame:
    r"""Run samples through a network on SANA-FE's Loihi.

    Parameters
    ----------
    network : Network
    spikes : Spikes
        Input spikes on a time grid.
    bits : int
        Word length of the weights, which are rounded as in ``quantize_weights``, and by which layers take cores.

    Returns
    -------
    pandas.DataFrame
        One row a sample: ``spikes`` of all neurons but inputs, the energies ``synapse``, ``soma``, ``network`` and
        ``total`` in J, and ``spikes_hidden`` by layer. SANA-FE charges neither leakage nor barriers.

    Raises
    ------
    ImportError
        If SANA-FE is not installed.
    ValueError
        If the spikes are not on a time grid, or a membrane is not twice as slow as its synapses.

    Notes
    -----
    SANA-FE's neuron decays a current and a potential by :math:`d^2` and :math:`d = e^{-\Delta t/\tau}` on every tick
    and adds the current, which has received inputs of the tick before, to the potential. So it is that of rule
    ``clocked`` for weights :math:`(d - d^2)\,w` and a threshold :math:`\vartheta/\tau`.
    """
    if not spikes.delta_t:
        raise ValueError("spikes are in continuous time; a chip with a clock needs a time grid.")
    constants = [network.networks.neurons[0].time_constants(k) for k in range(network.n_layers)]
    if not all(own.closed for own in constants):
        raise ValueError("The network's membranes must be twice as slow as its synapses, in every layer.")
    sanafe = importlib.import_module("sanafe")
    n_ticks = ticks_within(network.duration, spikes.delta_t)
    weights = quantize_weights(network.weights, bits)
    rows = []
    for sample in range(len(spikes)):
        # A network of its own for each sample: what a chip remembers of one sample is not reset in SANA-FE 2.2.
        chip = sanafe.load_loihi()
        cores = [core for tile in chip.tiles for core in tile.cores]
        model = sanafe.Network()
        below = model.create_neuron_group("inputs", network.sizes[0])
        trains = _trains(spikes, sample, n_ticks)
        for i in range(network.sizes[0]):
            attributes = {"spikes": trains[i].tolist()}
            below[i].set_attributes(soma_hw_name=f"loihi_inputs[{i % 1024}]", model_attributes=attributes)
        used = _map(below, network.sizes[0], cores, math.ceil(network.sizes[0] / 1024))
        for k, (w, threshold) in enumerate(zip(weights, network.thresholds, strict=True)):
            tau = constants[k].mem
            scale, d = _THRESHOLD * tau / threshold, math.exp(-spikes.delta_t / tau)
            neuron = {"threshold": _THRESHOLD, "leak_decay": d, "input_decay": d * d, "reset_mode": "soft"}
            layer = model.create_neuron_group(
                f"layer_{k}", len(w), model_attributes=neuron, soma_hw_name="loihi_lif", log_spikes=True
            )
            below.connect_neurons_dense(layer, {"w": (scale * (d - d * d) * w.T.astype(float)).ravel()})
            used += _map(layer, len(w), cores[used:], int(used_cores(HARDWARE["Loihi"], len(w), w.size, bits)))
            below = layer
        loaded = sanafe.SpikingChip(chip)
        loaded.load(model)
        done = loaded.sim(n_ticks + 1, timing_model="simple", spike_trace=True)
        # On the tick that delivers the last spikes neurons may fire once more, after the window.
        fired = [str(address.group_name) for tick in done["spike_trace"][:n_ticks] for address in tick]
        sent = {f"spikes_{k}": fired.count(f"layer_{k}") for k in range(len(weights))}
        rows.append({"sample": sample, "spikes": sum(sent.values())} | sent | dict(done["energy"]))
    return pd.DataFrame(rows).set_index("sample")


def _trains(spikes: Spikes, sample: int, n_ticks: int) -> np.ndarray:
    """Return which input spikes on which tick, from tick 1 on: (neuron, tick)."""
    part = slice(int(spikes.start[sample]), int(spikes.start[sample] + spikes.count[sample]))
    trains = np.zeros((spikes.n_neurons, n_ticks + 1), int)
    within = spikes.ticks[part] <= n_ticks + 1
    trains[spikes.neuron[part][within], spikes.ticks[part][within] - 1] = 1
    return trains


def _map(group: Any, size: int, cores: Sequence[Any], n_cores: int) -> int:
    """Spread a layer evenly over so many cores; return their number."""
    for i in range(size):
        group[i].map_to_core(cores[i * n_cores // size])
    return n_cores


def compare_twin(
    network: Network, spikes: Spikes, *, bits: int = 8, hardware: Hardware = HARDWARE["Loihi (SANA-FE)"]
) -> pd.Series:
    """Hold what an inference costs in SANA-FE against what is charged for it here, without leakage and barriers.

    Parameters and errors are those of :func:`simulate_twin`; `hardware` has the prices.

    Returns
    -------
    pandas.Series
        Means over the samples: ``spikes`` and ``twin_spikes``; ``energy`` and ``twin_energy`` in J; and ``ratio``, the
        one over the other, minus 1.
    """
    twin = simulate_twin(network, spikes, bits=bits)
    n_ticks = ticks_within(network.duration, spikes.delta_t)
    # A neuron of a chip may spike on every tick; how many spikes are kept is a limit of this package.
    unlimited = Network(
        network.sizes,
        thresholds=network.thresholds,
        max_spikes=[n_ticks] * network.n_layers,
        tau_syn=network.tau_syn,
        duration=network.duration,
        weights=quantize_weights(network.weights, bits),
        device="cpu",
    )
    layers = unlimited.simulate(spikes, rule="clocked")
    sent = [float(layer.spike_count.sum() / len(spikes)) for layer in layers]
    incoming = [float(spikes.count.sum() / len(spikes)), *sent[:-1]]
    counts = layer_counts(incoming, sent, network.sizes, network.duration, spikes.delta_t, bits)
    spent = energy(counts, hardware)
    own, theirs = float(spent["dynamic"] - spent["barrier"]), float(twin["total"].mean())
    return pd.Series(
        {
            "spikes": sum(sent),
            "twin_spikes": float(twin["spikes"].mean()),
            "energy": own,
            "twin_energy": theirs,
            "ratio": own / theirs - 1,
        }
    )
