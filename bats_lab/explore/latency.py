"""How long to wait: accuracy and spikes if the decision is taken at a time of one's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import holoviews as hv
import ipywidgets
import numpy as np
import xarray as xr

from bats_lab.explore.picture import Panel, Picture
from bats_lab.explore.widgets import (
    Explorer,
    dot,
    html_table,
    if_several,
    in_room,
    in_words,
    parts_of,
    side_by_side,
    slider,
)
from bats_lab.plots import style
from bats_lab.plots.curves import common_limits, curve_columns, curves_by_delta_t, statistics
from bats_lab.plots.measures import MEASURES, OVER, measured
from bats_lab.plots.runs import runs_to_draw
from bats_lab.runs.kept import measure_stopping

__all__ = ["explore_latency", "measure_stopping"]

#: What is drawn: how good a decision is, and what it costs.
_MEASURES = {"how good the decision is": MEASURES["stopped_accuracy"], "what it costs": MEASURES["stopped_spike_count"]}
_AXES = [measure.axis() for measure in _MEASURES.values()]
_TIME = OVER["stop_time"]

#: For each time step (s): times (ms), mean, standard deviation and number over the seeds.
_Curves = dict[float, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


@in_words
def explore_latency(results: xr.Dataset | str | Path, *, time: float | None = None, n_samples: int = 200) -> Explorer:
    """Explore what waiting is worth: stop the network at any time and see how good and how dear its decision is.

    Parameters
    ----------
    results
        As in all explorers (:mod:`bats_lab.explore`).
    time : float or None
        Time of the decision shown first, in seconds; None: the middle of the window.
    n_samples : int
        Test samples on which networks are run whose results do not hold the curves (:func:`measure_stopping`).

    Returns
    -------
    Explorer
        With the controls `time` (ms), and `rule` and `part` where there is a choice.
    """
    parts = {name: measure_stopping(part, n_samples=n_samples) for name, part in parts_of(results).items()}
    curves = {name: _curves(part) for name, part in parts.items()}
    first = next(iter(parts))
    accuracies = [accuracy for accuracy, _ in curves.values()]
    rules = list(dict.fromkeys(str(rule) for a in accuracies for rule in a["rule"].values))
    steps = sorted({float(step) for a in accuracies for step in a["delta_t"].values})
    end = max(float(a["stop_time"].max()) for a in accuracies)
    start = end / 2 if time is None else 1e3 * time
    if not 0 <= start <= end:
        raise ValueError(f"time is {start / 1e3:g} s; it must be in the window, 0 to {end / 1e3:g} s.")
    step = float(np.diff(accuracies[0]["stop_time"].values).min())
    controls = {
        "time": slider("decide at", 0.0, end, start, step=step, unit="ms"),
        **if_several("rule", "rule", rules),
        **if_several("part", "data set", list(parts)),
    }
    picture = Picture([_plot(kind, curves[first][kind], steps) for kind in (0, 1)], columns=2)
    table = ipywidgets.HTML()
    known: dict[tuple[str, str], tuple[_Curves, _Curves]] = {
        (part, str(rule)): (_statistics(accuracy.sel(rule=rule)), _statistics(spikes.sel(rule=rule)))
        for part, (accuracy, spikes) in curves.items()
        for rule in accuracy["rule"].values
    }
    shown: list[tuple[str, str]] = []

    def draw(time: float, rule: str = rules[0], part: str = first) -> str:
        accuracy_and_spikes = known.get((part, rule), ({}, {}))
        for panel, values, all_values, y in zip(picture.panels, accuracy_and_spikes, curves[part], _AXES, strict=True):
            if shown != [(part, rule)]:
                _show_curves(panel, values, steps, y)
                panel.y_limits(*common_limits(all_values)["ylim"])
            ends = [panel.figure.y_range.start, panel.figure.y_range.end]
            panel.set("stop", {"time": [time, time], y.name: ends})
            now = {delta_t: _at(curve, time) for delta_t, curve in values.items()}
            colors = [style.delta_t_color(v) for v in now]
            panel.set("there", {"time": [time] * len(now), y.name: list(now.values()), "color": colors})
        shown[:] = [(part, rule)]
        table.value = _table(*accuracy_and_spikes, time)
        note: str = parts[part].attrs.get("note", "")
        return note if accuracy_and_spikes[0] else f"There is no run with rule {rule!r} on {part}."

    table.add_class("bats-lab-words")
    return Explorer(
        [controls],
        draw,
        [picture],
        body=lambda: side_by_side([in_room(picture.widget, width=800), table]),
        presets={"when the last input has come": {"time": 100.0}, "the cliff at 8 ms": {"rule": "drop", "time": end}},
    )


def _curves(part: xr.Dataset) -> list[xr.DataArray]:
    runs = runs_to_draw(part, *(measure.variable for measure in _MEASURES.values()))
    return [measured(runs, measure) for measure in _MEASURES.values()]


def _statistics(values: xr.DataArray) -> _Curves:
    """Take the mean and standard deviation over seeds of each time step of which something is known."""
    times = values["stop_time"].values.astype(float)
    mean, std, n = statistics(values.transpose("delta_t", "stop_time", "seed"))
    steps = values["delta_t"].values
    return {float(steps[i]): (times, mean[i], std[i], n[i]) for i in np.flatnonzero(np.isfinite(mean).any(axis=1))}


def _at(curve: tuple[np.ndarray, ...], time: float) -> float:
    """Read the mean at the time (ms) nearest to one."""
    return float(curve[1][np.argmin(np.abs(curve[0] - time))])


def _plot(kind: int, values: xr.DataArray, steps: list[float]) -> hv.Overlay:
    """Draw a curve and a band for every time step there is anywhere, so that each can be filled later."""
    y, title = _AXES[kind], list(_MEASURES)[kind]
    ends = common_limits(values)["ylim"]
    times = values["stop_time"].values
    coords = {"delta_t": steps, "seed": [0, 1, 2], "stop_time": times}  # bands are of three seeds or more
    zeros = xr.DataArray(np.zeros((len(steps), 3, len(times))), coords, tuple(coords))
    stop = hv.Curve(([0, 0], list(ends)), "time", y, group="stop")
    # Of two colours, since HoloViews takes a column that holds one for a constant.
    corner = {"time": [0.0, 0.0], y.name: [0.0, 0.0], "color": ["#000000", "#ffffff"]}
    there = hv.Scatter(corner, "time", [y, "color"], group="there")
    tooltips = [(y.label, f"@{y.name}{{0.[0]}} {y.unit or ''}")]
    marks = [style.line(stop, style.ACCENT_COLOR, series=2, width=0.8), style.points(there, "color", tooltips=tooltips)]
    options: dict[str, Any] = {"xlim": (0, 1.02 * times.max()), "ylim": ends, "width": 310, "height": 280}
    return curves_by_delta_t(zeros, _TIME, y, title=title, show_legend=kind == 1, marks=marks, **options)


def _show_curves(panel: Panel, curves: _Curves, steps: list[float], y: hv.Dimension) -> None:
    nothing = (np.empty(0),) * 4
    for delta_t in steps:
        times, mean, std, n = curves.get(delta_t, nothing)
        panel.set(f"curve {delta_t:g}", curve_columns(times, mean, std, n, delta_t, _TIME, y))
        band = np.append(mean - std, (mean + std)[::-1])
        panel.set(f"band {delta_t:g}", {"x": np.append(times, times[::-1]), "y": band})


def _table(accuracy: _Curves, spikes: _Curves, time: float) -> str:
    """Lay out the numbers at a time as a table."""
    rows = []
    for delta_t, curve in accuracy.items():
        now, spent, all_spikes = _at(curve, time), _at(spikes[delta_t], time), spikes[delta_t][1][-1]
        share = f"{100 * spent / all_spikes:.0f} %" if all_spikes > 0 else ""
        name = f"{dot(style.delta_t_color(delta_t))} {style.delta_t_label(delta_t)}"
        rows.append((name, f"{now:.1f} %", f"{now - curve[1][-1]:+.1f}", f"{spent:,.0f}", share))
    return html_table(("Δt", "accuracy", "against waiting", "spikes so far", "of all spikes"), rows) if rows else ""
