"""What most plots are made of: means over seeds with their bands, over the time step or with one curve a time step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from bats_lab.plots import style

__all__ = ["curves_by_delta_t", "over_delta_t"]

#: Up to this many places a curve shows markers at them.
_MARKED = 30
#: Room for the name of a time step at the end of its curve, in pixels.
_LABEL_WIDTH, _LABEL_HEIGHT = 85, 14


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
    """Draw the mean over seeds against the time step, with a band of ±1 standard deviation; of two seeds, each value.

    Parameters
    ----------
    series : mapping of str to DataArray, (delta_t, seed)
        What is drawn, by the label in the legend, which is titled `legend_title`; series differ in colour, dash and
        marker, and collision rules have the same everywhere.
    y : holoviews.Dimension
        Name, label and unit of the values.
    title, legend_title, show_legend, marks, **both
        Options of the overlay; `marks` are elements above the curves.

    Notes
    -----
    Markers of a single series have the colour of their time step. Continuous time stands left of the logarithmic axis,
    unconnected.
    """
    axis = style.DeltaTAxis.over({float(v) for values in series.values() for v in values["delta_t"].values})
    x = hv.Dimension("delta_t", label="time step Δt", unit="ms")
    elements: list[Any] = []
    legend: list[style.LegendEntry] = []
    seen: list[np.ndarray] = []
    several = len(series) > 1
    for i, (label, values) in enumerate(series.items()):
        values = values.where(values > 0) if both.get("logy") else values
        mean, std, n = statistics(values)
        delta_t = values["delta_t"].values
        place = style.series_of(label, i) if several else 0
        color = style.SERIES_COLORS[place] if several else style.NEUTRAL_COLOR
        colors = [color if several else style.delta_t_color(v) for v in delta_t]
        x_values = np.array([axis.positions[float(v)] for v in delta_t])
        grid = delta_t > 0
        elements += _bands(x_values, mean, np.where(grid, std, np.nan), color, x, y)
        elements += _bands(x_values[~grid], mean[~grid], std[~grid], color, x, y)
        pairs = _pairs(values, x_values, x, y)
        elements += [style.pairs(pairs, color)] if len(pairs) else []
        seen += [mean, mean - std, mean + std, pairs.dimension_values(1)]
        shown = label if several else ""
        elements.append(style.line(hv.Curve((x_values[grid], mean[grid]), x, y, label=shown), color, series=place))
        columns = {
            x.name: x_values,
            y.name: mean,
            "std": std,
            "runs": n,
            "step": [style.delta_t_label(v) for v in delta_t],
            "series": [label] * len(delta_t),
            "color": colors,
        }
        vdims = [y, "std", "runs", "step", "series", "color"]
        tooltips = [("Δt", "@step"), *_value_tooltips(y), *([(legend_title, "@series")] if label else [])]
        scatter = hv.Scatter({k: np.asarray(v)[n > 0] for k, v in columns.items()}, x, vdims, label=shown)
        elements.append(style.points(scatter, "color", series=place, tooltips=tooltips))
        legend.append(style.LegendEntry(label, color, place, place))
    options = {"ylim": style.limits(*seen), **axis.options(), **both}
    return style.overlay(
        [*elements, *_nothing(seen, x, y, options), *marks],
        legend=legend if several and show_legend else (),
        legend_title=legend_title,
        title=title,
        ylabel=y.pprint_label,
        **options,
    )


def curves_by_delta_t(
    values: xr.DataArray,
    x: hv.Dimension,
    y: hv.Dimension,
    *,
    title: str,
    show_legend: bool = True,
    direct: bool = False,
    marks: Sequence[Any] = (),
    **both: Any,
) -> hv.Overlay:
    """Draw one curve a time step: the mean over seeds against `x`, with a band of ±1 standard deviation.

    Of two seeds, the values of each are dots in place of a band.

    Parameters
    ----------
    values : DataArray, (delta_t, seed, x)
        Values to draw; their places on the x axis are the coordinate of the last dimension.
    x, y : holoviews.Dimension
        Name, label and unit of both axes.
    direct : bool
        Whether time steps stand at the ends of their curves, and not in a legend, where there is room for that.
    title, show_legend, marks, **both
        Options of the overlay; `marks` are elements above the curves.
    """
    x_values = values[values.dims[-1]].values.astype(float)
    bands, lines, legend, seen = [], [], [], []
    ends: dict[float, tuple[float, float]] = {}
    for delta_t in values["delta_t"].values:
        own = values.sel(delta_t=delta_t).transpose(..., "seed")
        mean, std, n = statistics(own)
        color, label = style.delta_t_color(delta_t), style.delta_t_label(delta_t)
        bands += _bands(x_values, mean, std, color, x, y, group=f"band {delta_t:g}")
        pairs = _pairs(own, x_values, x, y)
        bands += [style.pairs(pairs, color)] if len(pairs) else []
        seen += [mean, mean - std, mean + std, pairs.dimension_values(1)]
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
        if len(last := np.flatnonzero(np.isfinite(mean))):
            ends[float(delta_t)] = (float(x_values[last[-1]]), float(mean[last[-1]]))
    options = {"ylim": style.limits(*seen), "xlim": style.limits(x_values), "width": 400, "height": 280, **both}
    labels: list[Any] = []
    if direct and len(ends) > 1 and _LABEL_HEIGHT * len(ends) <= options["height"]:
        ticks = MaxNLocator(6).tick_values(*options["xlim"])
        within = [float(t) for t in ticks if options["xlim"][0] <= t <= options["xlim"][1]]  # and none below labels
        labels, options["xlim"] = _end_labels(ends, x, y, options)
        options.setdefault("xticks", [(t, f"{t:g}") for t in within])
    return style.overlay(
        [*bands, *lines, *labels, *_nothing(seen, x, y, options), *marks],
        legend=legend if show_legend and not labels else (),
        legend_title="Δt",
        title=title,
        axes=(x, y),
        **options,
    )


def _end_labels(
    ends: Mapping[float, tuple[float, float]], x: hv.Dimension, y: hv.Dimension, options: Mapping[str, Any]
) -> tuple[list[Any], tuple[float, float]]:
    """Write time steps (s) at the `ends` of their curves, one below the other; return the ends of the x axis, too."""
    steps = sorted(ends, key=lambda step: ends[step][1])
    low, high = options["ylim"]
    start, end = options["xlim"]
    unit = (end - start) / (options["width"] - _LABEL_WIDTH)  # a pixel
    height = _LABEL_HEIGHT * (high - low) / options["height"]
    stairs = height * np.arange(len(steps))
    wanted = isotonic_regression([ends[step][1] for step in steps] - stairs).x
    places = np.clip(wanted, low + height / 2, high - height / 2 - stairs[-1]) + stairs
    elements: list[Any] = []
    for step, place in zip(steps, places, strict=True):
        color = style.delta_t_color(step)
        leader = hv.Path([([ends[step][0], end, end + 6 * unit], [ends[step][1], place, place])], [x, y])
        elements.append(style.line(leader, color, width=0.4, alpha=0.6))
        labels = hv.Labels(([end + 9 * unit], [place], [style.delta_t_label(step)]), [x, y], "text")
        elements.append(style.text(labels, color, align="left"))
    return elements, (start, end + _LABEL_WIDTH * unit)


def _pairs(values: xr.DataArray, x_values: np.ndarray, x: hv.Dimension, y: hv.Dimension) -> hv.Scatter:
    """Return the single values wherever there are those of two seeds: no deviation can be told from so few."""
    array = values.transpose(..., "seed").values
    place, seed = np.nonzero(np.isfinite(array) & (np.isfinite(array).sum(axis=-1, keepdims=True) == 2))
    return hv.Scatter((x_values[place], array[place, seed]), x, y, group="seeds")


def _nothing(seen: Sequence[np.ndarray], x: hv.Dimension, y: hv.Dimension, options: Mapping[str, Any]) -> list[Any]:
    """Say so in the middle of a plot of which no value is known."""
    if any(np.isfinite(v).any() for v in seen):
        return []
    low, high = options["xlim"]
    middle = math.sqrt(low * high) if options.get("logx") else (low + high) / 2
    low, high = options["ylim"]
    height = math.sqrt(low * high) if options.get("logy") else (low + high) / 2
    return [style.text(hv.Labels(([middle], [height], ["no run has a value"]), [x, y], "text"), style.NEUTRAL_COLOR)]


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
    two = values.where(values.notnull().sum("seed") == 2)
    return {"ylim": style.limits(mean, mean - std, mean + std, two)}


def statistics(values: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, standard deviation (n - 1; NaN for less than three runs) and number of runs, over the seeds."""
    n = values.notnull().sum("seed")
    deviation = (values - values.mean("seed")) ** 2
    variance = deviation.sum("seed") / (n - 1).where(n > 2)
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
