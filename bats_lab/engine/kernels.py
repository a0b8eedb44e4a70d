"""Kernels compiled before they are needed, so that the time it takes is told, and counts as no run's training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bats_lab.engine import Mode, Neurons, Shape, get_backend
from bats_lab.spikes.encoding import encode_images
from bats_lab.spikes.grid import discretize_spikes

__all__ = ["compile_kernels"]

_compiled: set[tuple[str, str]] = set()  # name of the backend, and type


def compile_kernels(device: str = "auto", dtypes: Sequence[str] = ("float32",)) -> None:
    """Compile all kernels of a device and keep them on disk; where they have been compiled before, load them.

    Parameters
    ----------
    device : str
        ``auto``, ``cuda`` or ``cpu``.
    dtypes : sequence of str
        Types of the networks that are to run: ``float32``, ``float64``.

    Notes
    -----
    It trains a tiny network. Rule and estimator are arguments of the kernels, not code of their own; rule ``defer`` is
    taken since it delays spikes, which only then are put in order a second time.
    """
    backend = get_backend(device)
    for dtype in dtypes:
        if (backend.name, dtype) in _compiled:
            continue
        spikes = discretize_spikes(encode_images(np.ones((1, 2), np.uint8), window=0.1, dtype="float64"), 0.01)
        shape, neurons = Shape((2, 2, 2), (1, 1), dtype), Neurons((1.0, 1.0), 0.1, 0.2)
        networks = backend.networks(shape, [neurons], [np.ones((1, 2, 2))] * 2, threads=1)
        samples = networks.load([replace(spikes, times=spikes.times.astype(dtype))], np.zeros(1, np.int64))
        networks.train(samples, [Mode("defer")], [np.zeros(1, np.int64)], batch_size=1, learning_rates=[0.0])
        if backend.name == "cpu":  # words of few bits
            networks.evaluate(samples, [Mode("clocked", weight_bits=2)], batch_size=1)
        networks.inspect()
        _compiled.add((backend.name, dtype))
