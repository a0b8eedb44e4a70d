"""What we export, loaded by snnTorch and run there, held against the table's row of it; skipped where it is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bats_lab.network.feedforward import Network
from bats_lab.network.graphs import INPUT, Connection, Graph, Population
from bats_lab.network.interchange import load_nir, save_nir
from bats_lab.network.platforms import profile_named, simulate, steps_of
from bats_lab.spikes.trains import Spikes

torch = pytest.importorskip("torch")
snn = pytest.importorskip("snntorch")
nir = pytest.importorskip("nir")

#: snnTorch takes every file for one of this step, and resets to zero whatever the metadata says.
STEP = 1e-4
THERE = replace(profile_named("snntorch"), reset="zero")
N_STEPS = 500


def whole(shape: tuple[int, int], scale: float, seed: int) -> np.ndarray:
    """Return weights that are small whole numbers times a power of two in the file: sums are exact in any order."""
    return np.random.default_rng(seed).integers(-3, 10, shape) * scale


def layers() -> Graph:
    populations = [Population("cuba", 8, 0.01, 0.004), Population("lif", 5, 0.008), Population("last", 3, 0.012, 0.003)]
    weights = {
        "cuba": whole((8, 6), 2**-9 / STEP, 0),
        "lif": whole((5, 8), 2**-3, 1),
        "last": whole((3, 5), 2**-7 / STEP, 2),
    }
    sources = (INPUT, "cuba", "lif")
    connections = [Connection(source, *pair) for source, pair in zip(sources, weights.items(), strict=True)]
    return Graph(6, populations, connections, pulse=STEP)


def trained() -> Network:
    weights = [whole((7, 6), 2**-18 / STEP, 3), whole((4, 7), 2**-18 / STEP, 4)]
    return Network((6, 7, 4), thresholds=[0.002] * 2, max_spikes=[99] * 2, tau_syn=0.01, duration=0.05, weights=weights)


def run_there(path: Path, spikes: np.ndarray) -> dict[str, np.ndarray]:
    """Return the spikes (step, sample, neuron) of each layer, as snnTorch makes them of a file."""
    from snntorch.import_nir import import_from_nir

    module = import_from_nir(nir.read(path))
    found: dict[str, list[Any]] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, (snn.Leaky, snn.Synaptic)):
            seen = found.setdefault(name, [])
            layer.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
    state = None
    with torch.no_grad():
        for now in torch.tensor(spikes.astype(np.float32)):
            _, state = module(now, state)
    return {name: torch.stack(outs).numpy() for name, outs in found.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", [layers(), trained()], ids=["layers", "trained"])
def test_snntorch_makes_the_spikes_of_its_row_of_our_export(network: Graph | Network, tmp_path: Path) -> None:
    save_nir(network, tmp_path / "net.nir", delta_t=STEP)
    graph = load_nir(tmp_path / "net.nir")
    inputs = Spikes.from_padded(np.sort(np.random.default_rng(7).uniform(0, 0.04, (4, 6, 3))))
    ours = simulate(graph, inputs, THERE, delta_t=STEP, duration=N_STEPS * STEP).spikes
    samples = np.arange(len(inputs))
    theirs = run_there(tmp_path / "net.nir", steps_of(inputs, samples, N_STEPS, STEP))
    assert theirs.keys() == ours.keys()
    for name, trains in ours.items():
        assert len(trains.times) > 20
        np.testing.assert_array_equal(theirs[name], steps_of(trains, samples, N_STEPS, STEP), err_msg=name)
