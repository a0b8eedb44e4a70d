"""Accuracy over the time step, the jitter and the scale of time, and the spectrum of the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.plots import style
from bats_lab.studies.panels import drawn_rules, level, panels_over_delta_t
from bats_lab.studies.timing.report import LOST, trained_accuracy

__all__ = ["plot_against_scale", "plot_input_spectrum", "plot_jitter", "plot_timing"]

_WIDTH, _HEIGHT = 380, 280


def plot_timing(results: Mapping[str, xr.Dataset], *, title: str = "") -> hv.Overlay | hv.Layout:
    """Plot what training on a time step costs, one panel a data set, one curve a rule.

    `results` are runs by data set. Drawn is the mean over seeds of the test accuracy less that of the same seed in
    continuous time, in points, with a band of ±1 standard deviation.
    """
    panels, levels = {}, []
    for name, part in results.items():
        accuracy = trained_accuracy(part)
        change = (accuracy - accuracy.sel(delta_t=0.0)).where(accuracy["delta_t"] > 0, drop=True)
        panels[name] = {rule: change.sel(rule=rule) for rule in drawn_rules(change)}
        levels.append(change["delta_t"].values)
    axis = hv.Dimension("change", label="test accuracy − continuous time", unit="points")
    marks = [level(0, np.concatenate(levels))]
    return panels_over_delta_t(panels, axis, title=title, legend_title="rule", marks=marks, size=(_WIDTH, _HEIGHT))


def plot_against_scale(
    results: Mapping[str, xr.Dataset], *, rule: str = "graded", title: str = ""
) -> hv.Overlay | hv.Layout:
    """Plot the accuracy lost under a rule against Δt over the synaptic time constant, one curve a data set."""
    curves = {}
    for name, part in results.items():
        accuracy = trained_accuracy(part)
        if rule in accuracy["rule"].values:
            lost = (accuracy.sel(delta_t=0.0) - accuracy).sel(rule=rule).mean("seed")
            lost = lost.where(lost["delta_t"] > 0, drop=True).dropna("delta_t")
            curves[name] = (lost["delta_t"].values / Config(dataset=name).tau_syn, lost.values)
    x = hv.Dimension("scale", label="Δt over τ_s")
    return _curves(curves, x, hv.Dimension("lost", label="accuracy lost", unit="points"), title=title, level_at=LOST)


def plot_jitter(measured: Mapping[str, xr.Dataset], *, title: str = "") -> hv.Layout:
    """Plot the accuracy that networks of continuous time lose to jitter of their input, and to a clock of it.

    `measured` is what :func:`bats_lab.studies.timing.study.open_timing` returns. On the left over the standard
    deviation of the jitter, on the right over the time step divided by √12, which is the standard deviation of its
    delays.
    """
    y = hv.Dimension("lost", label="accuracy lost", unit="points")
    plots: list[Any] = []
    for what, dim, factor, label in (
        ("jittered_accuracy", "jitter", 1.0, "jitter σ"),
        ("input_accuracy", "delta_t", 12**-0.5, "clock of the input, Δt / √12"),
    ):
        curves = {}
        for name, own in measured.items():
            values = own[what].mean("draw") if "draw" in own[what].dims else own[what]
            lost = (100 * (values.sel({dim: 0.0}) - values)).mean("seed")
            lost = lost.where(lost[dim] > 0, drop=True)
            curves[name] = (1e3 * factor * lost[dim].values, lost.values)
        axis = hv.Dimension(dim, label=label, unit="ms")
        plots.append(_curves(curves, axis, y, level_at=LOST, named=bool(plots)))
    return style.panels(plots, columns=2, title=title, width=_WIDTH, height=_HEIGHT)


def plot_input_spectrum(measured: Mapping[str, xr.Dataset], *, title: str = "") -> hv.Overlay:
    """Plot the share of what tells classes apart that lies below a frequency, one curve a data set."""
    curves = {}
    for name, own in measured.items():
        spectrum = own.isel(seed=0)
        frequency = spectrum["frequency"].values
        telling = np.cumsum(spectrum["telling"].values)
        curves[name] = (frequency[1:], 100 * telling[1:] / telling[-1])
    x = hv.Dimension("frequency", label="frequency", unit="Hz")
    y = hv.Dimension("share", label="power that tells classes apart, below", unit="%")
    return _curves(curves, x, y, title=title, level_at=95.0, markers=False)


def _curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x: hv.Dimension,
    y: hv.Dimension,
    *,
    level_at: float,
    title: str = "",
    markers: bool = True,
    named: bool = True,
) -> hv.Overlay:
    """Draw curves over a logarithmic axis, with a line at a level."""
    seen = np.concatenate([xs for xs, _ in curves.values()]) if curves else np.ones(1)
    ends = float(seen.min()) / 1.2, float(seen.max()) * 1.2
    elements: list[Any] = [style.line(hv.Curve((ends, (level_at, level_at)), x, y), style.ACCENT_COLOR, series=1)]
    legend = []
    for i, (name, (xs, ys)) in enumerate(curves.items()):
        color = style.SERIES_COLORS[i % len(style.SERIES_COLORS)]
        elements.append(style.line(hv.Curve((xs, ys), x, y, label=name), color, series=i))
        if markers:
            tooltips = [(x.pprint_label, f"@{x.name}"), (y.pprint_label, f"@{y.name}{{0.0}}")]
            elements.append(style.points(hv.Scatter((xs, ys), x, y, label=name), color, series=i, tooltips=tooltips))
        legend.append(style.LegendEntry(name, color, i, i if markers else None))
    ticks = [(v, f"{v:g}") for v in (d * 10.0**e for e in range(-3, 4) for d in (1, 2, 5)) if ends[0] < v < ends[1]]
    return style.overlay(
        elements, legend=legend if named else (), legend_title="data set", title=title, xlabel=x.pprint_label,
        ylabel=y.pprint_label, logx=True, xlim=ends,
        xticks=ticks[::2] if len(ticks) > 9 else ticks, width=_WIDTH, height=_HEIGHT,
    )  # fmt: skip
