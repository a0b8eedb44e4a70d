"""Prediction confidence: how sure the output layer is of the true class as time goes by."""

from __future__ import annotations

from collections.abc import Sequence

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import common_limits, curves_by_delta_t, over_delta_t
from bats_lab.plots.runs import after_epoch, runs_title, runs_to_draw

__all__ = ["plot_confidence", "plot_confidence_over_delta_t"]

_CONFIDENCE = hv.Dimension("confidence", label="prediction confidence")


def plot_confidence(
    dataset: xr.Dataset, *, epoch: int | None = None, title: str | None = None
) -> hv.Overlay | hv.Layout:
    """Plot prediction confidence over time: one curve a time step, with a band of ±1 standard deviation over seeds.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many.
    epoch : int or None
        After which epoch; None: each run's last.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Spikes that the true class's neuron has sent so far, over its target, mean over the test samples; against time
        in ms. A Layout of one plot a rule where there are several rules.

    Raises
    ------
    ValueError
        If there is no finished run, or if the results have to be narrowed to one data set or other parameter first.
    """
    runs = runs_to_draw(dataset, "confidence")
    confidence = _in_ms(after_epoch(runs, epoch)["confidence"])
    rules = [str(rule) for rule in confidence["rule"].values]
    plots = [
        curves_by_delta_t(
            confidence.sel(rule=rule).transpose("delta_t", "seed", "time"),
            hv.Dimension("time", label="time", unit="ms"),
            _CONFIDENCE,
            title=runs_title(runs, rule) if title is None else title,
            show_legend=rule == rules[-1],
            xlim=(0, 1.03 * float(confidence["time"].max())),
            **common_limits(confidence),
        )
        for rule in rules
    ]
    return style.panels(plots, columns=2)


def plot_confidence_over_delta_t(
    dataset: xr.Dataset,
    *,
    times: Sequence[float] = (0.08, 0.1, 0.13, 0.2),
    epoch: int | None = None,
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot prediction confidence at a few times against the time step.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many.
    times : sequence of float, at most five
        Times in seconds, among those at which confidence is measured.
    epoch : int or None
        After which epoch; None: each run's last.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Mean over seeds with a band of ±1 standard deviation, one line a time; a Layout of one plot a rule where there
        are several rules.

    Raises
    ------
    ValueError
        If confidence was not measured at one of the times, there is no finished run, or the results have to be
        narrowed to one data set or other parameter first.
    """
    runs = runs_to_draw(dataset, "confidence")
    confidence = after_epoch(runs, epoch)["confidence"]
    known = confidence["time"].values
    if not 0 < len(times) <= len(style.MARKERS):
        raise ValueError(f"times has {len(times)} entries; it must have 1 to {len(style.MARKERS)}.")
    for time in times:
        if not np.isclose(known, time).any():
            raise ValueError(
                f"times holds {time:g} s; confidence is measured at {', '.join(f'{t:g}' for t in known)} s."
            )
    rules = [str(rule) for rule in confidence["rule"].values]
    plots = [
        over_delta_t(
            {f"{time * 1e3:g} ms": confidence.sel(rule=rule).sel(time=time, method="nearest") for time in times},
            _CONFIDENCE,
            title=runs_title(runs, rule) if title is None else title,
            legend_title="until",
            show_legend=rule == rules[-1],
            **common_limits(confidence.sel(time=list(times), method="nearest")),
        )
        for rule in rules
    ]
    return style.panels(plots, columns=2)


def _in_ms(values: xr.DataArray) -> xr.DataArray:
    return values.assign_coords(time=np.round(values["time"].values * 1e3, 6))
