"""The time of a spike over a weight: the curve, the tangent that backpropagation gives, and the difference quotient."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np

from bats_lab.network.gradient_check import Slope
from bats_lab.network.sensitivity import SpikeTimeSweep
from bats_lab.plots import style

__all__ = ["plot_sensitivity", "sensitivity_columns", "sensitivity_limits", "sensitivity_plots"]

_WIDTH, _HEIGHTS, _LEFT = 480, (260, 120), 70


def plot_sensitivity(
    continuous: SpikeTimeSweep,
    on_grid: SpikeTimeSweep | None,
    slope: Slope,
    *,
    delta_t: float,
    target: float,
    title: str = "",
) -> hv.Layout:
    """Plot the first spike time of a neuron over one weight, with the slope at one value of it, and the loss.

    Parameters
    ----------
    continuous : SpikeTimeSweep
        In continuous time.
    on_grid : SpikeTimeSweep or None
        With a time step; None: there is none.
    slope : Slope
        The slope that is drawn; of the curve with the time step, if there is one.
    delta_t : float
        Time step in seconds; 0 without `on_grid`.
    target : float
        Target of the neuron's spike count, for the loss of eq. 10.
    title : str
        Title above all.

    Returns
    -------
    holoviews.Layout
        Above, the time of the first spike: in continuous time (black), with the time step as it is computed (colour)
        and as it is sent (dashed); the tangent of backpropagation (red) and the secant of the difference quotient
        (grey, dotted). Below, the loss.
    """
    plots = sensitivity_plots(continuous, on_grid, slope, delta_t=delta_t, target=target)
    return style.stacked(plots, width=_WIDTH, heights=_HEIGHTS, gap=60, title=title)


def sensitivity_plots(
    continuous: SpikeTimeSweep,
    on_grid: SpikeTimeSweep | None,
    slope: Slope,
    *,
    delta_t: float,
    target: float,
    complete: bool = False,
    width: int = _WIDTH,
    heights: tuple[int, int] = _HEIGHTS,
) -> list[hv.Overlay]:
    """Draw the two panels of :func:`plot_sensitivity`; if `complete`, with empty series too and without a legend."""
    columns_of = sensitivity_columns(continuous, on_grid, slope, target=target)
    limits = sensitivity_limits(continuous, on_grid, target=target)
    plots = []
    for panel, series in enumerate(columns_of):
        shown = {name: columns for name, columns in series.items() if complete or len(columns["weight"])}
        elements = [_series(name, columns, delta_t, panel) for name, columns in shown.items()]
        options: dict[str, Any] = {
            "legend": _legend(delta_t) if panel == 0 and not complete else (),
            "xlabel": "weight" if panel else "",
            "ylabel": _Y[panel].pprint_label,
            "xlim": style.limits(continuous.weight),
            "ylim": limits[panel],
        }
        plots.append(style.overlay(elements, width=width, height=heights[panel], left=_LEFT, **options))
    return plots


def sensitivity_columns(
    continuous: SpikeTimeSweep, on_grid: SpikeTimeSweep | None, slope: Slope, *, target: float
) -> tuple[dict[str, dict[str, np.ndarray]], ...]:
    """Return what the panels show: for each of them its series, and of each of these the columns; times in ms."""
    none = np.array([])
    low, high = continuous.weight[[0, -1]]
    ends = np.array([low, high]) if np.isfinite(slope.time) else none
    sides = np.array([slope.weight - slope.step, slope.weight + slope.step]) if np.isfinite(slope.quotient) else none
    point = np.array([slope.weight]) if np.isfinite(slope.time) else none

    def curve(sweep: SpikeTimeSweep | None, values: str) -> dict[str, np.ndarray]:
        if sweep is None:
            return {"weight": none, "time": none}
        return {"weight": sweep.weight, "time": 1e3 * getattr(sweep, values)}

    def loss(sweep: SpikeTimeSweep | None) -> dict[str, np.ndarray]:
        if sweep is None:
            return {"weight": none, "loss": none}
        return {"weight": sweep.weight, "loss": (target - sweep.spike_count) ** 2 / 2}

    return (
        {
            "continuous": curve(continuous, "time"),
            "sent": curve(on_grid, "sent"),
            "computed": curve(on_grid, "time"),
            "tangent": {"weight": ends, "time": 1e3 * (slope.time + slope.gradient * (ends - slope.weight))},
            "secant": {"weight": sides, "time": 1e3 * np.array(slope.around)[: len(sides)]},
            "here": {"weight": point, "time": np.full(len(point), 1e3 * slope.time)},
        },
        {"continuous": loss(continuous), "computed": loss(on_grid)},
    )


def sensitivity_limits(
    continuous: SpikeTimeSweep, on_grid: SpikeTimeSweep | None, *, target: float
) -> tuple[tuple[float, float], ...]:
    """Return the ends of the y axes of both panels."""
    sweeps = [continuous] if on_grid is None else [continuous, on_grid]
    return (
        style.limits(*(1e3 * sweep.time for sweep in sweeps), *(1e3 * sweep.sent for sweep in sweeps)),
        style.limits(0, *((target - sweep.spike_count) ** 2 / 2 for sweep in sweeps)),
    )


_WEIGHT = hv.Dimension("weight", label="weight")
_Y = (hv.Dimension("time", label="time of the first spike", unit="ms"), hv.Dimension("loss", label="loss"))


#: What each line is: its label in the legend (empty: none), dash and width, and its colour but for the time step's.
_LOOKS: dict[str, tuple[str, int, float, str]] = {
    "continuous": ("continuous", 0, 0.8, style.CONTINUOUS_COLOR),
    "computed": ("computed", 0, 0.8, ""),
    "sent": ("sent", 1, 0.8, ""),
    "tangent": ("backpropagation", 0, 0.8, style.ACCENT_COLOR),
    "secant": ("difference quotient", 0, 2.2, style.NEUTRAL_COLOR),
}


def _series(name: str, columns: dict[str, np.ndarray], delta_t: float, panel: int) -> Any:
    if name == "here":
        scatter = hv.Scatter(columns, _WEIGHT, _Y[panel], group=name)
        return style.points(scatter, style.ACCENT_COLOR, size=1.2)
    label, dash, width, color = _LOOKS[name]
    curve = hv.Curve(columns, _WEIGHT, _Y[panel], group=name, label=label)
    return style.line(curve, color or style.delta_t_color(delta_t), series=dash, width=width)


def _legend(delta_t: float) -> list[style.LegendEntry]:
    return [
        style.LegendEntry(label, color or style.delta_t_color(delta_t), line=dash)
        for label, dash, _, color in _LOOKS.values()
        if delta_t or color
    ]
