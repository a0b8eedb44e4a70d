"""Samples per second of the engine: forward, backward, update, training and evaluation, per Δt and layer sizes.

Beside them the same training step in plain NumPy, and as a direct numba program, both checked to give the same gradient
before anything is timed. Each number is the median over repeats; the other programs' steps are timed in between, in
the same run: what they take depends on the machine as the engine does, so that ratios can be compared between machines.

    python tests/benchmarks/bench_engine.py            # the table of the README
    python tests/benchmarks/bench_engine.py --threads 1 --delta-t 0,0.004
    python tests/benchmarks/bench_engine.py --against main~3     # this tree beside another revision, interleaved
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict

import numpy as np
from bench_group import needed
from compare import compare
from numpy_step import train_step
from plain_numba import PlainNumba

from bats_lab import __version__
from bats_lab.config import Config
from bats_lab.data.datasets import load_dataset
from bats_lab.engine import Mode, get_backend
from bats_lab.network.feedforward import Network
from bats_lab.runs.optimiser import Adam
from bats_lab.runs.training import input_spikes

PRESETS = {"784-800-10": "mnist", "784-400-400-10": "fashion_mnist"}


def check(config: Config, spikes, labels, threads: int) -> tuple[dict, list[dict], dict]:
    """Hold the other programs against the engine in float64 on one small batch; return what they need."""
    network = Network.from_config(config.replace(dtype="float64"), 784, 10, threads=threads)
    samples = np.arange(4)
    prepared = network.prepare(spikes)
    network.forward(prepared, samples, rule="drop")
    [read] = network.networks.read_out(labels[samples], [Mode()])
    network.backward(read.errors)
    kept = config.max_spikes
    layers = [
        {"weights": np.ascontiguousarray(w.T), "threshold": threshold, "max_spikes": n}
        for w, threshold, n in zip(network.weights, network.thresholds, kept, strict=True)
    ]
    common = dict(delta_t=config.delta_t, tau=2 * config.tau_syn, duration=config.duration, learning_rate=0.003)
    plain = PlainNumba(layers, 4, dtype="float64", **common)
    plain.backward(prepared, samples, labels[:4])
    _, gradients = train_step(
        [(*prepared.sample(i)[:2], ticks(prepared, i)) for i in samples], labels[:4], layers, {"t": 0}, **common
    )
    for [own], gradient, direct in zip(network.networks.gradients(), gradients, plain.gradients, strict=True):
        limits = {"rtol": 1e-6, "atol": 1e-9 * np.abs(gradient).max()}
        np.testing.assert_allclose(own.T / 4, gradient, **limits)
        np.testing.assert_allclose(direct.sum(axis=0) / 4, gradient, **limits)
    return common, layers, {"t": 0}


def ticks(spikes, sample: int) -> np.ndarray:
    part = slice(spikes.start[sample], spikes.start[sample] + spikes.count[sample])
    return spikes.ticks[part]


def measure(sizes: str, delta_t: float, n_batches: int, repeats: int, threads: int) -> dict[str, float]:
    """Return samples per second by phase for one network and time step."""
    preset = Config(dataset=PRESETS[sizes])
    config = preset.replace(dataset="mnist_small", delta_t=delta_t)
    data = load_dataset("mnist_small")
    spikes, labels = input_spikes(data.x_train, config), data.y_train
    common, layers, state = check(config, spikes, labels, threads)
    network = Network.from_config(config, 784, 10, threads=threads)
    adam = Adam.from_config(config)
    spikes = network.prepare(spikes)
    order = np.random.default_rng(0).permutation(len(spikes))
    seconds: dict[str, list[float]] = defaultdict(list)
    sent, n_hidden = [], len(config.hidden)  # spikes into each layer, of a sample

    def step(samples, took) -> None:
        t0 = time.perf_counter()
        network.forward(spikes, samples, rule="drop")
        [read] = network.networks.read_out(labels[samples], [Mode()])
        t1 = time.perf_counter()
        network.backward(read.errors)
        t2 = time.perf_counter()
        network.networks.update([adam.rate(1)], [Mode()], n_samples=len(samples))
        t3 = time.perf_counter()
        for name, value in (("forward", t1 - t0), ("backward", t2 - t1), ("update", t3 - t2), ("train", t3 - t0)):
            took[name] += value
        into = [spikes.count[samples].sum(), *(network.networks.spike_count(i).sum() for i in range(n_hidden))]
        sent.append(np.array(into) / len(samples))

    with get_backend("cpu").using(threads):
        size = config.batch_size
        for begin in range(
            0, len(order) - size + 1, size
        ):  # one epoch first: spike counts are those of a network that learns
            step(order[begin : begin + size], defaultdict(float))
        sent.clear()
        learnt = [layer | {"weights": w.T} for layer, w in zip(layers, network.weights, strict=True)]
        plain = PlainNumba(learnt, size, **common)
        plain.step(spikes, order[:size], labels[order[:size]])  # compiles it
        for repeat in range(repeats):
            took: dict[str, float] = defaultdict(float)
            picked = order[repeat * n_batches * size % 5000 :][: n_batches * size]
            for begin in range(0, len(picked), size):
                step(picked[begin : begin + size], took)
            for name, value in took.items():
                seconds[name].append(value / len(picked))
            begin_evaluation = time.perf_counter()
            for begin in range(0, 2000, 100):
                network.forward(spikes, np.arange(begin, begin + 100), rule="drop")
                network.networks.read_out(labels[begin : begin + 100], [Mode()])
            seconds["evaluate"].append((time.perf_counter() - begin_evaluation) / 2000)
            few = order[: min(len(picked), 500)]
            begin_plain = time.perf_counter()
            for begin in range(0, len(few), size):
                chosen = few[begin : begin + size]
                plain.step(spikes, chosen, labels[chosen])
            seconds["numba"].append((time.perf_counter() - begin_plain) / len(few))
            if repeat < 3:
                batch = [(*spikes.sample(i)[:2], ticks(spikes, i)) for i in order[:size]]
                begin_numpy = time.perf_counter()
                train_step(batch, labels[order[:size]], layers, state, **common)
                seconds["numpy"].append((time.perf_counter() - begin_numpy) / size)
    rates = {name: 1 / statistics.median(values) for name, values in seconds.items()}
    into = np.mean(sent, axis=0)
    operations, moved = needed(network.sizes, into, config.batch_size)
    return rates | {"hidden": into[1:].sum(), "operations": operations / 1e6, "kilobytes": moved / 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delta-t", default="0,0.0005,0.001,0.004,0.008", help="time steps in s, comma-separated")
    parser.add_argument("--sizes", default=",".join(PRESETS), help=f"any of {', '.join(PRESETS)}, comma-separated")
    parser.add_argument("--samples", type=int, default=2000, help="training samples a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: one a core")
    parser.add_argument("--against", metavar="REV", help="compare training and evaluation with those of a commit")
    parser.add_argument("--seconds", type=float, default=150, help="with --against: time for its steps")
    args = parser.parse_args()
    if args.against:
        compare(args.against, args.threads, args.seconds)
        return
    threads = args.threads or "all"
    processor = get_backend("cpu").device_name()
    print(f"bats_lab {__version__}, {processor}, threads {threads}; samples/s, medians of {args.repeats}")
    columns = ("forward", "backward", "update", "train", "evaluate", "numba", "numpy")
    print(
        f"{'network':>15} {'Δt (ms)':>8}"
        + "".join(f"{name:>11}" for name in columns)
        + "  train/numba  train/numpy  hidden spikes  µs a sample: needs M instructions      kB"
    )
    for sizes in args.sizes.split(","):
        for delta_t in map(float, args.delta_t.split(",")):
            batch = Config(dataset=PRESETS[sizes]).batch_size
            found = measure(sizes, delta_t, max(1, args.samples // batch), args.repeats, args.threads)
            print(
                f"{sizes:>15} {delta_t * 1e3:8g}"
                + "".join(f"{found[name]:11,.0f}" for name in columns)
                + f"{found['train'] / found['numba']:13.1f}{found['train'] / found['numpy']:13.0f}"
                + f"{found['hidden']:15.0f}{1e6 / found['train']:13.0f}{found['operations']:22.1f}"
                + f"{found['kilobytes']:8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
