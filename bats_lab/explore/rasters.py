"""Every spike of one image, from a network that is run while the sliders move."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.explore.live import LiveNetwork, Offer, Samples
from bats_lab.explore.picture import Panel, Picture
from bats_lab.explore.widgets import (
    Explorer,
    choice,
    in_room,
    in_words,
    player,
    side_by_side,
    slider,
    step_slider,
    time_slider,
    window_slider,
)
from bats_lab.network.feedforward import Network
from bats_lab.plots import style
from bats_lab.plots.decision import seen_image
from bats_lab.plots.raster import (
    RasterLayer,
    neuron_limits,
    neuron_ticks,
    raster_columns,
    raster_distances,
    raster_plots,
    sent_label,
    time_limits,
)
from bats_lab.plots.weights import color_limit, neuron_image
from bats_lab.runs.metrics import NO_CLASS
from bats_lab.spikes.rules import RULES
from bats_lab.spikes.trains import Spikes

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

    The network is run anew for every time step and collision rule, also for those it was not trained with. One neuron
    of the first hidden layer and one pixel are chosen; what belongs to them is marked in the spikes, in the image and
    in what training has made of the neuron's weights, which are an image, too. A click in any of these chooses another.
    Of a data set of events there is no image: a pixel is a channel. The sentence says how far each layer's spikes are
    from those that the same network sends in continuous time.

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
        With the controls `network` (where there are several), `sample`, `delta_t`, `rule`, `layer`, `window` and `time`
        (ms; later spikes are left out), and `neuron` and `pixel`, which are chosen. The button `play` lets time run.
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
        {
            "layer": choice("layer", layers),
            "window": window_slider("window", 1e3 * config.duration),
            **time_slider(1e3 * config.duration),
        },
        {
            "neuron": slider("hidden neuron", 0, offer.first.network.sizes[1] - 1, 0),
            "pixel": slider("pixel", 0, offer.first.network.sizes[0] - 1, 0),
        },
    ]

    def shown(network: LiveNetwork, sample: int, delta_t: float, rule: str) -> list[RasterLayer]:
        image, label = offer.sample(network, sample)
        class_names = offer.images(network).class_names
        return network.rasters(image, delta_t=delta_t, rule=rule, class_names=class_names, label=label)

    start, first_rule = rows[1]["delta_t"].value, rows[1]["rule"].value
    first = shown(offer.first, sample, start, first_rule)
    image, _ = offer.sample(offer.first, sample)
    # What there is most to see of: the neuron that spikes most, and the pixel that drives it most.
    rows[3]["neuron"].value = int(np.isfinite(first[1].sent).sum(axis=1).argmax())
    events = isinstance(image, Spikes)
    drive = np.isfinite(first[0].times).sum(axis=1) if events else image.ravel()
    rows[3]["pixel"].value = int((offer.first.network.weights[0][rows[3]["neuron"].value] * drive).argmax())
    if events:
        rows[3]["pixel"].description = "channel"
    plots = raster_plots(first, start, window=(0, config.duration), complete=True, height=150)
    picture = Picture(plots, share_x=True)
    look = None if events else _Look(image)
    known: dict[str, Any] = {}

    def draw(
        sample: int,
        delta_t: float,
        rule: str,
        layer: int | str,
        window: tuple[float, float],
        time: float,
        neuron: int,
        pixel: int,
        network: LiveNetwork = offer.first,
    ) -> str:
        run = (network, sample, delta_t, rule)
        if known.get("run") != run:
            known.update(run=run, rasters=shown(*run), drawn=None)
            if delta_t and known.get("exact_of") != run[:2]:
                known.update(exact_of=run[:2], exact=shown(network, sample, 0.0, rule))
            known["distance"] = _distance(known["rasters"], known["exact"], network.config.tau_syn) if delta_t else ""
        rasters = known["rasters"]
        if known["drawn"] != (window, time, layer):
            known["drawn"] = (window, time, layer)
            for i, (panel, raster) in enumerate(zip(picture.panels, rasters, strict=True)):
                show_raster(panel, until(raster, time / 1e3), delta_t, (window[0] / 1e3, window[1] / 1e3))
                panel.show(layer in (_ALL, i))
        for panel, chosen in zip(picture.panels, (pixel, neuron), strict=False):
            ring(panel, chosen)
        if look is not None:
            look.draw(offer.sample(network, sample)[0], network.learned, neuron, pixel)
        return _summary(sample, rasters) + known["distance"]

    pictures = [picture] if look is None else [picture, look.picture]
    rooms: list[tuple[int, dict[str, int]]] = [(620, {"grow": 4}), (230, {})]
    explorer = Explorer(
        rows,
        draw,
        pictures,
        body=lambda: side_by_side(
            [in_room(p.widget, width=width, **grown) for p, (width, grown) in zip(pictures, rooms, strict=False)],
            align_items="flex-start",
        ),
        buttons={"play": player(rows[2]["time"])},
        presets=_presets(offer.networks),
    )

    def choose_spike(panel: Panel, control: str, x: float, y: float) -> None:
        neuron = nearest(panel, x, y)
        if neuron is not None:
            explorer.offer(control, neuron)

    def choose_pixel(look: _Look, x: float, y: float) -> None:
        n_rows, n_columns = look.shape
        if -0.5 < x < n_columns - 0.5 and -0.5 < y < n_rows - 0.5:
            explorer.offer("pixel", round(y) * n_columns + round(x))

    for panel, control in zip(picture.panels, ("pixel", "neuron"), strict=False):
        panel.on_tap(functools.partial(choose_spike, panel, control))
    if look is not None:
        for panel in look.picture.panels:
            panel.on_tap(functools.partial(choose_pixel, look))
    return explorer


def _presets(networks: list[LiveNetwork]) -> dict[str, dict[str, Any]]:
    """Return what is worth a look, for the networks there are."""

    def trained(delta_t: float, rule: str | None = None) -> dict[str, Any]:
        fits = [n for n in networks if n.config.delta_t == delta_t and rule in (None, n.config.rule)]
        return {"network": fits[0].title} if fits and len(networks) > 1 else {"network": None}

    return {
        "the cliff at 8 ms: trained under drop": trained(0.008, "drop") | {"delta_t": 0.008, "rule": "drop"},
        "8 ms, trained under graded": trained(0.008, "graded") | {"delta_t": 0.008, "rule": "graded"},
        "trained without a clock, run at 8 ms": trained(0.0) | {"delta_t": 0.008, "rule": "drop"},
        "single ticks of 4 ms": {"delta_t": 0.004, "layer": 1, "window": [40.0, 80.0]},
    }


class _Look:
    """What the network sees, and what a neuron of the first hidden layer has learned; the pixel chosen is framed."""

    def __init__(self, image: np.ndarray) -> None:
        self.shape = image.shape
        limit, size = 1.0, 200
        seen = seen_image(image, size=size, marks=[self._frame()])
        looked_for = neuron_image(np.zeros(image.shape), limit, " ", width=size, marks=[self._frame()])
        self.picture = Picture([seen, looked_for], toolbar=False, rigid=True)
        looked_for = self.picture.panels[1].figure
        looked_for.right, looked_for.axis.visible = [], False
        self._shown: Any = None

    @staticmethod
    def _frame() -> hv.Rectangles:
        frame = hv.Rectangles([(-0.5, -0.5, 0.5, 0.5)], ["column", "row", "right", "bottom"], group="pixel")
        return style.styled(frame, screen={"fill_color": None, "line_color": style.ACCENT_COLOR, "line_width": 2.5})

    def draw(self, image: np.ndarray, learned: np.ndarray, neuron: int, pixel: int) -> None:
        """Show an image, a neuron and a pixel."""
        self.shape = image.shape
        seen, looked_for = self.picture.panels
        seen.set_image("image", image.astype(float))
        values = learned[min(neuron, len(learned) - 1)].reshape(self.shape)
        looked_for.set_image("weights", values, limit=color_limit(values))
        looked_for.title(f"weights of neuron {neuron}")
        row, column = divmod(pixel, self.shape[1])
        for panel in (seen, looked_for):
            corners = {"left": column - 0.5, "bottom": row - 0.5, "right": column + 0.5, "top": row + 0.5}
            panel.set("pixel", {name: [corner] for name, corner in corners.items()})


def until(raster: RasterLayer, time: float) -> RasterLayer:
    """Leave out the spikes that are computed after a time (s)."""
    later = ~(raster.times <= time)
    return replace(raster, times=np.where(later, np.inf, raster.times), sent=np.where(later, np.inf, raster.sent))


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
    ring(panel, None)


def ring(panel: Panel, neuron: int | None) -> None:
    """Put rings around the spikes that a neuron of a raster has sent; None: around none."""
    sent = panel.columns("sent")
    which = np.asarray(sent["neuron"]) == (-1 if neuron is None else neuron)
    panel.set("chosen", {name: np.asarray(sent[name])[which] for name in ("time", "neuron")})


def nearest(panel: Panel, x: float, y: float) -> int | None:
    """Return the neuron of a raster whose spike is nearest to a place in it; None: there are no spikes."""
    sent, ranges = panel.columns("sent"), (panel.figure.x_range, panel.figure.y_range)
    reach = [abs(r.end - r.start) for r in ranges]
    away = np.hypot((sent["time"] - x) / reach[0], (sent["neuron"] - y) / reach[1])
    return int(sent["neuron"][away.argmin()]) if away.size else None


def _summary(sample: int, rasters: list[RasterLayer]) -> str:
    output = rasters[-1]
    counts = np.isfinite(output.sent).sum(axis=1)
    prediction = output.labels[int(counts.argmax())] if counts.any() else NO_CLASS
    truth = "" if output.marked is None else f" is {output.labels[output.marked]} and"
    sent = [int(np.isfinite(r.sent).sum()) for r in rasters]
    unsent = sum(int(np.isfinite(r.times).sum()) for r in rasters) - sum(sent)
    spikes = ", ".join(f"{n} in {r.name}" for n, r in zip(sent, rasters, strict=True))
    return f"Sample {sample}{truth} is taken for {prediction}. Spikes sent: {spikes}; {unsent} crossings sent nothing."


def _distance(rasters: list[RasterLayer], exact: list[RasterLayer], tau: float) -> str:
    """Say how far the spikes of each layer are from those in continuous time."""
    apart = (raster_distances(raster, other, tau=tau) for raster, other in zip(rasters, exact, strict=True))
    layers = "; ".join(
        f"{r.name} {moved:.3g} and {filtered:.3g}" for r, (moved, filtered) in zip(rasters, apart, strict=True)
    )
    return f" Distance to continuous time, Victor–Purpura and van Rossum with τ = {1e3 * tau:g} ms: {layers}."
