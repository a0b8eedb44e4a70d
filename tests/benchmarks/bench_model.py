"""What a training step must cost on a GPU, by count: no GPU is needed.

A real training step runs on the CPU, instruction by instruction of the PTX that NVRTC makes of the kernels, and is
counted: warps, instructions, loads that wait for each other, bytes. From these, and from what the compiler says of
registers and shared memory, a model predicts times. ``docs/gpu.md`` explains it.

    python tests/benchmarks/bench_model.py                     # all cases of CASES: some minutes
    python tests/benchmarks/bench_model.py --dataset mnist --delta-t 0.004
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import machine_code
from counted import LATENCIES, N_TIMES, CountedDevice, Launch

from bats_lab.config import Config
from bats_lab.data.datasets import load_dataset
from bats_lab.engine import Mode
from bats_lab.engine.cuda.networks import CudaBackend
from bats_lab.network.feedforward import Network
from bats_lab.runs.training import input_spikes
from bats_lab.spikes.trains import Spikes


@dataclass(frozen=True)
class Gpu:
    """A GPU as its maker describes it, and its latencies as microbenchmarks found them (cycles).

    Attributes
    ----------
    name, architecture : str
    processors : int
        Multiprocessors, with four schedulers each.
    clock : float
        Boost clock, Hz.
    memory, cache : float
        Bytes per second of the memory and of the second-level cache.
    cache_bytes : float
    warps, blocks, shared : int
        Most warps, blocks and bytes of shared memory of a multiprocessor.
    doubles : int
        Results of double precision a multiprocessor has in a cycle.
    latencies : tuple of float
        In the order of `counted.LATENCIES`.
    """

    name: str
    architecture: str
    processors: int
    clock: float
    memory: float
    cache: float
    cache_bytes: float
    warps: int
    blocks: int
    shared: int
    doubles: int
    latencies: tuple[float, ...]


#: Latencies about those of Jia et al. (2019) for the T4 and Luo et al. (2024) for the others, not held against them.
GPUS = (
    Gpu("T4", "sm_75", 40, 1.59e9, 320e9, 1.27e12, 4e6, 32, 16, 64 << 10, 2,
        (0, 4, 12, 20, 40, 40, 500, 22, 32, 188, 190)),
    Gpu("RTX 4090", "sm_89", 128, 2.52e9, 1008e9, 5e12, 72e6, 48, 24, 100 << 10, 2,
        (0, 4, 12, 20, 40, 40, 500, 30, 43, 273, 280)),
    Gpu("A100", "sm_80", 108, 1.41e9, 1555e9, 4.4e12, 40e6, 64, 32, 164 << 10, 32,
        (0, 4, 12, 20, 8, 40, 150, 29, 38, 262, 270)),
    Gpu("H100", "sm_90", 132, 1.755e9, 3350e9, 5.6e12, 50e6, 64, 32, 228 << 10, 64,
        (0, 4, 12, 20, 8, 40, 150, 29, 41, 263, 270)),
)  # fmt: skip
#: What a device is compiled for, and how many registers its multiprocessors have.
ARCHITECTURES = ("sm_75", "sm_80", "sm_89", "sm_90", "sm_120")
REGISTERS = 65536
#: Seconds between kernels of a CUDA graph.
LAUNCH = 1.5e-6
#: Cases: a preset, its time step, and the numbers of networks side by side.
CASES = (("mnist", 0.004, (1, 40)), ("mnist", 0.0, (1, 40)), ("fashion_mnist", 0.0, (1, 20)))
#: Samples per second as measured on an H100 (docs/gpu.md).
MEASURED = {
    ("mnist", 0.004, 1): 98_305, ("mnist", 0.004, 40): 311_041, ("mnist", 0.0, 1): 63_305, ("mnist", 0.0, 40): 287_212,
    ("fashion_mnist", 0.0, 1): 5_705, ("fashion_mnist", 0.0, 20): 43_618,
}  # fmt: skip


def device() -> CountedDevice:
    """Return a device that counts for all GPUs, and for the chain of loads, side by side."""
    latencies, issue = np.zeros((len(LATENCIES), N_TIMES)), np.zeros(N_TIMES)
    for i, gpu in enumerate(GPUS):
        latencies[:, i], issue[i] = gpu.latencies, 1
    for name in ("near", "far", "atomic"):
        latencies[LATENCIES.index(name), len(GPUS)] = 1
    return CountedDevice(latencies, issue)


def trained(config: Config, n_batches: int = 40) -> tuple[Network, tuple[Spikes, np.ndarray]]:
    """Train a network for some batches on the CPU; return it, and the spikes and labels of a batch to come."""
    batch = config.batch_size
    n = batch * (n_batches + 1)
    data = load_dataset("mnist_small", n_train=n, n_test=1)
    spikes = input_spikes(data.x_train, config)
    network = Network.from_config(config, 784, 10, device="cpu")
    group = network.networks
    first = np.arange(batch * n_batches)
    group.train(
        group.load([spikes[first]], data.y_train[first]), [Mode()], [first], batch_size=batch,
        learning_rates=[config.learning_rate],
    )  # fmt: skip
    return network, (spikes[np.arange(batch * n_batches, n)], data.y_train[batch * n_batches :])


def step(config: Config, counting: CountedDevice) -> list[Launch]:
    """Run a training step of a network that has learned a little; return its launches in order."""
    network, (spikes, labels) = trained(config)
    own = network.networks
    group = CudaBackend(counting).networks(own.shape, own.neurons, own.weights)
    samples = group.load([spikes], labels)
    counting.launches.clear()
    group.train(
        samples, [Mode()], [np.arange(len(labels))], batch_size=config.batch_size, learning_rates=[config.learning_rate]
    )
    return list(counting.launches)


def occupancy(gpu: Gpu, launch: Launch, registers: int) -> int:
    """Return how many blocks of a launch a multiprocessor takes at once."""
    warps = math.ceil(launch.n_threads / 32)
    by_registers = REGISTERS // (math.ceil(registers * 32 / 256) * 256) // warps
    by_shared = gpu.shared // (launch.shared_bytes + 1024)
    return max(1, min(gpu.blocks, gpu.warps // warps, by_registers, by_shared))


def predicted(
    gpu: Gpu, model: int, launch: Launch, resources: machine_code.Resources, ptx: float, n_networks: int, fits: bool
) -> dict[str, float]:
    """Return the seconds a launch takes, by what could bound it: the longest is what it takes.

    ``warps`` is what blocks wait, one wave of them after the other, and what their instructions take to issue; that the
    two overlap is left out.
    `ptx` are the instructions of the kernel's whole text as `launch` counts them, by which those of the machine code
    are scaled; `fits` says whether the second-level cache holds what a step touches.
    """
    n_blocks, warps = launch.n_blocks * n_networks, math.ceil(launch.n_threads / 32)
    at_once = occupancy(gpu, launch, resources.registers)
    used = min(gpu.processors, n_blocks)
    scale = (resources.instructions or ptx) / ptx
    slots = gpu.processors * at_once
    apart = launch.instructions / launch.of_longest
    waves = apart * max(launch.longest[model], launch.total[model] * n_networks / slots)
    issue = launch.instructions * n_networks * scale / used / min(4, max(1, warps * n_blocks / used))
    double = launch.kinds.get("double", 0.0) * n_networks * 32 / gpu.doubles / used
    special = launch.kinds.get("special", 0.0) * n_networks * 2 / used
    access = max(launch.requests, launch.sectors / 4) * n_networks / used
    cache = launch.misses * n_networks * 32 / gpu.cache
    return {
        "warps": float(waves + issue) / gpu.clock,
        "double": double / gpu.clock,
        "special": special / gpu.clock,
        "access": access / gpu.clock,
        "cache": cache,
        "memory": 0.0 if fits else launch.bytes * n_networks / gpu.memory,
    }


def rate(
    gpu: Gpu, launches: Sequence[Launch], found: dict[str, machine_code.Resources], whole: dict[str, float],
    batch: int, n_networks: int,
) -> tuple[float, list[dict[str, float]]]:  # fmt: skip
    """Return predicted training samples per second, and the times of each launch."""
    model = GPUS.index(gpu)
    fits = sum(launch.bytes for launch in launches) * n_networks / 2 < gpu.cache_bytes  # most is touched twice a step
    times = [
        predicted(gpu, model, launch, found[launch.kernel], whole[launch.kernel], n_networks, fits)
        for launch in launches
    ]
    return batch * n_networks / sum(LAUNCH + max(t.values()) for t in times), times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="a preset: mnist or fashion_mnist (default: all cases)")
    parser.add_argument("--delta-t", type=float, help="time step in s (default: all cases)")
    args = parser.parse_args()
    nvrtc = machine_code.nvrtc()
    if nvrtc is None:
        sys.exit("The model needs the package nvidia-cuda-nvrtc, which the extra test brings on Linux.")
    if machine_code.nvdisasm() is None:
        print("Without the package nvidia-cuda-nvdisasm instructions are those of PTX, fewer than the machine's.")
    counting = device()
    whole = {name: sum(s.issued for s in kernel.stretches) for name, kernel in counting.kernels.items()}
    resources = {architecture: machine_code.resources(nvrtc, architecture) for architecture in ARCHITECTURES}
    print("\nregisters, bytes spilled and instructions of each kernel's text")
    print(f"{'kernel':16}" + "".join(f"{architecture:>16}" for architecture in ARCHITECTURES))
    for name in counting.kernels:
        row = [resources[a][name] for a in ARCHITECTURES]
        print(f"{name:16}" + "".join(f"{r.registers:>6}{r.spilled_bytes:>4}{r.instructions or 0:>6}" for r in row))
    for dataset, delta_t, groups in CASES:
        if args.dataset not in (None, dataset) or args.delta_t not in (None, delta_t):
            continue
        config = Config(dataset=dataset).replace(dataset="mnist_small", delta_t=delta_t)
        launches = step(config, counting)
        sizes = "-".join(map(str, (784, *config.hidden, 10)))
        print(f"\n{sizes}, Δt = {delta_t * 1e3:g} ms, batch {config.batch_size}: one step of one network")
        print(
            f"{'kernel':16}{'blocks':>7}{'warps':>7}{'chain':>6}{'M instr.':>9}{'barriers':>9}{'shared':>7}"
            f"{'kB asked':>9}{'kB far':>8}{'kB':>7}  resident warps and µs on "
            + ", ".join(gpu.name for gpu in GPUS) + "; bound by on H100"
        )  # fmt: skip
        rates = {
            (gpu.name, n): rate(gpu, launches, resources[gpu.architecture], whole, config.batch_size, n)
            for gpu in GPUS
            for n in groups
        }
        for i, launch in enumerate(launches):
            times = [rates[gpu.name, groups[0]][1][i] for gpu in GPUS]
            warps = math.ceil(launch.n_threads / 32)
            resident = [warps * occupancy(g, launch, resources[g.architecture][launch.kernel].registers) for g in GPUS]
            total_warps = launch.n_blocks * warps
            print(
                f"{launch.kernel:16}{launch.n_blocks:>7}{total_warps:>7}{launch.longest[len(GPUS)]:>6.0f}"
                f"{launch.instructions / 1e6:>9.2f}{launch.kinds.get('barrier', 0) / total_warps:>9.0f}"
                f"{launch.shared_bytes:>7}{launch.sectors * 0.032:>9.0f}{launch.misses * 0.032:>8.0f}"
                f"{launch.bytes / 1e3:>7.0f}  "
                + " ".join(f"{w}:{max(t.values()) * 1e6:.1f}" for w, t in zip(resident, times, strict=True))
                + f"  {max(times[-1], key=lambda what: times[-1][what])}"
            )  # fmt: skip
        for n in groups:
            print(f"samples/s, {n} side by side: " + ", ".join(f"{g.name} {rates[g.name, n][0]:,.0f}" for g in GPUS))
            if measured := MEASURED.get((dataset, delta_t, n)):
                quotient = rates["H100", n][0] / measured
                print(f"  measured on an H100: {measured:,}; predicted are {quotient:.2f} times as many")


if __name__ == "__main__":
    main()
