"""Spike rasters: every spike of one sample, as it was computed and as it was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.runs import check_sample, layers_of, one_run, run_title
from bats_lab.runs.kept import kept_inputs
from bats_lab.spikes.distances import van_rossum, victor_purpura

__all__ = [
    "RasterLayer",
    "draw_raster",
    "kept_rasters",
    "plot_raster",
    "raster_columns",
    "raster_distances",
    "raster_plots",
]

_WIDTH, _HEIGHT = 620, 170
#: Up to this many neurons each has its tick.
_NAMED = 12


@dataclass(frozen=True)
class RasterLayer:
    """Spikes of one layer for one sample.

    Attributes
    ----------
    name : str
        What stands above its raster.
    times, sent : ndarray, (neuron, spike)
        Time of each crossing and time at which its spike is sent, in seconds; not finite where there is none.
    labels : sequence of str
        Names of the neurons; empty: they are numbered.
    marked : int or None
        Neuron that is marked, as that of the true class.
    """

    name: str
    times: np.ndarray
    sent: np.ndarray
    labels: Sequence[str] = ()
    marked: int | None = None


def plot_raster(
    dataset: xr.Dataset,
    *,
    sample: int = 0,
    delta_t: float | None = None,
    seed: int | None = None,
    rule: str | None = None,
    layers: str | Sequence[str] | None = None,
    window: tuple[float, float] | None = None,
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot the spikes of one test sample: inputs and every layer, computed beside sent times, the true class marked.

    Parameters
    ----------
    dataset, sample, delta_t, seed, rule, title
        As in all plots (:mod:`bats_lab.plots`).
    layers : str, sequence of str or None
        Layers to draw, as ``input``, ``hidden_1`` and ``output``; None: all.
    window : (float, float) or None
        Part of the time axis that is seen, in seconds; None: all of it.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        One raster a layer, the input first.
    """
    run = one_run(dataset, "spike_times", "sent_times", delta_t=delta_t, seed=seed, rule=rule)
    check_sample(run, sample)
    rasters = kept_rasters(run, sample, layers)
    if title is None:
        label, predicted = (
            str(run[name].sel(sample=sample).values) if name in run else ""
            for name in ("sample_label", "sample_prediction")
        )
        title = f"sample {sample}: {label}, predicted {predicted}; {run_title(run)}"
    return draw_raster(rasters, float(run["delta_t"]), window=window, title=title)


def kept_rasters(run: xr.Dataset, sample: int, layers: str | Sequence[str] | None = None) -> list[RasterLayer]:
    """Return the spikes that one run kept of a sample: of its input and of each layer, or of the layers named.

    Raises
    ------
    ValueError
        If there is no such layer, or if no spikes of the sample were kept.
    """
    spiking = run["spike_count"].isel(split=0)
    names = layers_of(spiking, None)
    wanted = ["input", *names] if layers is None else [layers] if isinstance(layers, str) else list(layers)
    if wanted != ["input"]:
        layers_of(spiking, [name for name in wanted if name != "input"])
    label = str(run["sample_label"].sel(sample=sample).values) if "sample_label" in run else ""
    spikes = run[["spike_times", "sent_times"]].sel(sample=sample)
    rasters = []
    for name in wanted:
        if name == "input":
            rasters.append(RasterLayer("input", *kept_inputs(run.sel(sample=sample))))
            continue
        size = int(run["layer_size"].sel(layer=name))
        own = spikes.sel(layer=name).isel(neuron=slice(size)).transpose("neuron", "spike", ...)
        classes = [str(c) for c in run["true_class"].values][:size] if name == "output" else []
        marked = classes.index(label) if label in classes else None
        text = style.layer_label(name, len(names) - 1)
        rasters.append(RasterLayer(text, own["spike_times"].values, own["sent_times"].values, classes, marked))
    if not any(np.isfinite(r.times).any() for r in rasters):
        raise ValueError(f"This run kept no spikes of sample {sample}.")
    return rasters


def draw_raster(
    layers: Sequence[RasterLayer], delta_t: float, *, window: tuple[float, float] | None = None, title: str = ""
) -> hv.Overlay | hv.Layout:
    """Draw rasters of the layers of a network, from the input on, below each other and on one time axis.

    The time step (s) gives sent spikes their colour; at 0 computed and sent times are the same. `window` (s) is the
    part of the time axis that is seen, None all of it.
    """
    plots = raster_plots(layers, delta_t, window=window)
    return style.panels(plots, columns=1, title=title, width=_WIDTH, height=_HEIGHT, gap=50, linked=True)


def raster_plots(
    layers: Sequence[RasterLayer],
    delta_t: float,
    *,
    window: tuple[float, float] | None = None,
    complete: bool = False,
    width: int = _WIDTH,
    height: int = _HEIGHT,
) -> list[hv.Overlay]:
    """Draw one raster a layer, as :func:`draw_raster` does.

    If `complete`, series of which there is no spike now are there all the same: an explorer fills them with the columns
    of :func:`raster_columns` later. Series have their group from there; rings around spikes are the group ``chosen``.
    """
    if not layers:
        raise ValueError("layers is empty; a raster needs at least one.")
    if window is not None and not window[0] < window[1]:
        raise ValueError(f"window is {window}; its end must be after its start.")
    last = max((t[np.isfinite(t)].max(initial=0.0) for r in layers for t in (r.times, r.sent)), default=0.0)
    seen = (0.0, float(last) or 1e-3) if window is None else window
    columns = [raster_columns(layer, delta_t, seen) for layer in layers]
    names = [n for n in _SERIES if complete or any(len(c[n]["time"]) for c in columns)]
    legend = [_legend_entry(name, delta_t) for name in names if name != "links"]
    return [
        style.overlay(
            [
                *(_series(name, series[name], layer, delta_t, i) for name in _SERIES if name in names),
                *([_rings(layer, i)] if complete else []),
            ],
            width=width,
            height=height,
            legend=legend if i == len(layers) - 1 else (),
            title=layer.name,
            xlabel="time (ms)" if i == len(layers) - 1 else "",
            ylabel="class" if layer.labels else "neuron",
            xlim=time_limits(seen),
            ylim=neuron_limits(layer),
            **_named_neurons(layer),
        )
        for i, (layer, series) in enumerate(zip(layers, columns, strict=True))
    ]


def time_limits(window: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of the time axis, in ms, that show a window of time (s) with a little room."""
    start, end = 1e3 * window[0], 1e3 * window[1]
    return (start - 0.01 * (end - start), end + 0.01 * (end - start))


def neuron_limits(layer: RasterLayer) -> tuple[float, float]:
    """Return the ends of the axis of neurons."""
    return (-0.05 * len(layer.times) - 0.5, 1.05 * len(layer.times) - 0.5)


def neuron_ticks(layer: RasterLayer) -> list[tuple[int, str]]:
    """Return the ticks of the axis of neurons where they have names; there are none where they are many."""
    return [(i, str(name)) for i, name in enumerate(layer.labels)] if len(layer.labels) <= _NAMED else []


def _named_neurons(layer: RasterLayer) -> dict[str, Any]:
    ticks = neuron_ticks(layer)
    return {"yticks": ticks} if ticks else {}


def raster_distances(layer: RasterLayer, other: RasterLayer, *, tau: float) -> tuple[float, float]:
    r"""Return how far the spikes that a layer sends are from those it sends in another raster, neuron by neuron.

    Parameters
    ----------
    layer, other : RasterLayer
        The same layer and sample, as on two clocks.
    tau : float
        Time constant of the filter, in seconds; moving a spike costs its inverse a second.

    Returns
    -------
    (float, float)
        Victor-Purpura distance, the sum over neurons, and van Rossum distance, the root of the sum of squares: neurons
        are told apart (:mod:`bats_lab.spikes.distances`).

    Raises
    ------
    ValueError
        If the layers are not of the same size.
    """
    moved = victor_purpura(layer.sent, other.sent, cost=1 / tau)
    filtered = van_rossum(layer.sent, other.sent, tau=tau)
    return float(moved.sum()), float(np.sqrt((filtered**2).sum()))


#: What a raster is made of, from the back to the front.
_SERIES = ("true", "links", "computed", "sent", "lost")


def raster_columns(layer: RasterLayer, delta_t: float, window: tuple[float, float]) -> dict[str, dict[str, np.ndarray]]:
    """Return what a raster shows: for each of its series the columns, with times in ms.

    They are ``true`` (line of the true class over the `window`, in s), ``links`` (from each computed to its sent time),
    ``computed``, ``sent`` and ``lost`` (computed but not sent); in continuous time there are sent spikes only.
    """
    neuron, spike = np.nonzero(np.isfinite(layer.times))
    computed, sent = 1e3 * layer.times[neuron, spike], 1e3 * layer.sent[neuron, spike]
    left = np.isfinite(sent)
    on_grid = left if delta_t else np.zeros(len(left), bool)
    marked = [] if layer.marked is None else [layer.marked] * 2

    def some(time: np.ndarray, which: np.ndarray) -> dict[str, np.ndarray]:
        columns = {"time": time, "neuron": neuron, "computed": computed, "sent": sent}
        return {name: values[which] for name, values in columns.items()}

    return {
        "true": {"time": 1e3 * np.array(window if marked else []), "neuron": np.array(marked, dtype=int)},
        "links": {
            "time": computed[on_grid],
            "neuron": neuron[on_grid],
            "sent": sent[on_grid],
            "neuron_sent": neuron[on_grid],
        },
        "computed": some(computed, on_grid),
        "sent": some(sent, left),
        "lost": some(computed, ~left),
    }


def _axes(layer: RasterLayer, index: int) -> tuple[hv.Dimension, hv.Dimension]:
    x = hv.Dimension("time", label="time", unit="ms")
    # A label of its own, since axes of the same label move together on the screen.
    return x, hv.Dimension("neuron", label=f"neuron of {layer.name} {index}")


def _rings(layer: RasterLayer, index: int) -> hv.Scatter:
    nowhere = hv.Scatter({"time": [np.nan], "neuron": [np.nan]}, *_axes(layer, index), group="chosen")
    return style.styled(style.ring(nowhere, size=9), screen={"line_width": 1.8})


def _series(name: str, columns: dict[str, np.ndarray], layer: RasterLayer, delta_t: float, index: int) -> Any:
    """Draw one series of a raster."""
    x, y = _axes(layer, index)
    entry = _legend_entry(name, delta_t)
    if name == "true":
        curve = hv.Curve((columns["time"], columns["neuron"]), x, y, label=entry.label, group=name)
        return style.line(curve, entry.color, series=2, width=0.8)
    if name == "links":
        links = hv.Segments(tuple(columns.values()), [x, y, "sent", "neuron_sent"], group=name)
        return style.styled(links, color=entry.color, alpha=0.35, screen={"line_width": 1}, paper={"linewidth": 0.6})
    scatter = hv.Scatter(columns, x, [y, "computed", "sent"], label=entry.label, group=name)
    size = float(np.clip(8.0 / np.sqrt(max(len(layer.times), 1)), 0.4, 0.8))
    size *= 0.8 if name == "computed" else 1.0
    tooltips = [("neuron", "@neuron"), ("computed", "@computed{0.000} ms"), ("sent", "@sent{0.000} ms")]
    return style.points(scatter, entry.color, series=entry.marker or 0, size=size, tooltips=tooltips)


def _legend_entry(name: str, delta_t: float) -> style.LegendEntry:
    entries = {
        "true": style.LegendEntry("true class", style.ACCENT_COLOR, line=2),
        "computed": style.LegendEntry("computed", style.NEUTRAL_COLOR, marker=0),
        "lost": style.LegendEntry("not sent", style.ACCENT_COLOR, marker=3),
    }
    return entries.get(name) or style.LegendEntry(sent_label(delta_t), style.delta_t_color(delta_t), marker=0)


def sent_label(delta_t: float) -> str:
    """Name the sent spikes in the legend."""
    return f"sent, Δt = {style.delta_t_label(delta_t)}" if delta_t else "sent, continuous"
