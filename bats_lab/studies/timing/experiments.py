"""How much of the input's timing a trained network needs: jitter, clocks it was not trained on, and the spectrum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.network.feedforward import Network
from bats_lab.runs.training import evaluate, input_spikes
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.rules import RULES
from bats_lab.spikes.trains import Spikes

__all__ = ["clocked_accuracy", "highest_telling", "input_spectrum", "jitter_spikes", "jittered_accuracy"]


def jitter_spikes(spikes: Spikes, sigma: float, *, duration: float, seed: int = 0) -> Spikes:
    """Move each spike by a random time, normally distributed; those that would leave the window are mirrored into it.

    Parameters
    ----------
    spikes : Spikes
        In continuous time.
    sigma : float
        Standard deviation in seconds; 0 moves nothing.
    duration : float
        Length of the window in seconds.
    seed : int
        Seed of the random numbers. Spikes of two jitters and one seed move along the same way.

    Raises
    ------
    ValueError
        If `sigma` is negative or not finite, or the spikes are on a time grid.

    Examples
    --------
    >>> jitter_spikes(Spikes.from_padded(np.array([[0.02, 0.05]])), 0.001, duration=0.1).times.round(4)
    array([0.0201, 0.0499])
    """
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma is {sigma}; it must be at least 0 s and finite.")
    if spikes.delta_t:
        raise ValueError(f"spikes are on a grid of {spikes.delta_t} s; jitter is of continuous time.")
    sample, neuron, times = spikes.events()
    moved = np.abs(times + sigma * np.random.default_rng(seed).standard_normal(len(times))) % (2 * duration)
    moved = np.minimum(moved, 2 * duration - moved)
    return Spikes.from_events(sample, neuron, moved, n_samples=len(spikes), n_neurons=spikes.n_neurons)


def jittered_accuracy(
    network: Network,
    samples: np.ndarray | Spikes,
    labels: np.ndarray,
    config: Config,
    *,
    jitters: Sequence[float],
    n_draws: int = 3,
) -> xr.DataArray:
    """Test a network in continuous time on inputs whose spikes are jittered.

    Parameters
    ----------
    network : Network
    samples : ndarray of uint8, (sample, row, column), or Spikes
        Images, or events in continuous time.
    labels : ndarray of int, (sample,)
    config : Config
        The run: encoding, window and targets.
    jitters : sequence of float
        Standard deviations in seconds.
    n_draws : int
        Draws of each jitter.

    Returns
    -------
    xarray.DataArray, (draw, jitter)
        Accuracy, as a fraction.
    """
    inputs = input_spikes(samples, config.replace(delta_t=0.0, dtype="float64"))
    values = np.empty((n_draws, len(jitters)))
    for draw in range(n_draws):
        for i, sigma in enumerate(jitters):
            moved = jitter_spikes(inputs, sigma, duration=config.duration, seed=draw)
            values[draw, i] = _accuracy(network, moved, labels, config)
    coords = {"draw": np.arange(n_draws), "jitter": list(jitters)}
    return xr.DataArray(values, coords, ("draw", "jitter"), attrs={"units": "1", "long_name": "accuracy under jitter"})


def clocked_accuracy(
    network: Network,
    samples: np.ndarray | Spikes,
    labels: np.ndarray,
    config: Config,
    *,
    delta_t: Sequence[float],
) -> xr.Dataset:
    """Test a network on clocks that it was not trained on: its input's alone, or those of all of its layers.

    Parameters
    ----------
    network, samples, labels, config
        As in :func:`jittered_accuracy`.
    delta_t : sequence of float
        Time steps in seconds; 0 is continuous time.

    Returns
    -------
    xarray.Dataset
        ``input_accuracy`` (delta_t): input spikes are moved to the grid (eq. 14), and the network goes on in continuous
        time. ``network_accuracy`` (rule, delta_t): all spikes are, under each collision rule.
    """
    inputs = input_spikes(samples, config.replace(delta_t=0.0, dtype="float64"))
    alone = np.empty(len(delta_t))
    together = np.empty((len(RULES), len(delta_t)))
    for i, step in enumerate(delta_t):
        on_grid = discretize_spikes(inputs, step)
        sample, neuron, times = on_grid.events()
        size = {"n_samples": len(inputs), "n_neurons": inputs.n_neurons}
        alone[i] = _accuracy(network, Spikes.from_events(sample, neuron, times, **size), labels, config)
        for j, rule in enumerate(RULES):
            together[j, i] = _accuracy(network, on_grid, labels, config, rule) if step else alone[i]
    about = {"units": "1", "long_name": "accuracy on a clock"}
    return xr.Dataset(
        {"input_accuracy": ("delta_t", alone, about), "network_accuracy": (("rule", "delta_t"), together, about)},
        {"delta_t": ("delta_t", list(delta_t), {"units": "s", "long_name": "time step"}), "rule": list(RULES)},
    )


def _accuracy(network: Network, spikes: Spikes, labels: np.ndarray, config: Config, rule: str = "drop") -> float:
    # Spikes that a coarse clock sends after the window come too late for the network.
    if spikes.delta_t == 0 and spikes.times.size and spikes.times.max() >= config.duration:
        sample, neuron, times = spikes.events()
        kept, size = times < config.duration, {"n_samples": len(spikes), "n_neurons": spikes.n_neurons}
        spikes = Spikes.from_events(sample[kept], neuron[kept], times[kept], **size)
    spikes = replace(spikes, times=spikes.times.astype(config.dtype))
    return evaluate(network, spikes, labels, rule=rule, batch_size=config.test_batch_size).accuracy


def input_spectrum(spikes: Spikes, labels: np.ndarray, frequencies: Sequence[float] | np.ndarray) -> xr.Dataset:
    r"""Return the Fourier spectrum of input spikes: all of its power, and that in which the timing of classes differs.

    .. math:: X_{ic}(f) = \sum_{t \in \text{channel } c \text{ of sample } i} e^{-2\pi\mathrm{i} f t}, \qquad
        B(f) = \sum_c \operatorname{Var}_k\, \langle X_{ic}(f) - n_{ic} \phi_c(f) \rangle_{i \in \text{class } k}

    with the :math:`n_{ic}` spikes of the channel and :math:`\phi_c = \sum_i X_{ic} / \sum_i n_{ic}`: were only the
    numbers of spikes to differ between classes, which no clock changes, nothing would be left.

    Parameters
    ----------
    spikes : Spikes
        In continuous time.
    labels : ndarray of int, (sample,)
    frequencies : sequence of float
        In Hz.

    Returns
    -------
    xarray.Dataset
        Over `frequency`: ``power``, the mean over samples of :math:`\sum_c |X_{ic}|^2`, and ``telling``, the variance
        :math:`B` between the means of classes, weighted by their samples, less what so few samples have by chance.

    Notes
    -----
    A delay that is even between 0 and Δt multiplies what is left of an average at :math:`f` by
    :math:`\operatorname{sinc}(f \Delta t)`, and a normal jitter by :math:`e^{-2 (\pi f \sigma)^2}`: to second order
    they are the same where :math:`\Delta t = \sqrt{12}\,\sigma`.

    Examples
    --------
    >>> trains = Spikes.from_padded(np.array([[0.0], [0.0], [0.05], [0.05]]))
    >>> spectrum = input_spectrum(trains, np.array([0, 0, 1, 1]), [0.0, 10.0, 20.0])
    >>> spectrum["telling"].values.round(9).tolist(), spectrum["power"].values.tolist()
    ([0.0, 1.0, 0.0], [1.0, 1.0, 1.0])
    """
    frequencies, labels = np.asarray(frequencies, float), np.asarray(labels)
    classes, which = np.unique(labels, return_inverse=True)
    share = np.bincount(which) / len(labels)
    sample, neuron, times = spikes.events()
    counts = np.zeros((len(spikes), spikes.n_neurons))
    np.add.at(counts, (sample, neuron), 1)
    power, telling = np.empty(len(frequencies)), np.empty(len(frequencies))
    for k, frequency in enumerate(frequencies):
        transform = np.zeros((len(spikes), spikes.n_neurons), complex)
        np.add.at(transform, (sample, neuron), np.exp(-2j * np.pi * frequency * times))
        power[k] = (np.abs(transform) ** 2).sum(axis=1).mean()
        transform -= counts * (transform.sum(axis=0) / np.maximum(counts.sum(axis=0), 1))
        means = np.stack([transform[which == c].mean(axis=0) for c in range(len(classes))])
        between = share @ np.abs(means - share @ means) ** 2
        within = np.stack([transform[which == c].var(axis=0) for c in range(len(classes))])
        n = np.bincount(which)
        # The mean of n samples scatters by 1/(n - 1) of their own variance, and the mean of all with it.
        chance = ((1 - share) * share / np.maximum(n - 1, 1)) @ within
        telling[k] = max(float((between - chance).sum()), 0.0)
    about = {"units": "1", "long_name": "power of input spikes"}
    return xr.Dataset(
        {"power": ("frequency", power, about), "telling": ("frequency", telling, about)},
        {"frequency": ("frequency", frequencies, {"units": "Hz", "long_name": "frequency"})},
    )


def highest_telling(spectrum: xr.Dataset, share: float = 0.95) -> float:
    """Return the frequency, in Hz, below which a share of what tells classes apart lies (:func:`input_spectrum`).

    Examples
    --------
    >>> spectrum = xr.Dataset({"telling": ("frequency", [0.0, 3.0, 1.0])}, {"frequency": [0.0, 10.0, 20.0]})
    >>> highest_telling(spectrum, 0.75)
    10.0
    """
    total = np.cumsum(spectrum["telling"].values)
    return float(spectrum["frequency"].values[np.searchsorted(total, share * total[-1] * (1 - 1e-12))])
