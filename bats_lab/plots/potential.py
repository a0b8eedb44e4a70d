"""The membrane potential of one neuron: what reached it, where it crossed its threshold, and what it sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.network.neuron import Neuron
from bats_lab.plots import style
from bats_lab.plots.runs import check_sample, layers_of, one_run, run_title
from bats_lab.runs.kept import busiest_neuron, neuron_of
from bats_lab.spikes.grid import ticks_within

__all__ = ["draw_potential", "plot_potential", "potential_columns", "potential_plots"]

_WIDTH, _HEIGHTS, _LEFT = 620, (230, 100, 80), 115
#: Up to this many ticks in the window are drawn.
_TICKS_SEEN = 110


def plot_potential(
    dataset: xr.Dataset,
    *,
    layer: str = "output",
    neuron: int | None = None,
    sample: int = 0,
    delta_t: float | None = None,
    seed: int | None = None,
    rule: str | None = None,
    title: str | None = None,
) -> hv.Layout:
    """Plot the membrane potential of a neuron of a trained network while it sees a test sample.

    Parameters
    ----------
    dataset, sample, delta_t, seed, rule, title
        As in all plots (:mod:`bats_lab.plots`); the run kept the spikes of some samples and its weights.
    layer : str
        Layer of the neuron, as ``hidden_1`` or ``output``.
    neuron : int or None
        Its number; None: the one that spiked most.

    Returns
    -------
    holoviews.Layout
        As :func:`draw_potential` draws it.
    """
    run = one_run(dataset, "spike_times", "sent_times", "weights", delta_t=delta_t, seed=seed, rule=rule)
    check_sample(run, sample)
    spiking = run["spike_count"].isel(split=0)
    layers_of(spiking, layer)
    neuron = busiest_neuron(run, layer, sample) if neuron is None else neuron
    shown = neuron_of(run, layer=layer, neuron=neuron, sample=sample)
    label = style.layer_label(layer, len(layers_of(spiking, None)) - 1)
    if title is None:
        title = f"neuron {neuron} of the {label}, sample {sample}; {run_title(run)}"
    return draw_potential([shown], title=title)


def draw_potential(neurons: Sequence[Neuron], *, title: str = "") -> hv.Layout:
    """Draw the potential of one neuron, or that of the same neuron under several time steps and rules.

    Parameters
    ----------
    neurons : sequence of Neuron
        What :func:`bats_lab.network.neuron.simulate_neuron` returned for the same inputs.
    title : str
        Title above all.

    Returns
    -------
    holoviews.Layout
        Three panels on one time axis. First the potential, with a dot at each crossing whose spike was sent and a
        diamond at each that sent none; the dashed line is the threshold. Then the weight of each input, at the time
        at which it was sent. Last the spikes: sent ones in colour, grey when they were computed. Faint lines are ticks.

    Raises
    ------
    ValueError
        If there is no neuron.
    """
    return style.stacked(potential_plots(neurons), width=_WIDTH, heights=_HEIGHTS, gap=50, title=title)


def potential_plots(
    neurons: Sequence[Neuron], *, complete: bool = False, width: int = _WIDTH, heights: tuple[int, int, int] = _HEIGHTS
) -> list[hv.Overlay]:
    """Draw the three panels of :func:`draw_potential`: potential, inputs, spikes.

    If `complete`, series of which there is nothing to see now are there all the same, and no legend: an explorer fills
    them with :func:`potential_columns` later and says itself what they are. Series of neuron `i` have the group
    ``<name>_<i>``, ticks and threshold those names.
    """
    if not neurons:
        raise ValueError("neurons is empty; a plot of potentials needs at least one.")
    elements: list[list[Any]] = [[], [], []]
    limits = potential_limits(neurons)
    for panel, series_of_panel in enumerate(elements):
        series_of_panel.append(_ticks(tick_columns(neurons, panel, limits[panel]), _Y[panel]))
    elements[0].append(_threshold(neurons[0]))
    for i, neuron in enumerate(neurons):
        for panel, series in enumerate(potential_columns(neuron, -i)):
            for name, columns in series.items():
                if complete or len(columns["time"]):
                    elements[panel].append(_series(name, i, columns, neuron, _Y[panel]))
    # Of inputs the first neuron's are in front: they are what an explorer lets people drag.
    elements[1][1:] = elements[1][:0:-1]
    options: tuple[dict[str, Any], ...] = (
        {"ylim": limits[0], "ylabel": "potential u", "xlabel": "", "legend": () if complete else _legend(neurons)},
        {"ylim": limits[1], "ylabel": "weight", "xlabel": "", "yticks": 5},
        {"ylim": limits[2], "ylabel": "spikes", "xlabel": "time (ms)", "yticks": row_ticks(neurons)},
    )
    end = 1e3 * neurons[0].duration
    return [
        style.overlay(series_of_panel, width=width, height=height, left=_LEFT, xlim=(-0.01 * end, 1.01 * end), **own)
        for series_of_panel, height, own in zip(elements, heights, options, strict=True)
    ]


def potential_columns(
    neuron: Neuron, row: int, *, hidden: bool = False
) -> tuple[dict[str, dict[str, np.ndarray]], ...]:
    """Return what the panels show of a neuron: for each of them its series, and of each of these the columns.

    They are ``potential``, ``crossings`` (those whose spike was sent) and ``unsent`` (those that sent none); ``stems``
    and ``inputs``; ``links`` (from each computed to its sent time), ``computed``, ``sent`` and ``unsent``, in the `row`
    of the last panel. Times are in ms. If `hidden`, all are empty.
    """
    left = np.isfinite(neuron.discretized)
    fired, sent = neuron.reset_times[left], neuron.discretized[left]
    silent = np.sort(np.concatenate([neuron.times[~left], neuron.ignored]))
    moments = neuron.moments()
    on_grid = sent if neuron.delta_t else sent[:0]
    computed = neuron.times[left] if neuron.delta_t else on_grid
    # Under rule graded several spikes leave on one tick; they are stacked, so that each is seen.
    stacked = row + 0.2 * (np.arange(len(sent)) - np.searchsorted(sent, sent))
    inputs = 1e3 * neuron.input_sent
    zero = np.zeros(len(inputs))
    panels = (
        {
            "potential": {"time": 1e3 * moments, "potential": neuron.potential(moments)},
            "crossings": {"time": 1e3 * fired, "potential": neuron.potential(fired), "sent": 1e3 * sent},
            "unsent": {"time": 1e3 * silent, "potential": neuron.potential(silent)},
        },
        {
            "stems": {"time": inputs, "weight": zero, "time_end": inputs, "weight_end": neuron.weights},
            "inputs": {"time": inputs, "weight": neuron.weights, "computed": 1e3 * neuron.input_times},
        },
        {
            "links": {
                "time": 1e3 * computed,
                "row": np.full(len(computed), row),
                "sent": 1e3 * on_grid,
                "row_end": stacked[: len(computed)],
            },
            "computed": {"time": 1e3 * computed, "row": np.full(len(computed), row), "sent": 1e3 * on_grid},
            "sent": {"time": 1e3 * sent, "row": stacked, "computed": 1e3 * neuron.times[left]},
            "unsent": {"time": 1e3 * silent, "row": np.full(len(silent), row)},
        },
    )
    if hidden:
        return tuple({k: {c: v[:0] for c, v in columns.items()} for k, columns in series.items()} for series in panels)
    return panels


def tick_columns(neurons: Sequence[Neuron], panel: int, limits: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return lines at the ticks of the first neuron that has a time step, unless there are too many to be seen."""
    ticks = np.array([])
    for neuron in neurons:
        n = ticks_within(neuron.duration, neuron.delta_t)
        if 0 < n <= _TICKS_SEEN:
            ticks = 1e3 * neuron.delta_t * np.arange(n + 1)
            break
    low, high = (np.full(len(ticks), value) for value in limits)
    return {"time": ticks, _Y[panel].name: low, "time_end": ticks, "end": high}


def potential_limits(neurons: Sequence[Neuron]) -> tuple[tuple[float, float], ...]:
    """Return the ends of the y axes of the panels that show all of the neurons."""
    potentials = [neuron.potential(neuron.moments()) for neuron in neurons]
    return (
        style.limits(0, 1.2 * neurons[0].threshold, *potentials),
        style.limits(0, *(neuron.weights for neuron in neurons), narrowest=0.1),
        (0.4 - len(neurons), 0.6),
    )


def row_ticks(neurons: Sequence[Neuron]) -> list[tuple[float, str]]:
    """Return places and names of the rows of spikes."""
    return [(-i, neuron_label(neuron)) for i, neuron in enumerate(neurons)]


def neuron_label(neuron: Neuron) -> str:
    """Name a neuron by its time step and rule."""
    return style.delta_t_label(neuron.delta_t) + (f", {neuron.rule}" if neuron.delta_t else "")


_TIME = hv.Dimension("time", label="time", unit="ms")
_Y = tuple(
    hv.Dimension(name, label=label)
    for name, label in (("potential", "potential u"), ("weight", "weight"), ("row", "spikes"))
)


def _ticks(columns: dict[str, np.ndarray], y: hv.Dimension) -> Any:
    lines = hv.Segments(tuple(columns.values()), ["time", y.name, "time_end", "end"], group="ticks")
    return style.styled(
        lines, color=style.NEUTRAL_COLOR, alpha=0.25, screen={"line_width": 1}, paper={"linewidth": 0.5}
    )


def _threshold(neuron: Neuron) -> hv.Curve:
    columns = {"time": [0, 1e3 * neuron.duration], "potential": [neuron.threshold] * 2}
    return style.line(
        hv.Curve(columns, _TIME, _Y[0], label="threshold", group="threshold"), style.ACCENT_COLOR, series=1, width=0.7
    )


def _series(name: str, index: int, columns: dict[str, np.ndarray], neuron: Neuron, y: hv.Dimension) -> Any:
    """Draw one series of one panel."""
    color = style.delta_t_color(neuron.delta_t)
    group = f"{name}_{index}"
    if name == "potential":
        return style.line(hv.Curve(columns, _TIME, y, label=neuron_label(neuron), group=group), color, width=0.8)
    if name in ("stems", "links"):
        ends = ["time", y.name, *list(columns)[2:]]
        lines = hv.Segments(tuple(columns.values()), ends, group=group)
        alpha = 0.35 if name == "links" else 0.8
        return style.styled(lines, color=color, alpha=alpha, screen={"line_width": 1.5}, paper={"linewidth": 0.9})
    others = list(columns)[2:]
    color, series = (style.ACCENT_COLOR, 3) if name == "unsent" else (color, 0)
    color = style.NEUTRAL_COLOR if name == "computed" else color
    tooltips = [(y.label, f"@{y.name}"), ("time", "@time{0.000} ms"), *((o, f"@{o}{{0.000}} ms") for o in others)]
    label = _NO_SPIKE if name == "unsent" else ""
    scatter = hv.Scatter(columns, _TIME, [y, *others], group=group, label=label)
    return style.points(scatter, color, series=series, size=_SIZES.get(name, 1.0), tooltips=tooltips)


_SIZES = {"computed": 0.8, "unsent": 1.4}
_NO_SPIKE = "crossing without spike"


def _legend(neurons: Sequence[Neuron]) -> list[style.LegendEntry]:
    entries = [style.LegendEntry("threshold", style.ACCENT_COLOR, line=1)]
    entries += [style.LegendEntry(neuron_label(n), style.delta_t_color(n.delta_t), line=0, marker=0) for n in neurons]
    if any(n.unsent or len(n.ignored) for n in neurons):
        entries.append(style.LegendEntry(_NO_SPIKE, style.ACCENT_COLOR, marker=3))
    return entries
