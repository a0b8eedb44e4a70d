"""Thresholds found from the data, where no preset fits: neurons that never spike have no gradient, and cannot learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.data.registry import own_file
from bats_lab.network.feedforward import Network
from bats_lab.runs.records import EpochRecord
from bats_lab.spikes.encoding import encode_on_grid, n_channels
from bats_lab.spikes.trains import Spikes

__all__ = ["find_thresholds", "no_output_warning", "settle_thresholds"]

#: Spikes a neuron and sample in hidden and output layers before training, about what Table 1 gives on its data sets.
HIDDEN_RATE, OUTPUT_RATE = 0.5, 1.0

_PIXELS = 28 * 28  # of the images that the presets were made for
_SAMPLES = 100
_FIT = 4.0  # factor within which rates are those of Table 1's data sets


def settle_thresholds(config: Config, data: ImageData) -> Config:
    """Return a run with the thresholds it is trained with: those found from the data, where it asks for them.

    It asks by `auto_threshold`; where that is left open, by data of one's own, if the thresholds are those of the
    preset and do not fit: samples are not of 784 pixels, or a layer of the untrained network spikes less than a quarter
    as often as it should, or more than four times as often. Such a run wakes silent classes too, unless `wake_classes`
    says something else (:mod:`bats_lab.runs.waking`).
    """
    wanted = config.auto_threshold
    if wanted is None:
        preset = Config(dataset=config.dataset, hidden=config.hidden)
        own = own_file(config.dataset) and config.thresholds == preset.thresholds
        wanted = own and not (n_channels(data.x_train) == _PIXELS and _fit(config, data))
    if not wanted:
        return config
    *hidden, output = find_thresholds(config, data)
    wake = config.auto_threshold is None if config.wake_classes is None else config.wake_classes
    return config.replace(threshold_hidden=hidden, threshold_output=output, auto_threshold=False, wake_classes=wake)


def find_thresholds(config: Config, data: ImageData) -> tuple[float, ...]:
    """Find thresholds with which each layer of the untrained network spikes, hidden neurons 0.5 times a sample.

    Parameters
    ----------
    config : Config
        The run. Its thresholds are not looked at; nor are seed, time step and collision rule, so that runs which differ
        in those alone can be compared.
    data : ImageData
        The first 100 training images are simulated, in continuous time, on the CPU.

    Returns
    -------
    tuple of float
        Of each layer from the first hidden one to the output, rounded to three digits; the run's own threshold for
        layers that cannot be made to spike.

    Examples
    --------
    >>> from bats_lab.data.datasets import load_dataset
    >>> hidden, output = find_thresholds(Config(), load_dataset("mnist_small", n_train=100))
    >>> 0.1 < hidden < 0.3 and 0.1 < output < 1.3
    True
    """
    network, spikes = _untrained(config, data)
    sizes, weights = network.sizes, network.weights
    found: list[float] = []
    for layer, rate in enumerate(_rates(config)):

        def sent(threshold: float, layer: int = layer) -> float:
            part = Network(
                sizes[: layer + 2],
                thresholds=[*found, threshold],
                max_spikes=config.max_spikes[: layer + 1],
                **_of_layers(config.time_constants, layer + 1),
                duration=config.duration,
                weights=weights[: layer + 1],
                dtype=config.dtype,
                device="cpu",
            )
            return float(part.simulate(spikes)[-1].spike_count.mean())

        low, high = 1e-6 * config.weight_scale, 1e6 * config.weight_scale
        reachable = sent(low) >= rate
        for _ in range(14):
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if sent(middle) >= rate else (low, middle)
        found.append(float(f"{low:.3g}") if reachable else config.thresholds[layer])
    return tuple(found)


def _of_layers(constants: dict[str, Any], n_layers: int) -> dict[str, Any]:
    """Return the time constants of the first layers."""
    return {name: value[:n_layers] if isinstance(value, tuple) else value for name, value in constants.items()}


def _untrained(config: Config, data: ImageData) -> tuple[Network, Spikes]:
    """Return the network of a run before training, in continuous time, and the images that it is looked at with."""
    config = config.replace(seed=0, delta_t=0, rule="drop", estimator="straight_through")
    network = Network.from_config(config, n_channels(data.x_train), data.n_classes, device="cpu")
    inputs = data.x_train[:_SAMPLES]
    return network, encode_on_grid(inputs, window=config.encoding_window, delta_t=0, dtype="float64")


def _rates(config: Config) -> list[float]:
    """Return how often a neuron of each layer should spike, as far as its spike limit allows."""
    wanted = [HIDDEN_RATE] * len(config.hidden) + [OUTPUT_RATE]
    return [min(rate, limit / 2) for rate, limit in zip(wanted, config.max_spikes, strict=True)]


def _fit(config: Config, data: ImageData) -> bool:
    """Tell whether all layers spike about as often as they should with the thresholds of a run."""
    network, spikes = _untrained(config, data)
    sent = [layer.spike_count.mean() for layer in network.simulate(spikes)]
    return all(rate / _FIT <= n <= rate * _FIT for n, rate in zip(sent, _rates(config), strict=True))


def no_output_warning(record: EpochRecord, config: Config) -> str | None:
    """Say so where no output neuron spiked in the whole first epoch of training, and what helps; else return None."""
    *hidden, output = record.train.spike_count
    if record.epoch > 1 or output > 0:
        return None
    silent = [name for name, n in zip(config.layer_names(), [*hidden, output], strict=True) if n == 0]
    return (
        f"No output neuron spiked in the first epoch, so there is no gradient, and nothing can be learned; silent from "
        f"layer {silent[0]} on. What helps: auto_threshold, which finds thresholds, or lower ones "
        f"(threshold_hidden, threshold_output); a larger weight_scale; brighter pixels."
    )
