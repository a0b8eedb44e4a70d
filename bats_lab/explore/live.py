"""Networks that explorers run: those kept in results, or one that is handed over, and the images they are shown."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.network.feedforward import LayerActivity, Network
from bats_lab.plots import style
from bats_lab.plots.raster import RasterLayer
from bats_lab.plots.runs import run_title
from bats_lab.runs.experiment import config_of, first_samples, network_of
from bats_lab.runs.metrics import NO_CLASS, VARIABLES
from bats_lab.spikes.encoding import encode_images
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.rules import rule_on
from bats_lab.spikes.trains import Spikes

__all__ = [
    "LiveNetwork",
    "Samples",
    "live_networks",
    "load_samples",
    "runs_with_spikes",
    "runs_with_weights",
    "same_depth",
    "single_runs",
]


@dataclass(frozen=True)
class Samples:
    """Images to be shown to a network.

    Attributes
    ----------
    images : ndarray of uint8, (sample, row, column)
    labels : ndarray of int, (sample,), or None
        Their classes, where they are known.
    class_names : tuple of str
        What the output neurons stand for; empty: they are numbered.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class LiveNetwork:
    """A trained network, and how images are put into it.

    Attributes
    ----------
    title : str
        What it is, in words.
    config : Config
        Parameters of its run: encoding, time step, collision rule.
    load : callable
        Builds the network; called once, when it is first run.
    accuracy : float
        Test accuracy after training; NaN where nobody knows it.
    """

    title: str
    config: Config
    load: Any
    accuracy: float = math.nan
    _network: Network | None = field(default=None, init=False)

    @property
    def network(self) -> Network:
        """The network."""
        if self._network is None:
            self._network = self.load()
        return self._network

    def inputs(self, images: np.ndarray, delta_t: float) -> Spikes:
        """Encode images and put them on a time grid."""
        spikes = encode_images(images, window=self.config.encoding_window)
        return discretize_spikes(spikes, delta_t)

    def run(self, images: np.ndarray, *, delta_t: float, rule: str) -> tuple[Spikes, list[LayerActivity]]:
        """Show images to the network.

        Parameters
        ----------
        images : ndarray of uint8, (sample, row, column)
        delta_t : float
            Time step in seconds, any.
        rule : str
            Collision rule, any.

        Returns
        -------
        Spikes
            The input.
        list of LayerActivity
            What each layer did.
        """
        inputs = self.inputs(images, delta_t)
        return inputs, self.network.simulate(inputs, rule=rule_on(rule, delta_t))

    def rasters(
        self,
        image: np.ndarray,
        *,
        delta_t: float,
        rule: str,
        class_names: Sequence[str] = (),
        label: int | None = None,
    ) -> list[RasterLayer]:
        """Show one image to the network and return the spikes of its input and of every layer."""
        inputs, layers = self.run(image[None], delta_t=delta_t, rule=rule)
        names = list(self.config.layer_names())
        found = [RasterLayer("input", inputs.padded(1)[0], inputs.padded(1, sent=True)[0])]
        for name, layer in zip(names, layers, strict=True):
            text = style.layer_label(name, len(names) - 1)
            marks = (tuple(class_names) or numbered(layers[-1]), label) if name == "output" else ((), None)
            found.append(RasterLayer(text, layer.times[0], layer.discretized[0], *marks))
        return found


def numbered(output: LayerActivity) -> tuple[str, ...]:
    """Name output neurons by their numbers."""
    return tuple(str(i) for i in range(output.times.shape[1]))


def decision(spike_count: np.ndarray, class_names: Sequence[str]) -> str:
    """Name the class that an output layer's spike counts (neuron,) decide for."""
    return class_names[int(np.argmax(spike_count))] if np.any(spike_count) else NO_CLASS


def live_networks(source: xr.Dataset | Network, *, config: Config | None = None) -> list[LiveNetwork]:
    """List the networks that can be run.

    Parameters
    ----------
    source : xarray.Dataset or Network
        Results of one run or of many, or a network.
    config : Config or None
        How images are put into a network that is handed over; None: as in the data set ``mnist_small``.

    Returns
    -------
    list of LiveNetwork
        The runs that kept their weights, by rising time step.

    Raises
    ------
    ValueError
        If no run kept its weights.
    """
    if isinstance(source, Network):
        hidden = source.sizes[1:-1]
        base = config or Config(hidden=hidden, threshold_hidden=source.thresholds[:-1])
        return [LiveNetwork(f"network {'-'.join(map(str, source.sizes))}", base, lambda: source)]
    return [
        LiveNetwork(run_title(run), config_of(run), functools.partial(network_of, run), _accuracy(run))
        for run in runs_with_weights(source)
    ]


def runs_with_weights(results: xr.Dataset) -> list[xr.Dataset]:
    """Return the finished runs that kept their weights, by rising time step.

    Parameters
    ----------
    results : xarray.Dataset
        Results of one run or of many.

    Raises
    ------
    ValueError
        If there is none.
    """
    runs = [run for run in single_runs(results) if "weights" in run and config_of(run).keep_weights != "none"]
    if not runs:
        raise ValueError("None of these runs kept its weights; runs keep them with keep_weights='last' or 'each'.")
    return runs


def single_runs(results: xr.Dataset) -> list[xr.Dataset]:
    """Return each finished run of results, by rising time step; nothing is read from disk."""
    for name in ("accuracy", "config"):
        if name not in results:
            raise ValueError(f"The results have no variable {name!r}, which every run has.")
    dims = [str(d) for d in results["accuracy"].dims if d not in VARIABLES["accuracy"].dims]
    if not dims:
        return [results]
    done = results["accuracy"].notnull().any(list(VARIABLES["accuracy"].dims))
    order = sorted(dims, key=lambda dim: (dim == "seed", dim == "rule", dim != "dataset"))
    cells = done.transpose(*order)
    return [results.isel(dict(zip(order, map(int, cell), strict=True))) for cell in np.argwhere(cells.values)]


def _accuracy(run: xr.Dataset) -> float:
    known = np.ravel(run["accuracy"].sel(split="test").values)
    known = known[np.isfinite(known)]
    return float(known[-1]) if len(known) else math.nan


def first_shown(networks: Sequence[LiveNetwork]) -> LiveNetwork:
    """Choose the network to begin with: of those that learned, the one with the coarsest clock, which has most to show.

    Those have learned that are less than 2 percentage points below the best; all, where nobody knows.
    """
    best = max((n.accuracy for n in networks if math.isfinite(n.accuracy)), default=math.nan)
    learned = [n for n in networks if n.accuracy > best - 0.02] or networks
    return max(learned, key=lambda network: network.config.delta_t)


def same_depth(networks: Sequence[LiveNetwork], first: LiveNetwork) -> list[LiveNetwork]:
    """Return the networks that have as many layers as one, and so fit into the same picture."""
    return [network for network in networks if len(network.config.hidden) == len(first.config.hidden)]


def load_samples(config: Config, *, at_most: int = 500) -> Samples:
    """Return the first test images of the data set that a run was trained on.

    Raises
    ------
    DataError
        If the data set is not there.
    """
    data = first_samples(config, at_most)
    return Samples(data.x_test, data.y_test, data.class_names)


def runs_with_spikes(results: xr.Dataset) -> list[xr.Dataset]:
    """Return the finished runs that kept the spikes of some test samples, by rising time step.

    Parameters
    ----------
    results : xarray.Dataset
        Results of one run or of many.

    Raises
    ------
    ValueError
        If there is none.
    """
    runs = [run for run in single_runs(results) if "sample_label" in run and run["sample_label"].values.any()]
    if not runs:
        raise ValueError("None of these runs kept spikes; runs keep them with keep_samples above 0.")
    return runs
