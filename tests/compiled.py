"""Compile the kernels: those of the CPU engine, of the CUDA engine as the emulated device runs them, and of graphs.

It runs once, before tests run in several processes. Of processes that compile the same kernel at the same time each
does the whole work, and numba's cache may keep the code of one type under the name of another.
"""

from __future__ import annotations

import backends  # noqa: F401  (adds the emulated device to those of the engine)
import numpy as np
from emulated import build, compiler, folder

from bats_lab.engine.kernels import compile_kernels
from bats_lab.network.exact import simulate_exactly
from bats_lab.network.graphs import INPUT, Connection, Graph, Population
from bats_lab.spikes.trains import Spikes

if __name__ == "__main__":
    for device in ("cpu", "emulated") if compiler() else ("cpu",):
        compile_kernels(device, ["float32", "float64"])
    if compiler():
        build(folder(), any_ratio=True)
    graph = Graph(1, [Population("n", 1, tau_mem=1.0)], [Connection(INPUT, "n", np.ones((1, 1)))], pulse=1.0)
    simulate_exactly(graph, Spikes.from_padded(np.zeros((1, 1))), duration=1.0)
