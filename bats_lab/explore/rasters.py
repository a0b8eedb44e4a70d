"""Every spike of one image, from a network that is run while the sliders move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from bats_lab.explore.live import LiveNetwork, Offer, Samples
from bats_lab.explore.picture import Panel, Picture
from bats_lab.explore.widgets import Explorer, choice, in_words, slider, step_slider, window_slider
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
from bats_lab.runs.metrics import NO_CLASS
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
    source, samples, sample
        As in all explorers (:mod:`bats_lab.explore`).
    delta_t : float or None
        Time step at the start, in seconds; None: the largest with which one was trained.
    rule : str or None
        Collision rule at the start; None: that of the same run.

    Returns
    -------
    Explorer
        With the controls `network` (where there are several), `sample`, `delta_t`, `rule`, `layer` and `window`.
    """
    offer = Offer(source, samples, sample)
    config = offer.first.config
    names = config.layer_names()
    layers = [("all", _ALL), ("input", 0)]
    layers += [(style.layer_label(name, len(names) - 1), i + 1) for i, name in enumerate(names)]
    rows = [
        offer.control(),
        {
            "sample": slider("sample", 0, len(offer.images(offer.first)) - 1, sample),
            "delta_t": step_slider(value=config.delta_t if delta_t is None else delta_t),
            "rule": choice("rule", list(RULES), config.rule if rule is None else rule),
        },
        {"layer": choice("layer", layers), "window": window_slider("time", 1e3 * config.duration)},
    ]

    def shown(network: LiveNetwork, sample: int, delta_t: float, rule: str) -> list[RasterLayer]:
        image, label = offer.sample(network, sample)
        class_names = offer.images(network).class_names
        return network.rasters(image, delta_t=delta_t, rule=rule, class_names=class_names, label=label)

    start, first_rule = rows[1]["delta_t"].value, rows[1]["rule"].value
    first = raster_plots(
        shown(offer.first, sample, start, first_rule), start, window=(0, config.duration), complete=True, height=150
    )
    picture = Picture(first, share_x=True)

    def draw(
        sample: int,
        delta_t: float,
        rule: str,
        layer: int | str,
        window: tuple[float, float],
        network: LiveNetwork = offer.first,
    ) -> str:
        rasters = shown(network, sample, delta_t, rule)
        for i, (panel, raster) in enumerate(zip(picture.panels, rasters, strict=True)):
            show_raster(panel, raster, delta_t, (window[0] / 1e3, window[1] / 1e3))
            panel.show(layer in (_ALL, i))
        return _summary(sample, rasters)

    return Explorer(rows, draw, [picture])


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
    prediction = output.labels[int(counts.argmax())] if counts.any() else NO_CLASS
    truth = "" if output.marked is None else f" is {output.labels[output.marked]} and"
    sent = [int(np.isfinite(r.sent).sum()) for r in rasters]
    unsent = sum(int(np.isfinite(r.times).sum()) for r in rasters) - sum(sent)
    spikes = ", ".join(f"{n} in {r.name}" for n, r in zip(sent, rasters, strict=True))
    return f"Sample {sample}{truth} is taken for {prediction}. Spikes sent: {spikes}; {unsent} crossings sent nothing."
