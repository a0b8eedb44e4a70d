"""Every spike of one image, from a network that is run while the sliders move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.explore.live import LiveNetwork, Samples, decision, first_shown, live_networks, load_samples, same_depth
from bats_lab.explore.picture import Panel, Picture
from bats_lab.explore.widgets import Explorer, choice, in_words, opened, slider, step_slider, window_slider
from bats_lab.network.feedforward import Network
from bats_lab.plots import style
from bats_lab.plots.raster import (
    RasterLayer,
    neuron_limits,
    neuron_ticks,
    raster_columns,
    raster_plots,
    sent_label,
    time_limits,
)
from bats_lab.spikes.rules import RULES

__all__ = ["explore_rasters"]

_ALL = "all"


@in_words
def explore_rasters(
    source: xr.Dataset | Network | str | Path,
    samples: Samples | None = None,
    *,
    sample: int = 0,
    delta_t: float | None = None,
    rule: str | None = None,
) -> Explorer:
    """Explore the spikes of one image in every layer: what neurons compute, and what the time grid lets them send.

    The network is run anew for every time step and collision rule, also for those it was not trained with.

    Parameters
    ----------
    source : xarray.Dataset, Network, str or Path
        Results of one run or of many, some of which kept their weights; a folder of results; or a network.
    samples : Samples or None
        Images to be shown; None: the first test images of the data set.
    sample : int
        Image shown first.
    delta_t : float or None
        Time step at the start, in seconds; None: the largest with which one was trained.
    rule : str or None
        Collision rule at the start; None: that of the same run.

    Returns
    -------
    Explorer
        With the controls `network` (where there are several), `sample`, `delta_t`, `rule`, `layer` and `window`; or a
        :class:`Sentence` where there is no network to run.
    """
    networks = live_networks(source if isinstance(source, Network) else opened(source))
    first = first_shown(networks)
    networks = same_depth(networks, first)
    known: dict[str, Samples] = {}

    def of(network: LiveNetwork) -> Samples:
        """Return the images that a network is shown: of the data set that it was trained on."""
        if samples is not None:
            return samples
        name = network.config.dataset
        if name not in known:
            known[name] = load_samples(network.config)
        return known[name]

    images = of(first)
    if not len(images):
        raise ValueError("samples is empty; there must be at least one image.")
    if not 0 <= sample < len(images):
        raise ValueError(f"sample is {sample}; there are samples 0 to {len(images) - 1}.")
    names = list(first.config.layer_names())
    start = first.config.delta_t if delta_t is None else delta_t
    duration_ms = 1e3 * first.config.duration
    layers = [("all", _ALL), ("input", 0)]
    layers += [(style.layer_label(name, len(names) - 1), i + 1) for i, name in enumerate(names)]
    controls: dict[str, Any] = {
        "sample": slider("sample", 0, len(images) - 1, sample),
        "delta_t": step_slider(value=start),
        "rule": choice("rule", list(RULES), first.config.rule if rule is None else rule),
        "layer": choice("layer", layers),
        "window": window_slider("time", duration_ms),
    }
    rows = [["sample", "delta_t", "rule"], ["layer", "window"]]
    if len(networks) > 1:
        controls = {"network": choice("network", [(n.title, n) for n in networks], first), **controls}
        rows = [["network"], *rows]

    def shown(network: LiveNetwork, sample: int, delta_t: float, rule: str) -> list[RasterLayer]:
        images = of(network)
        sample = min(sample, len(images) - 1)
        label = None if images.labels is None else int(images.labels[sample])
        return network.rasters(
            images.images[sample], delta_t=delta_t, rule=rule, class_names=images.class_names, label=label
        )

    found = shown(first, sample, start, controls["rule"].value)
    picture = Picture(
        raster_plots(found, start, window=(0, first.config.duration), complete=True, height=150), share_x=True
    )

    def draw(
        sample: int,
        delta_t: float,
        rule: str,
        layer: int | str,
        window: tuple[float, float],
        network: LiveNetwork = first,
    ) -> str:
        rasters = shown(network, sample, delta_t, rule)
        seconds = (window[0] / 1e3, window[1] / 1e3)
        for i, (panel, raster) in enumerate(zip(picture.panels, rasters, strict=True)):
            show_raster(panel, raster, delta_t, seconds)
            panel.show(layer in (_ALL, i))
        return _summary(sample, rasters)

    return Explorer(controls, draw, [picture], rows=rows)


def show_raster(panel: Panel, raster: RasterLayer, delta_t: float, window: tuple[float, float]) -> None:
    """Bring the raster of a layer to other spikes, a time step (s) and a window of time (s)."""
    for name, columns in raster_columns(raster, delta_t, window).items():
        panel.set(name, columns)
    for name in ("sent", "links"):
        panel.paint(name, style.delta_t_color(delta_t))
    panel.name("sent", sent_label(delta_t))
    panel.x_limits(*time_limits(window))
    panel.y_limits(*neuron_limits(raster))
    ticks = neuron_ticks(raster)
    if ticks:
        panel.y_ticks(ticks)


def _summary(sample: int, rasters: list[RasterLayer]) -> str:
    output = rasters[-1]
    counts = np.isfinite(output.sent).sum(axis=1)
    told = decision(counts, output.labels)
    truth = "" if output.marked is None else f" is {output.labels[output.marked]} and"
    sent = [int(np.isfinite(r.sent).sum()) for r in rasters]
    lost = [int(np.isfinite(r.times).sum()) - n for r, n in zip(rasters, sent, strict=True)]
    spikes = ", ".join(f"{n} in {r.name}" for n, r in zip(sent, rasters, strict=True))
    merged = f"; {sum(lost)} crossings sent nothing" if sum(lost) else ""
    return f"Sample {sample}{truth} is taken for {told}. Spikes sent: {spikes}{merged}."
