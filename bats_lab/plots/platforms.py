"""Networks on platforms: what each clock costs, what the differences come from, and where in a raster they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.network.autopsy import Autopsy
from bats_lab.plots import style

__all__ = ["CAUSE_COLORS", "CHANGES", "autopsy_columns", "plot_autopsy", "plot_causes", "plot_platforms"]

_KEPT = "in their step"
#: Colour of each cause, safe for colour-blind readers (Okabe and Ito); spikes that are as they should be are grey.
CAUSE_COLORS = {
    _KEPT: "#c4c4c4",
    "tick of delay": "#0072b2",
    "threshold test order": "#e69f00",
    "reset": "#cc79a7",
    "collision": "#d55e00",
    "saturation": "#7b3294",
    "word length": "#009e73",
    "decay": "#56b4e9",
    "rounding of time": "#404040",
    "upstream": "#e3d30b",
    "several together": "#8c510a",
    "not in the profile": "#000000",
}
#: What may become of a spike, and the series whose marker it has.
CHANGES = {"moved": 0, "lost": 3, "added": 2}


def plot_platforms(comparison: xr.Dataset, *, title: str | None = None) -> hv.Layout:
    """Plot accuracy on each platform and clock, and how many spikes come in their step there, as tables in colour.

    Parameters
    ----------
    comparison : xarray.Dataset
        What :func:`bats_lab.network.comparison.compare` returns.
    title : str or None
        Title; None: the accuracy in continuous time.

    Returns
    -------
    holoviews.Layout
        Two tables, a row a platform and a column a clock, in percent.
    """
    names = comparison["platform"].values
    weights = comparison["exact_spike_count"] / max(float(comparison["exact_spike_count"].sum()), 1e-300)
    exact = 100 * float(comparison["exact_accuracy"])
    tables = {
        "accuracy (%)": 100 * comparison["accuracy"].transpose("platform", "delta_t").values,
        "spikes in their step (%)": 100 * (comparison["kept"] * weights).sum("population").values,
    }
    x, y = hv.Dimension("clock", label="time step Δt", unit="ms"), hv.Dimension("platform")
    plots = []
    for label, values in tables.items():
        z = hv.Dimension(label.partition(" (")[0].replace(" ", "_"), label=label)
        rows, columns = values.shape
        bounds = (-0.5, -0.5, columns - 0.5, rows - 0.5)
        image = style.heatmap(
            hv.Image(values[::-1], [x, y], z, bounds=bounds), cmap="Greys", limits=(0, 110), colorbar=False
        )
        plots.append(
            style.overlay(
                [image, *style.numbers(values, x, y, dark_from=60)],
                width=70 * columns,
                height=26 * rows + 10,
                axes=(x, y),
                ylabel="",
                title=label,
                xticks=[(k, f"{1e3 * v:g}") for k, v in enumerate(comparison["delta_t"].values)],
                yticks=list(enumerate(names)),
                **style.cells(rows, columns),
            )
        )
    if title is None:
        title = f"{exact:.1f} % in continuous time"
    return style.panels(plots, columns=2, title=title, width=70 * values.shape[1], height=26 * len(names) + 10)


def plot_causes(autopsies: Mapping[str, Autopsy], *, title: str = "") -> hv.Overlay:
    """Plot what became of the spikes of continuous time on each platform: a bar a platform, a colour a cause.

    Parameters
    ----------
    autopsies : dict of str to Autopsy
        By the name of the platform.
    title : str
        Title.

    Returns
    -------
    holoviews.Overlay
        Percent of the spikes of continuous time; spikes that were added reach beyond 100 %.
    """
    x, y = hv.Dimension("share", label="spikes (% of those in continuous time)"), hv.Dimension("platform")
    elements, seen, most = [], [], 100.0
    lefts = np.zeros(len(autopsies))
    for cause, color in CAUSE_COLORS.items():
        shares = np.array([100 * _count(found, cause) / _in_all(found) for found in autopsies.values()])
        if shares.any():
            rows = np.arange(len(autopsies))
            bars = hv.Segments((lefts, rows, lefts + shares, rows), [x, y, "end", "row"], group=cause, label=cause)
            elements.append(style.styled(bars, color=color, screen={"line_width": 16}, paper={"linewidth": 11}))
            seen.append(style.LegendEntry(cause, color, 0))
        lefts = lefts + shares
        most = max(most, lefts.max(initial=0))
    return style.overlay(
        elements,
        width=420,
        height=26 * len(autopsies) + 20,
        legend=seen,
        axes=(x, y),
        ylabel="",
        title=title,
        xlim=(0, 1.02 * most),
        ylim=(len(autopsies) - 0.4, -0.6),
        yticks=list(enumerate(autopsies)),
    )


def _in_all(found: Autopsy) -> int:
    return max(1, sum(len(found.exact.spikes[name].times) for name in found.kept))


def _count(found: Autopsy, cause: str) -> int:
    return sum(found.kept.values()) if cause == _KEPT else int((found.changes["cause"] == cause).sum())


def autopsy_columns(found: Autopsy, *, population: str, sample: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Return what a raster of an autopsy shows: spikes as they came (``kept``), those of each change, and ``links``.

    Changes have the columns `time` (ms), `neuron`, `cause` and `color`; links lead from where a spike was to where it
    went.
    """
    inside, neuron, times = found.platform.spikes[population].events()
    mine = inside == sample
    columns = {"kept": {"time": 1e3 * times[mine], "neuron": neuron[mine]}}
    changes = found.changes[(found.changes["population"] == population) & (found.changes["sample"] == sample)]
    before, after = (1e3 * found.delta_t * (changes[name].to_numpy(int) + 1) for name in ("step", "platform_step"))
    neuron, cause = changes["neuron"].to_numpy(int), changes["cause"].to_numpy(str)
    color = np.array([CAUSE_COLORS[name] for name in cause.tolist()], str)
    for change in CHANGES:
        part = (changes["change"] == change).to_numpy(bool)
        time = (before if change == "lost" else after)[part]
        columns[change] = {"time": time, "neuron": neuron[part], "cause": cause[part], "color": color[part]}
        if change == "moved":
            ends = {"time": before[part], "neuron": neuron[part], "end": time, "row": neuron[part]}
            columns["links"] = {**ends, "color": color[part]}
    return columns


def plot_autopsy(found: Autopsy, *, population: str, sample: int = 0, title: str | None = None) -> hv.Overlay:
    """Plot the spikes of one population and sample; those not as in continuous time have the colour of the cause.

    Parameters
    ----------
    found : Autopsy
        What :func:`bats_lab.network.autopsy.autopsy` returns.
    population : str
        Population.
    sample : int
        Sample.
    title : str or None
        Title; None: population and sample.

    Returns
    -------
    holoviews.Overlay
        Grey dots are spikes in their step. A line leads from where a spike was to where it went; a lost spike is a
        diamond, an added one a triangle.
    """
    if population not in found.kept:
        raise ValueError(f"population is {population!r}; it must be one of {', '.join(found.kept)}.")
    x, y = hv.Dimension("time", unit="ms"), hv.Dimension("neuron")
    n_neurons = found.platform.spikes[population].n_neurons
    columns = autopsy_columns(found, population=population, sample=sample)
    kept = columns["kept"]["time"], columns["kept"]["neuron"]
    elements: list[Any] = [style.points(hv.Scatter(kept, x, y, label=_KEPT), CAUSE_COLORS[_KEPT], size=0.7)]
    seen = [style.LegendEntry(_KEPT, CAUSE_COLORS[_KEPT], marker=0)]
    for cause in dict.fromkeys(np.concatenate([columns[change]["cause"] for change in CHANGES]).tolist()):
        color = CAUSE_COLORS[cause]
        for change, series in CHANGES.items():
            part = columns[change]["cause"] == cause
            time, neuron = (columns[change][name][part] for name in ("time", "neuron"))
            dots = hv.Scatter((time, neuron, np.full(len(time), change)), x, [y, "change"], label=cause)
            elements.append(style.points(dots, color, series=series, tooltips=[("cause", cause), ("", "@change")]))
        part = columns["links"]["color"] == color
        ends = tuple(columns["links"][name][part] for name in ("time", "neuron", "end", "row"))
        links = hv.Segments(ends, [x, y, "end", "row"], group="moved")
        elements.append(style.styled(links, color=color, screen={"line_width": 1.5}, paper={"linewidth": 1}))
        seen.append(style.LegendEntry(cause, color, marker=0))
    if title is None:
        counts = [f"{len(columns[change]['time'])} {change}" for change in CHANGES]
        title = f"{population}, sample {sample}: {len(kept[0])} spikes; {', '.join(counts)}"
    return style.overlay(
        elements,
        width=560,
        height=min(420, 60 + 22 * n_neurons),
        legend=seen,
        axes=(x, y),
        title=title,
        ylim=(-0.6, n_neurons - 0.4),
    )
