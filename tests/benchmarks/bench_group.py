"""Training samples per second of networks side by side, beside what a step must cost.

For each case an epoch of training is timed, from launch to its sums on the host; the median over repeats. Beside it
stand the operations and bytes that a sample needs, counted from the spikes there were, and on a GPU the time they take
at the device's full rates: the floor under the measured time.

    python tests/benchmarks/bench_group.py                   # a GPU if one works, else the CPU
    python tests/benchmarks/bench_group.py --device cpu --networks 1,2
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import numpy as np

from bats_lab import __version__
from bats_lab.config import Config
from bats_lab.data.datasets import load_dataset
from bats_lab.engine import Mode, get_backend
from bats_lab.network.feedforward import Network
from bats_lab.runs.training import inputs_of_group

#: Networks of the two shapes of Table 1 that a study trains side by side.
CASES = {"mnist": 40, "fashion_mnist": 20}

# Instructions a lane issues for each neuron and input spike: to carry its state over the spike, and to add the spike's
# share to the gradient; and bytes Adam moves for a weight: it and two moments, read and written.
FORWARD, GRADIENT, ADAM = 20, 25, 24


def needed(sizes: tuple[int, ...], spikes: np.ndarray, batch: int) -> tuple[float, float]:
    """Return instructions and bytes of one training sample; `spikes` are those into each layer."""
    pairs = sum(n * post for n, post in zip(spikes, sizes[1:], strict=True))
    weights = sum(pre * post for pre, post in itertools.pairwise(sizes))
    return pairs * (FORWARD + GRADIENT), weights * ADAM / batch


def rates(backend) -> tuple[float, float] | None:
    """Return instructions and bytes a second of a GPU: 128 lanes a multiprocessor, and its memory bus."""
    if backend.name != "cuda":
        return None
    import cupy

    found = cupy.cuda.Device().attributes
    lanes = found["MultiProcessorCount"] * 128 * found["ClockRate"] * 1e3
    return lanes, 2 * found["MemoryClockRate"] * 1e3 * found["GlobalMemoryBusWidth"] / 8


def measure(
    dataset: str, n_networks: int, delta_t: float, device: str, n_samples: int, repeats: int
) -> dict[str, float]:
    """Train an epoch again and again; return samples per second and what a sample needs."""
    base = Config(dataset=dataset).replace(dataset="mnist_small", delta_t=delta_t, n_train=n_samples, n_test=1)
    configs = [base.replace(seed=seed) for seed in range(n_networks)]
    data = load_dataset("mnist_small", n_train=n_samples, n_test=1)
    backend = get_backend(device)
    with backend.using(0):
        spikes = inputs_of_group(data.x_train, configs)
        single = [Network.from_config(c, 784, 10, device=device) for c in configs]
    neurons = [network.networks.neurons[0] for network in single]
    weights = [np.stack(layer) for layer in zip(*(network.weights for network in single), strict=True)]
    group, modes = backend.networks(single[0].networks.shape, neurons, weights), [Mode()] * n_networks
    samples = group.load(spikes, data.y_train)
    orders = [np.random.default_rng(seed).permutation(n_samples) for seed in range(n_networks)]
    seconds = []
    for _ in range(repeats + 1):  # the first one compiles, and brings the networks to where they learn
        begin = time.perf_counter()
        sums = group.train(
            samples, modes, orders, batch_size=base.batch_size, learning_rates=[base.learning_rate] * n_networks
        )
        seconds.append(time.perf_counter() - begin)
    into = np.array([spikes[0].count.sum(), *sums[0].sent[:-1]]) / n_samples
    operations, moved = needed((784, *base.hidden, 10), into, base.batch_size)
    return {
        "rate": n_networks * n_samples / statistics.median(seconds[1:]),
        "hidden": float(into[1:].sum()),
        "operations": operations,
        "bytes": moved,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--networks", help="numbers of networks, comma-separated (default: 1 and what a study has)")
    parser.add_argument("--delta-t", default="0,0.001,0.004", help="time steps in s, comma-separated")
    parser.add_argument("--samples", type=int, help="samples of an epoch (default: 10000 on a GPU, else 500)")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    backend = get_backend(args.device)
    n_samples = args.samples or (10_000 if backend.name == "cuda" else 500)
    full = rates(backend)
    print(f"bats_lab {__version__}, {backend.name}: {backend.device_name()}; medians of {args.repeats}")
    print(f"{'network':>15} {'Δt (ms)':>8} {'side by side':>13} {'samples/s':>11} {'hidden spikes':>14}", end="")
    print(f" {'M instructions':>15} {'kB':>7} {'µs a sample':>12} {'floor (µs)':>11}")
    for dataset, many in CASES.items():
        sizes = "-".join(map(str, (784, *Config(dataset=dataset).hidden, 10)))
        counts = [int(n) for n in args.networks.split(",")] if args.networks else [1, many if full else 2]
        for delta_t in map(float, args.delta_t.split(",")):
            for n in counts:
                found = measure(dataset, n, delta_t, args.device, n_samples, args.repeats)
                floor = max(found["operations"] / full[0], found["bytes"] / full[1]) * 1e6 if full else None
                print(
                    f"{sizes:>15} {delta_t * 1e3:8g} {n:13d} {found['rate']:11,.0f} {found['hidden']:14.0f}"
                    f" {found['operations'] / 1e6:15.1f} {found['bytes'] / 1e3:7.0f} {1e6 / found['rate']:12.2f}"
                    + (f" {floor:11.2f}" if floor else f" {'-':>11}"),
                    flush=True,
                )


if __name__ == "__main__":
    main()
