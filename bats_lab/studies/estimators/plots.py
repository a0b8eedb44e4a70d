"""Gradient estimators of the time grid: what they put in place of d(t), and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.runs import check_choice
from bats_lab.runs.metrics import last_epoch
from bats_lab.spikes.estimators import ESTIMATORS, smooth_discretize, surrogate_slope
from bats_lab.spikes.grid import discretize
from bats_lab.studies.collapse.experiments import agreement
from bats_lab.studies.panels import drawn_rules, level, panels_over_delta_t

__all__ = ["plot_estimator_agreement", "plot_estimator_gain", "plot_estimators", "plot_smooth_grid"]

_WIDTH, _HEIGHT = 340, 250
_WIDTH_COLORS = ("#56b4e9", "#0072b2", "#e69f00", "#009e73")


def plot_smooth_grid(delta_t: float, widths: Sequence[float], *, title: str = "") -> hv.Layout:
    """Plot the time grid and its smooth surrogates, and the slopes by which errors are multiplied.

    Parameters
    ----------
    delta_t : float
        Time step in seconds, above 0.
    widths : sequence of float
        Half-widths of the surrogate's steps, in time steps; one to four.
    title : str
        Title above the plots.

    Returns
    -------
    holoviews.Layout
        On the left d(t) and its surrogates over the time of the crossing, in ms; on the right their slopes. The dashed
        line is the straight-through estimator: slope 1.

    Raises
    ------
    ValueError
        If `delta_t` or `widths` is not allowed.
    """
    if not delta_t > 0:
        raise ValueError(f"delta_t is {delta_t}; it must be a number above 0.")
    if not 0 < len(widths) <= len(_WIDTH_COLORS):
        raise ValueError(f"widths is {list(widths)}; it must have 1 to {len(_WIDTH_COLORS)} entries.")
    times = delta_t * np.linspace(0, 4, 801)
    x = hv.Dimension("time", label="time t of the crossing", unit="ms")
    sent = hv.Dimension("sent", label="time of the spike", unit="ms")
    slope = hv.Dimension("slope", label="slope")
    grid = np.where(np.arange(len(times)) % 200, discretize(times, delta_t), np.nan)  # a gap at each jump
    left: list[Any] = []
    right: list[Any] = []

    def add(label: str, color: str, sent_at: np.ndarray, slopes: np.ndarray | None, line: int = 0) -> None:
        curve = hv.Curve((1e3 * times, 1e3 * sent_at), x, sent, label=label)
        left.append(style.line(curve, color, series=line))
        if slopes is not None:
            right.append(style.line(hv.Curve((1e3 * times, slopes), x, slope, label=label), color, series=line))
        legend.append(style.LegendEntry(label, color, line=line))

    legend: list[style.LegendEntry] = []
    add("straight through", style.NEUTRAL_COLOR, times + delta_t / 2, np.ones_like(times), line=1)
    add("d(t)", style.ACCENT_COLOR, grid, None)
    steepest = 1.0
    for width, color in zip(widths, _WIDTH_COLORS, strict=False):
        slopes = surrogate_slope(times, delta_t, width)
        steepest = max(steepest, float(slopes.max()))
        add(f"width {width:g}", color, smooth_discretize(times, delta_t, width), slopes)
    common = {"width": _WIDTH, "height": _HEIGHT, "xlabel": x.pprint_label, "xlim": style.limits(1e3 * times)}
    plots = [
        style.overlay(left, title="what is sent", ylabel=sent.pprint_label, **common),
        style.overlay(
            right,
            title="what errors are multiplied by",
            ylabel=slope.pprint_label,
            ylim=style.limits(0, steepest),
            legend=legend,
            legend_title=f"Δt = {style.delta_t_label(delta_t)}",
            **common,
        ),
    ]
    return style.panels(plots, columns=2, title=title, width=_WIDTH, height=_HEIGHT)


def plot_estimators(dataset: xr.Dataset, *, split: str = "test", title: str = "") -> hv.Overlay | hv.Layout:
    """Plot accuracy after the last epoch against the time step, one plot a rule, one curve a gradient estimator.

    Parameters
    ----------
    dataset : xarray.Dataset
        Runs of one data set over `estimator`, `delta_t`, `rule` and `seed`.
    split : str
        ``test``, ``train``, or ``validation`` where runs hold out training samples.
    title : str
        Title above the plots.

    Returns
    -------
    holoviews.Layout
        Mean over seeds in %, with a band of ±1 standard deviation.

    Raises
    ------
    ValueError
        If the results do not differ in `estimator`, or have no such split.
    """
    accuracy = _accuracy(dataset, split)
    axis = hv.Dimension("accuracy", label=f"{split} accuracy", unit="%")
    return _by_rule(accuracy, "estimator", _estimators(accuracy), axis, title=title)


def plot_estimator_gain(
    dataset: xr.Dataset, *, baseline: str = "straight_through", split: str = "test", title: str = ""
) -> hv.Overlay | hv.Layout:
    """Plot what an estimator gains over another one, seed by seed, against the time step, one plot a rule.

    Parameters and errors are those of :func:`plot_estimators`; `baseline` is the estimator that the others are held
    against. Drawn is the mean over seeds of the difference between networks of the same seed, in percentage points,
    with a band of ±1 standard deviation of the difference.
    """
    accuracy = _accuracy(dataset, split)
    names = _estimators(accuracy)
    check_choice("baseline", baseline, tuple(names))
    gain = (accuracy - accuracy.sel(estimator=baseline)).where(accuracy["delta_t"] > 0, drop=True)
    axis = hv.Dimension("gain", label=f"{split} accuracy − {baseline}", unit="points")
    others = [name for name in names if name != baseline]
    return _by_rule(gain, "estimator", others, axis, title=title, marks=[level(0, gain["delta_t"].values)])


def plot_estimator_agreement(dataset: xr.Dataset, *, title: str = "") -> hv.Overlay | hv.Layout:
    """Plot how well gradients predict the change of the loss, against the time step, one plot a rule.

    `dataset` is what :func:`bats_lab.studies.estimators.study.open_gradients` gives for a data set. Drawn is the
    correlation with the true change of the loss on the grid, over random directions; its standard error is about one
    over the square root of their number.
    """
    agrees = agreement(dataset).expand_dims("seed")
    axis = hv.Dimension("agreement", label="correlation with the change of the loss")
    return _by_rule(agrees, "gradient", dataset["gradient"].values.tolist(), axis, title=title)


def _accuracy(dataset: xr.Dataset, split: str) -> xr.DataArray:
    if "estimator" not in dataset.dims:
        raise ValueError("The results do not differ in 'estimator'; there is nothing to compare.")
    check_choice("split", split, tuple(map(str, dataset["split"].values)))
    accuracy = 100 * last_epoch(dataset)["accuracy"].sel(split=split, drop=True)
    accuracy = accuracy.expand_dims([dim for dim in ("rule", "seed") if dim not in accuracy.dims])
    # Continuous time has one estimator and one rule; it stands in every curve.
    first = accuracy.sel(delta_t=accuracy["delta_t"] == 0)
    exact = first.max(["estimator", "rule"])
    return xr.concat(
        [(xr.zeros_like(first) + exact).transpose(*accuracy.dims), accuracy.sel(delta_t=accuracy["delta_t"] > 0)],
        "delta_t",
    )


def _estimators(accuracy: xr.DataArray) -> list[str]:
    return [name for name in ESTIMATORS if name in accuracy["estimator"].values]


def _by_rule(
    values: xr.DataArray, dim: str, names: Sequence[str], y: hv.Dimension, **options: Any
) -> hv.Overlay | hv.Layout:
    """Draw one panel a rule, one curve a label of `dim`."""
    return panels_over_delta_t(
        {rule: {name: values.sel({"rule": rule, dim: name}) for name in names} for rule in drawn_rules(values)},
        y,
        size=(_WIDTH, _HEIGHT),
        legend_title=dim,
        **options,
    )
