"""What waiting is worth: accuracy and spikes if the decision is taken before the end."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import common_limits, curves_by_delta_t
from bats_lab.plots.runs import runs_title, runs_to_draw

__all__ = ["plot_stopping"]

_WIDTH, _HEIGHT = 340, 260


def plot_stopping(dataset: xr.Dataset, *, rule: str | None = None, title: str | None = None) -> hv.Overlay | hv.Layout:
    """Plot accuracy, and the spikes it costs, against the time at which the decision is taken.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many.
    rule : str or None
        Collision rule; None: all, in a row of plots each.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Layout
        Test accuracy in % and spikes per sample of all layers together, after the last epoch, over the time in ms: one
        curve a time step, mean over seeds with a band of ±1 standard deviation.

    Raises
    ------
    ValueError
        If no run has measured this, or if the results have to be narrowed to one data set or other parameter first.
    """
    accuracy, spikes = stopping_curves(dataset)
    runs = runs_to_draw(dataset, "stopped_accuracy", "stopped_spike_count")
    rules = [str(r) for r in accuracy["rule"].values] if rule is None else [rule]
    for name in rules:
        if name not in accuracy["rule"].values:
            raise ValueError(f"rule is {name!r}; the results hold {', '.join(map(str, accuracy['rule'].values))}.")
    plots = [
        stopping_plot(values.sel(rule=name), values, y, title=name if len(rules) > 1 else " ", show_legend=last)
        for name in rules
        for values, y, last in ((accuracy, ACCURACY, False), (spikes, SPIKES, True))
    ]
    title = runs_title(runs, rule) if title is None else title
    return style.panels(plots, columns=2, title=title, width=_WIDTH, height=_HEIGHT)


#: What is drawn.
ACCURACY = hv.Dimension("accuracy", label="test accuracy", unit="%")
SPIKES = hv.Dimension("spikes", label="spikes per sample")


def stopping_curves(dataset: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return test accuracy (%) and spikes per sample, over rule, time step (s), seed and stop time (ms)."""
    runs = runs_to_draw(dataset, "stopped_accuracy", "stopped_spike_count")
    accuracy = 100 * runs["stopped_accuracy"].transpose("rule", "delta_t", "seed", "stop_time")
    spikes = runs["stopped_spike_count"].sum("layer", min_count=1).transpose("rule", "delta_t", "seed", "stop_time")
    if not bool(accuracy.notnull().any()):
        raise ValueError("No run has measured decisions taken early.")
    in_ms = np.round(accuracy["stop_time"].values * 1e3, 6)
    return accuracy.assign_coords(stop_time=in_ms), spikes.assign_coords(stop_time=in_ms)


def stopping_plot(
    values: xr.DataArray, all_values: xr.DataArray, y: hv.Dimension, *, title: str, show_legend: bool, **both: Any
) -> hv.Overlay:
    """Draw one quantity (delta_t, seed, stop_time) over the stop time, on the axis that suits `all_values`."""
    end = float(values["stop_time"].max())
    return curves_by_delta_t(
        values,
        hv.Dimension("time", label="time of the decision", unit="ms"),
        y,
        title=title,
        show_legend=show_legend,
        **{"xlim": (0, 1.02 * end), "width": _WIDTH, "height": _HEIGHT, **common_limits(all_values), **both},
    )
