"""How long to wait: accuracy and spikes if the decision is taken at a time of one's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import holoviews as hv
import ipywidgets
import numpy as np
import xarray as xr

from bats_lab.explore.live import runs_with_weights
from bats_lab.explore.picture import Panel, Picture
from bats_lab.explore.widgets import Explorer, choice, in_words, opened, slider
from bats_lab.plots import style
from bats_lab.plots.curves import common_limits, curve_columns, statistics
from bats_lab.plots.runs import split_results
from bats_lab.plots.stopping import ACCURACY, SPIKES, stopping_curves, stopping_plot
from bats_lab.runs.experiment import config_of, first_samples, network_of
from bats_lab.runs.metrics import decide_at, stop_times

__all__ = ["explore_latency", "measure_stopping"]


@in_words
def explore_latency(results: xr.Dataset | str | Path, *, time: float | None = None, n_samples: int = 200) -> Explorer:
    """Explore what waiting is worth: stop the network at any time and see how good and how dear its decision is.

    Parameters
    ----------
    results : xarray.Dataset, str or Path
        Results of one run or of many, or a folder of results.
    time : float or None
        Time of the decision shown first, in seconds; None: the middle of the window.
    n_samples : int
        Test samples on which networks are run whose results do not hold the curves (:func:`measure_stopping`).

    Returns
    -------
    Explorer
        With the controls `time` (ms), and `rule` and `part` where there is a choice; or a :class:`Sentence` where no
        run has measured decisions taken early and none kept its weights.
    """
    results = opened(results)
    parts = dict(split_results(results))
    if not parts:
        raise ValueError("The results hold no finished run; there is nothing to explore.")
    measured = {name: measure_stopping(part, n_samples=n_samples) for name, part in parts.items()}
    curves = {name: stopping_curves(part) for name, part in measured.items()}
    first = next(iter(parts))
    rules = list(dict.fromkeys(str(r) for accuracy, _ in curves.values() for r in accuracy["rule"].values))
    end = max(float(accuracy["stop_time"].max()) for accuracy, _ in curves.values())
    start = end / 2 if time is None else 1e3 * time
    if not 0 <= start <= end:
        raise ValueError(f"time is {start / 1e3:g} s; it must be in the window, 0 to {end / 1e3:g} s.")
    step = float(np.diff(curves[first][0]["stop_time"].values).min())
    controls: dict[str, Any] = {"time": slider("decide at", 0.0, end, start, step=step, unit="ms")}
    if len(rules) > 1:
        controls["rule"] = choice("rule", rules)
    if len(parts) > 1:
        controls["part"] = choice("data set", list(parts))

    steps = sorted({float(v) for accuracy, _ in curves.values() for v in accuracy["delta_t"].values})
    picture = Picture([_plot(kind, curves, steps, y) for kind, y in enumerate(_QUANTITIES)], columns=2)
    table = ipywidgets.HTML()
    known: dict[tuple[str, str], list[_Curves]] = {
        (part, str(rule)): [_statistics(values.sel(rule=rule)) for values in both]
        for part, both in curves.items()
        for rule in both[0]["rule"].values
    }
    shown: list[tuple[str, str]] = []

    def draw(time: float, rule: str = rules[0], part: str = first) -> str:
        found = known.get((part, rule), [{}, {}])
        for panel, values, all_values, y in zip(picture.panels, found, curves[part], _QUANTITIES, strict=True):
            if shown != [(part, rule)]:
                _show_curves(panel, values, steps, y)
                panel.y_limits(*common_limits(all_values)["ylim"])
            ends = [panel.figure.y_range.start, panel.figure.y_range.end]
            panel.set("stop", {"time": [time, time], y.name: ends})
            now = {delta_t: _at(curve, time) for delta_t, curve in values.items()}
            colors = [style.delta_t_color(v) for v in now]
            panel.set("there", {"time": [time] * len(now), y.name: list(now.values()), "color": colors})
        shown[:] = [(part, rule)]
        table.value = _table(found[0], found[1], time)
        note: str = measured[part].attrs.get("note", "")
        return note if found[0] else f"There is no run with rule {rule!r} on {part}."

    return Explorer(controls, draw, [picture], body=lambda: ipywidgets.VBox([picture.widget, table]))


#: What is drawn: how good a decision is, and what it costs.
_QUANTITIES = (ACCURACY, SPIKES)

#: For each time step (s): times (ms), mean, standard deviation and number over the seeds.
_Curves = dict[float, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


def _statistics(values: xr.DataArray) -> _Curves:
    """Take the mean and standard deviation over seeds of each time step of which something is known."""
    places = values["stop_time"].values.astype(float)
    mean, std, n = statistics(values.transpose("delta_t", "stop_time", "seed"))
    steps = values["delta_t"].values
    return {float(steps[i]): (places, mean[i], std[i], n[i]) for i in np.flatnonzero(np.isfinite(mean).any(axis=1))}


def _at(curve: tuple[np.ndarray, ...], time: float) -> float:
    """Read the mean at the time (ms) nearest to one."""
    return float(curve[1][np.argmin(np.abs(curve[0] - time))])


def measure_stopping(results: xr.Dataset, *, n_samples: int = 200) -> xr.Dataset:
    """Return results with the curves of early decisions, measured now if no run holds them.

    Parameters
    ----------
    results : xarray.Dataset
        Results over `delta_t`, `seed` and `rule`.
    n_samples : int
        Test samples, from the first on, on which the networks are run.

    Returns
    -------
    xarray.Dataset
        With `stopped_accuracy` and `stopped_spike_count`; the attribute `note` tells if they were measured now.

    Raises
    ------
    ValueError
        If no run holds the curves and none kept its weights.
    """
    if "stopped_accuracy" in results and bool(results["stopped_accuracy"].notnull().any()):
        return results
    found = []
    for run in runs_with_weights(results):
        config = config_of(run)
        data = first_samples(config, n_samples)
        accuracy, spikes = decide_at(network_of(run), data.x_test, data.y_test, config)
        layers = list(config.layer_names())
        one = xr.Dataset(
            {"stopped_accuracy": ("stop_time", accuracy), "stopped_spike_count": (("stop_time", "layer"), spikes)},
            {"stop_time": stop_times(config.duration), "layer": layers},
        )
        dims = [d for d in ("delta_t", "seed", "rule") if d in results.dims]
        found.append(one.expand_dims({d: [run[d].item()] for d in dims}))
    together = xr.combine_by_coords(found, combine_attrs="drop", join="outer") if len(found) > 1 else found[0]
    missing = ["stopped_accuracy", "stopped_spike_count"]
    results = results.drop_vars([name for name in missing if name in results])
    note = f"Measured now, on the first {n_samples} test images: these results do not hold the curves."
    return results.merge(together, join="outer").assign_attrs(note=note)


def _plot(kind: int, curves: Mapping[str, tuple[xr.DataArray, xr.DataArray]], steps: list[float], y: Any) -> Any:
    """Draw a curve and a band for every time step there is anywhere, so that each can be filled later."""
    some = next(iter(curves.values()))[kind].isel(rule=0)
    seen = common_limits(next(iter(curves.values()))[kind])["ylim"]
    places = some["stop_time"].values
    shape = (len(steps), 2, len(places))
    zeros = xr.DataArray(
        np.zeros(shape), {"delta_t": steps, "seed": [0, 1], "stop_time": places}, ("delta_t", "seed", "stop_time")
    )
    stop = style.line(hv.Curve(([0, 0], list(seen)), "time", y, group="stop"), style.ACCENT_COLOR, series=2, width=0.8)
    # Of two colours, since HoloViews takes a column that holds one for a constant.
    there = hv.Scatter(
        {"time": [0.0, 0.0], y.name: [0.0, 0.0], "color": ["#000000", "#ffffff"]}, "time", [y, "color"], group="there"
    )
    title, last = ("how good the decision is", False) if kind == 0 else ("what it costs", True)
    marks = [stop, style.points(there, "color", tooltips=[(y.label, f"@{y.name}{{0.[0]}} {y.unit or ''}")])]
    plot = stopping_plot(zeros, zeros, y, title=title, show_legend=last, marks=marks, width=310, height=280, ylim=seen)
    return plot


def _show_curves(panel: Panel, curves: _Curves, steps: list[float], y: Any) -> None:
    nothing = (np.empty(0),) * 4
    for delta_t in steps:
        places, mean, std, n = curves.get(delta_t, nothing)
        panel.set(f"curve {delta_t:g}", curve_columns(places, mean, std, n, delta_t, _TIME, y))
        band = np.append(mean - std, (mean + std)[::-1])
        panel.set(f"band {delta_t:g}", {"x": np.append(places, places[::-1]), "y": band})


_TIME = hv.Dimension("time", label="time", unit="ms")


def _table(accuracy: _Curves, spikes: _Curves, time: float) -> str:
    """Lay out the numbers at a time as a table."""
    rows = []
    for delta_t, curve in accuracy.items():
        now, spent, all_spikes = _at(curve, time), _at(spikes[delta_t], time), spikes[delta_t][1][-1]
        rows.append(
            (
                f'<span style="color:{style.delta_t_color(delta_t)}">●</span> {style.delta_t_label(delta_t)}',
                f"{now:.1f} %",
                f"{now - curve[1][-1]:+.1f}",
                f"{spent:,.0f}",
                f"{100 * spent / all_spikes:.0f} %" if all_spikes > 0 else "",
            )
        )
    head = ("Δt", "accuracy", "against waiting", "spikes so far", "of all spikes")
    return _html_table(head, rows) if rows else ""


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    style_of_cell = "padding:0 10px;text-align:right"
    lines = [("th", head), *(("td", row) for row in rows)]
    cells = ["".join(f'<{kind} style="{style_of_cell}">{text}</{kind}>' for text in row) for kind, row in lines]
    return f'<table style="line-height:1.5">{"".join(f"<tr>{row}</tr>" for row in cells)}</table>'
