"""Networks that explorers run: those kept in results, or one that is handed over, and the images they are shown."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.explore.widgets import if_several, opened
from bats_lab.network.feedforward import Network
from bats_lab.plots import style
from bats_lab.plots.raster import RasterLayer
from bats_lab.plots.runs import run_title
from bats_lab.runs.experiment import config_of, first_samples, network_of
from bats_lab.runs.kept import changes_of, runs_with_spikes, runs_with_weights
from bats_lab.spikes.encoding import encode_images
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.rules import rule_on
from bats_lab.spikes.trains import Spikes

__all__ = ["LiveNetwork", "Offer", "Samples", "live_networks", "load_samples", "runs_with_spikes", "runs_with_weights"]


@dataclass(frozen=True)
class Samples:
    """Images, or events, to be shown to a network.

    Attributes
    ----------
    images : ndarray of uint8, (sample, row, column), or Spikes
    labels : ndarray of int, (sample,), or None
        Their classes, where they are known.
    class_names : tuple of str
        What the output neurons stand for; empty: they are numbered.
    """

    images: np.ndarray | Spikes
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


@dataclass(eq=False)
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
    load_changes : callable or None
        Returns what training has made of the weights of each layer; None: nobody knows.
    """

    title: str
    config: Config
    load: Callable[[], Network]
    accuracy: float = math.nan
    load_changes: Callable[[], dict[str, np.ndarray]] | None = None

    @functools.cached_property
    def network(self) -> Network:
        """The network."""
        return self.load()

    @functools.cached_property
    def learned(self) -> np.ndarray:
        """What training has made of the weights of the first layer, (post, pre); the weights where nobody knows."""
        if self.load_changes is None:
            return np.asarray(self.network.weights[0])
        return next(iter(self.load_changes().values()))

    def rasters(
        self,
        image: np.ndarray | Spikes,
        *,
        delta_t: float,
        rule: str,
        class_names: Sequence[str] = (),
        label: int | None = None,
    ) -> list[RasterLayer]:
        """Show one image, (row, column), or the events of one sample, and return the spikes of input and every layer.

        Any time step (s) and collision rule will do, not only those of training. Classes without names are numbered.
        """
        if isinstance(image, np.ndarray):
            image = encode_images(image[None], window=self.config.encoding_window)
        inputs = discretize_spikes(image.packed(), delta_t)
        activity = self.network.simulate(inputs, rule=rule_on(rule, delta_t))
        names = self.config.layer_names()
        rasters = [RasterLayer("input", inputs.padded()[0], inputs.padded(sent=True)[0])]
        for name, layer in zip(names, activity, strict=True):
            times, sent = layer.times[0], layer.discretized[0]
            rasters.append(RasterLayer(style.layer_label(name, len(names) - 1), times, sent))
        labels = tuple(class_names) or tuple(map(str, range(len(times))))
        return [*rasters[:-1], replace(rasters[-1], labels=labels, marked=label)]


def live_networks(source: xr.Dataset | Network) -> list[LiveNetwork]:
    """List the networks that can be run: the runs of results that kept their weights, by rising time step, or the one.

    A network that is handed over sees images as those of the data set ``mnist_small`` are seen.

    Raises
    ------
    ValueError
        If no run kept its weights.
    """
    if isinstance(source, Network):
        config = Config(hidden=source.sizes[1:-1], threshold_hidden=source.thresholds[:-1])
        return [LiveNetwork(f"network {'-'.join(map(str, source.sizes))}", config, lambda: source)]
    return [
        LiveNetwork(
            run_title(run),
            config_of(run),
            functools.partial(network_of, run),
            _accuracy(run),
            functools.partial(changes_of, run),
        )
        for run in runs_with_weights(source)
    ]


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


def load_samples(config: Config, *, at_most: int = 500) -> Samples:
    """Return the first test samples of the data set that a run was trained on; a DataError if it is not there."""
    data = first_samples(config, at_most)
    return Samples(data.x_test, data.y_test, data.class_names)


class Offer:
    """The networks that an explorer offers, all of one depth so that they fit into one picture, and what they see.

    Parameters
    ----------
    source : xarray.Dataset, Network, str or Path
        Results of one run or of many, some of which kept their weights; a folder of results; or a network.
    samples : Samples or None
        Images to be shown; None: the first test images of the data set that each network was trained on.
    sample : int
        The one shown first.

    Attributes
    ----------
    networks : list of LiveNetwork
    first : LiveNetwork
        The network to begin with.

    Raises
    ------
    ValueError
        If there is no network to run, or no such sample.
    """

    def __init__(self, source: xr.Dataset | Network | str | Path, samples: Samples | None, sample: int) -> None:
        networks = live_networks(source if isinstance(source, Network) else opened(source))
        self.first = first_shown(networks)
        self.networks = [n for n in networks if len(n.config.hidden) == len(self.first.config.hidden)]
        self._samples = samples
        self._loaded: dict[str, Samples] = {}
        images = self.images(self.first)
        if not len(images):
            raise ValueError("samples is empty; there must be at least one image.")
        if not 0 <= sample < len(images):
            raise ValueError(f"sample is {sample}; there are samples 0 to {len(images) - 1}.")

    def control(self) -> dict[str, Any]:
        """Return the control `network`, where there are several."""
        return if_several("network", "network", [(n.title, n) for n in self.networks], self.first)

    def images(self, network: LiveNetwork) -> Samples:
        """Return the images that a network is shown."""
        if self._samples is not None:
            return self._samples
        name = network.config.dataset
        if name not in self._loaded:
            self._loaded[name] = load_samples(network.config)
        return self._loaded[name]

    def sample(self, network: LiveNetwork, number: int) -> tuple[Any, int | None]:
        """Return an image, or events, and the class, where that is known; the last sample stands for those after."""
        images = self.images(network)
        number = min(number, len(images) - 1)
        image = images.images[number : number + 1] if isinstance(images.images, Spikes) else images.images[number]
        return image, None if images.labels is None else int(images.labels[number])
