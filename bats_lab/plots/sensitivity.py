"""The time of a spike over a weight: the curve, the tangent that backpropagation gives, and the difference quotient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import holoviews as hv
import numpy as np

from bats_lab.network.sensitivity import SpikeTimeSweep
from bats_lab.plots import style

__all__ = ["Slope", "plot_sensitivity", "sensitivity_columns", "sensitivity_limits", "sensitivity_plots"]

_WIDTH, _HEIGHTS, _LEFT = 480, (260, 120), 70


@dataclass(frozen=True)
class Slope:
    """How the time of a spike changes with a weight, at one value of the weight.

    Attributes
    ----------
    weight : float
        The value.
    time : float
        Time of the spike there, in seconds; NaN where there is none.
    gradient : float
        Derivative by backpropagation, in seconds per unit of weight.
    step : float
        How far the weight is moved to either side for the difference quotient.
    around : (float, float)
        Time of the spike at `weight` ∓ `step`, in seconds.
    """

    weight: float
    time: float
    gradient: float
    step: float
    around: tuple[float, float]

    @property
    def quotient(self) -> float:
        """The central difference quotient, in seconds per unit of weight."""
        return (self.around[1] - self.around[0]) / (2 * self.step)


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
    found = sensitivity_columns(continuous, on_grid, slope, target=target)
    limits = sensitivity_limits(continuous, on_grid, target=target)
    names = ("time of the first spike (ms)", "loss")
    plots = []
    for panel, series in enumerate(found):
        elements = [
            _series(name, columns, delta_t, panel)
            for name, columns in series.items()
            if complete or len(columns["weight"])
        ]
        plots.append(
            style.overlay(
                elements,
                width=width,
                height=heights[panel],
                left=_LEFT,
                legend=_legend(delta_t) if panel == 0 and not complete else (),
                xlabel="weight" if panel else "",
                ylabel=names[panel],
                xlim=style.limits(continuous.weight),
                ylim=limits[panel],
            )
        )
    return plots


def sensitivity_columns(
    continuous: SpikeTimeSweep, on_grid: SpikeTimeSweep | None, slope: Slope, *, target: float
) -> tuple[dict[str, dict[str, np.ndarray]], ...]:
    """Return what the panels show: for each of them its series, and of each of these the columns; times in ms."""
    none = np.array([])
    low, high = continuous.weight[[0, -1]]
    ends = np.array([low, high]) if np.isfinite(slope.time) else none
    sides = np.array([slope.weight - slope.step, slope.weight + slope.step]) if np.isfinite(slope.quotient) else none
    here = np.array([slope.weight]) if np.isfinite(slope.time) else none

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
            "here": {"weight": here, "time": np.full(len(here), 1e3 * slope.time)},
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


def _series(name: str, columns: dict[str, np.ndarray], delta_t: float, panel: int) -> Any:
    color, dash, width = _look(name, delta_t)
    curve = hv.Curve(columns, _WEIGHT, _Y[panel], group=name, label=_LABELS.get(name, ""))
    if name == "here":
        return style.points(hv.Scatter(columns, _WEIGHT, _Y[panel], group=name), color, size=1.2)
    return style.line(curve, color, series=dash, width=width)


_LABELS = {
    "continuous": "continuous",
    "computed": "computed",
    "sent": "sent",
    "tangent": "backpropagation",
    "secant": "difference quotient",
}


def _look(name: str, delta_t: float) -> tuple[str, int, float]:
    """Return colour, dash and width of a series."""
    if name in ("tangent", "here"):
        return style.ACCENT_COLOR, 0, 0.8
    if name == "secant":
        return style.NEUTRAL_COLOR, 0, 2.2
    if name == "continuous":
        return style.CONTINUOUS_COLOR, 0, 0.8
    return style.delta_t_color(delta_t), 1 if name == "sent" else 0, 0.8


def _legend(delta_t: float) -> list[style.LegendEntry]:
    names = [name for name in _LABELS if delta_t or name not in ("computed", "sent")]
    entries = []
    for name in names:
        color, dash, _ = _look(name, delta_t)
        entries.append(style.LegendEntry(_LABELS[name], color, line=dash))
    return entries
