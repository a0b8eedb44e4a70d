"""What a run's samples are: which it trains on, tests on and holds out, and as which spikes it sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.spikes.encoding import encode_on_grid
from bats_lab.spikes.trains import Spikes

__all__ = ["Part", "input_spikes", "inputs_of_group", "samples_used", "split_training"]


def input_spikes(samples: np.ndarray | Spikes, config: Config) -> Spikes:
    """Encode samples as a run sees them: images by time to first spike, events as they are, on the run's time grid.

    Parameters
    ----------
    samples : ndarray of uint8, (sample, row, column), or Spikes
        Images, or events in continuous time.
    config : Config
        Takes `encoding_window`, `delta_t` and `dtype` from it.
    """
    return encode_on_grid(samples, window=config.encoding_window, delta_t=config.delta_t, dtype=config.dtype)


def inputs_of_group(samples: np.ndarray | Spikes, configs: Sequence[Config]) -> list[Spikes]:
    """Encode samples for each of several runs, as :func:`input_spikes` does for one.

    Parameters
    ----------
    samples : ndarray of uint8, (sample, row, column), or Spikes
        Images, or events in continuous time.
    configs : sequence of Config
        The runs.

    Returns
    -------
    list of Spikes
        For each run; what runs have in common is the same object, so that the engine keeps it once.
    """
    shared: dict[float, dict[str, Any]] = {}
    gridded: dict[tuple[float, float], Spikes] = {}
    for c in configs:
        if (key := (c.encoding_window, c.delta_t)) not in gridded:
            spikes = input_spikes(samples, c)
            own = {name: getattr(spikes, name) for name in ("start", "count", "neuron", "times")}
            gridded[key] = replace(spikes, **shared.setdefault(c.encoding_window, own))
    return [gridded[c.encoding_window, c.delta_t] for c in configs]


def split_training(n_samples: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Split training samples into those that are trained on and those held out, on which choices are made.

    Parameters
    ----------
    n_samples : int
        Training samples there are.
    fraction : float
        Fraction that is held out, from 0 to below 1.

    Returns
    -------
    trained, held_out : ndarray of int64
        Indices, ascending. They depend on the two arguments alone: runs of all seeds hold out the same samples.

    Raises
    ------
    ValueError
        If one of the two would be empty though `fraction` is above 0.

    Examples
    --------
    >>> split_training(10, 0.2)
    (array([0, 1, 2, 3, 5, 7, 8, 9]), array([4, 6]))
    """
    n_held_out = round(fraction * n_samples)
    if fraction and not 0 < n_held_out < n_samples:
        raise ValueError(
            f"validation_fraction is {fraction:g}; of {n_samples} training samples it must leave at least one on "
            f"either side."
        )
    held_out = np.zeros(n_samples, bool)
    held_out[np.random.default_rng(0).permutation(n_samples)[:n_held_out]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


class Part(NamedTuple):
    """Images or events, and labels, of one part of the data."""

    inputs: np.ndarray | Spikes
    labels: np.ndarray


def samples_used(config: Config, data: ImageData) -> dict[str, Part]:
    """Return what a run trains on (`train`), tests on (`test`), and holds out (`validation`), if anything."""
    x_train, y_train = data.x_train[: config.n_train], data.y_train[: config.n_train]
    parts = {
        "train": Part(x_train, y_train),
        "test": Part(data.x_test[: config.n_test], data.y_test[: config.n_test]),
    }
    if config.validation_fraction:
        trained, held_out = split_training(len(y_train), config.validation_fraction)
        parts["train"] = Part(x_train[trained], y_train[trained])
        parts["validation"] = Part(x_train[held_out], y_train[held_out])
    return parts
