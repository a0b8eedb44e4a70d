"""What most plots are made of: means over seeds with their bands, over the time step or with one curve a time step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style

__all__ = ["curves_by_delta_t", "over_delta_t"]

#: Up to this many places a curve shows markers at them.
_MARKED = 30


def over_delta_t(
    series: Mapping[str, xr.DataArray],
    y: hv.Dimension,
    *,
    title: str,
    legend_title: str = "rule",
    show_legend: bool = True,
    marks: Sequence[Any] = (),
    **both: Any,
) -> hv.Overlay:
    """Draw the mean over seeds against the time step, with a band of ±1 standard deviation.

    Parameters
    ----------
    series : mapping of str to DataArray, (delta_t, seed)
        What is drawn, by the label in the legend, which is titled `legend_title`; series differ in dash and marker.
    y : holoviews.Dimension
        Name, label and unit of the values.
    title, legend_title, show_legend, marks, **both
        Options of the overlay; `marks` are elements above the curves.

    Notes
    -----
    Markers have the colour of their time step. Continuous time stands left of the logarithmic axis, unconnected.
    """
    first = next(iter(series.values()))
    axis = style.DeltaTAxis.over(first["delta_t"].values)
    x = hv.Dimension("delta_t", label="time step Δt", unit="ms")
    elements: list[Any] = []
    seen: list[np.ndarray] = []
    for i, (label, values) in enumerate(series.items()):
        mean, std, n = statistics(values)
        delta_t = values["delta_t"].values
        seen += [mean, mean - std, mean + std]
        x_values = np.array([axis.positions[float(v)] for v in delta_t])
        grid = delta_t > 0
        elements += _bands(x_values, mean, np.where(grid, std, np.nan), style.NEUTRAL_COLOR, x, y)
        elements += _bands(x_values[~grid], mean[~grid], std[~grid], style.NEUTRAL_COLOR, x, y)
        shown = label if len(series) > 1 else ""
        elements.append(
            style.line(hv.Curve((x_values[grid], mean[grid]), x, y, label=shown), style.NEUTRAL_COLOR, series=i)
        )
        columns = {
            x.name: x_values,
            y.name: mean,
            "std": std,
            "runs": n,
            "step": [style.delta_t_label(v) for v in delta_t],
            "series": [label] * len(delta_t),
            "color": [style.delta_t_color(v) for v in delta_t],
        }
        vdims = [y, "std", "runs", "step", "series", "color"]
        tooltips = [("Δt", "@step"), *_value_tooltips(y), *([(legend_title, "@series")] if label else [])]
        scatter = hv.Scatter({k: np.asarray(v)[n > 0] for k, v in columns.items()}, x, vdims, label=shown)
        elements.append(style.points(scatter, "color", series=i, tooltips=tooltips))
    legend = [style.LegendEntry(label, style.NEUTRAL_COLOR, i, i) for i, label in enumerate(series)]
    return style.overlay(
        [*elements, *marks],
        legend=legend if len(series) > 1 and show_legend else (),
        legend_title=legend_title,
        title=title,
        ylabel=y.pprint_label,
        **{"ylim": style.limits(*seen), **axis.options(), **both},
    )


def curves_by_delta_t(
    values: xr.DataArray,
    x: hv.Dimension,
    y: hv.Dimension,
    *,
    title: str,
    show_legend: bool = True,
    marks: Sequence[Any] = (),
    **both: Any,
) -> hv.Overlay:
    """Draw one curve a time step: the mean over seeds against `x`, with a band of ±1 standard deviation.

    Parameters
    ----------
    values : DataArray, (delta_t, seed, x)
        Values to draw; their places on the x axis are the coordinate of the last dimension.
    x, y : holoviews.Dimension
        Name, label and unit of both axes.
    title, show_legend, marks, **both
        Options of the overlay; `marks` are elements above the curves.
    """
    x_values = values[values.dims[-1]].values.astype(float)
    bands, lines, legend, seen = [], [], [], []
    for delta_t in values["delta_t"].values:
        mean, std, n = statistics(values.sel(delta_t=delta_t).transpose(..., "seed"))
        seen += [mean, mean - std, mean + std]
        color, label = style.delta_t_color(delta_t), style.delta_t_label(delta_t)
        bands += _bands(x_values, mean, std, color, x, y, group=f"band {delta_t:g}")
        columns = curve_columns(x_values, mean, std, n, delta_t, x, y)
        tooltips = [("Δt", "@step"), *_value_tooltips(x, error=False), *_value_tooltips(y)]
        vdims = [y, "std", "runs", "step"]
        curve = hv.Curve(columns, x, vdims, label=label, group=f"curve {delta_t:g}")
        lines.append(style.line(curve, color, tooltips=tooltips))
        marked = len(x_values) <= _MARKED
        if marked:
            known = {k: np.asarray(v)[n > 0] for k, v in columns.items()}
            lines.append(style.points(hv.Scatter(known, x, vdims, label=label), color, size=0.8))
        legend.append(style.LegendEntry(label, color, 0, 0 if marked else None))
    return style.overlay(
        [*bands, *lines, *marks],
        legend=legend if show_legend else (),
        legend_title="Δt",
        title=title,
        axes=(x, y),
        **{"ylim": style.limits(*seen), **both},
    )


def epoch_options(runs: xr.Dataset) -> dict[str, Any]:
    """Return the options of an axis of epochs: whole numbers only."""
    last = int(runs["epoch"].max())
    first = int(runs["epoch"].min())
    step = max(1, -(-(last - first + 1) // 10))
    ticks = list(range(first, last + 1)) if step == 1 else [first, *range(step, last + 1, step)]
    return {"xticks": [(t, str(t)) for t in dict.fromkeys(ticks)], "xlim": (first - 0.3, last + 0.3)}


def common_limits(values: xr.DataArray) -> dict[str, Any]:
    """Return the option that gives all plots of the same quantity, as those of several rules, one y axis."""
    mean, std, _ = statistics(values)
    return {"ylim": style.limits(mean, mean - std, mean + std)}


def statistics(values: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, standard deviation (n - 1; NaN for one run) and number of runs, over the seeds."""
    n = values.notnull().sum("seed")
    deviation = (values - values.mean("seed")) ** 2
    variance = deviation.sum("seed") / (n - 1).where(n > 1)
    return values.mean("seed").values, np.sqrt(variance.values), n.values


def curve_columns(
    x_values: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    n: np.ndarray,
    delta_t: float,
    x: hv.Dimension,
    y: hv.Dimension,
) -> dict[str, Any]:
    """Return the columns of a time step's curve, an element of group ``curve <delta_t>``."""
    label = style.delta_t_label(delta_t)
    return {x.name: x_values, y.name: mean, "std": std, "runs": n, "step": [label] * len(x_values)}


def _bands(
    x_values: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    color: str,
    x: hv.Dimension,
    y: hv.Dimension,
    group: str = "band",
) -> list[Any]:
    """Draw a band wherever neighbouring places have a standard deviation, and bars where one stands alone."""
    elements: list[Any] = []
    for part in _stretches(np.isfinite(std)):
        data = (x_values[part], mean[part], std[part])
        if len(data[0]) > 1:
            elements.append(style.band(hv.Spread(data, x, [y, "std"], group=group), color))
        else:
            elements.append(style.bars(hv.ErrorBars(data, x, [y, "std"]), color))
    return elements


def _stretches(mask: np.ndarray) -> Iterator[slice]:
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(int), 0]))
    return (slice(int(a), int(b)) for a, b in edges.reshape(-1, 2))


def _value_tooltips(dimension: hv.Dimension, *, error: bool = True) -> list[tuple[str, str]]:
    unit = f" {dimension.unit}" if dimension.unit else ""
    value = [(dimension.label, f"@{{{dimension.name}}}{{0.[000]}}{unit}")]
    return [*value, ("std over seeds", f"@std{{0.[000]}}{unit}"), ("runs", "@runs")] if error else value
