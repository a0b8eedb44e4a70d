"""One neuron whose inputs are dragged about: where a class sees why a coarse clock breaks a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ipywidgets
import numpy as np

from bats_lab.explore.picture import Picture
from bats_lab.explore.widgets import (
    Explorer,
    choice,
    dot,
    html_table,
    in_words,
    player,
    slider,
    step_slider,
    time_slider,
)
from bats_lab.network.neuron import Neuron, simulate_neuron
from bats_lab.plots import style
from bats_lab.plots.potential import potential_columns, potential_limits, potential_plots, row_ticks, tick_columns
from bats_lab.spikes.rules import RULES, rule_on

__all__ = ["describe_neuron", "explore_neuron"]

_MAX_INPUTS = 8
#: Of the inputs at the start.
_PRESETS: dict[str, dict[str, Any]] = {
    "the cliff at 8 ms: drop falls silent": {"delta_t": 0.008, "rule": "drop"},
    "graded: spikes share a tick": {"delta_t": 0.008, "rule": "graded"},
    "defer: a queue at the clock": {"delta_t": 0.008, "rule": "defer"},
    "a clock fine enough": {"delta_t": 0.0005, "rule": "drop"},
}
#: Step of the sliders of inputs, in ms and in units of weight.
_STEP = 0.5
# Picture and controls stand side by side, and JupyterLab leaves some 850 pixels of a small screen.
_WIDTH, _HEIGHTS = 430, (210, 110, 70)


@in_words
def explore_neuron(
    times: Sequence[float] = (0.01, 0.03, 0.07, 0.11),
    weights: Sequence[float] = (12, 24, -70, 70),
    *,
    delta_t: float = 0.008,
    rule: str = "drop",
    tau_syn: float = 0.13,
    threshold: float = 0.2,
    duration: float = 0.2,
    ratio: float = 2.0,
) -> Explorer:
    """Explore one neuron: its potential, its crossings and the spikes it sends, in continuous time and on a grid.

    Inputs are moved by their sliders, or by dragging the black points of the second panel: sideways in time, up and
    down in weight.

    Parameters
    ----------
    times, weights : sequence of float
        Time of each input spike in seconds, and the weight of its synapse; at most eight.
    delta_t : float
        Time step in seconds; 0 is continuous time.
    rule : str
        Collision rule.
    tau_syn : float
        Synaptic time constant in seconds.
    threshold : float
        Threshold, which is also what a reset takes away.
    duration : float
        Length of the window in seconds.
    ratio : float
        The membrane's time constant over the synaptic one.

    Returns
    -------
    Explorer
        With the controls `delta_t`, `rule`, `time` (ms; what comes later is left out), `tau_syn` (ms), `ratio` and
        `threshold`, and for each input `time_1` (ms) and `weight_1`, and so on. The button `play` lets time run.
    """
    given: dict[str, Any] = {"tau_syn": tau_syn, "threshold": threshold, "duration": duration}
    given["tau_mem"] = ratio * tau_syn
    # Whatever cannot be simulated is refused here, in words.
    first = simulate_neuron(
        np.asarray(times, float), np.asarray(weights, float), delta_t=delta_t, rule=rule_on(rule, delta_t), **given
    )
    if not 1 <= len(times) <= _MAX_INPUTS:
        raise ValueError(f"times holds {len(times)} inputs; there must be 1 to {_MAX_INPUTS}.")
    n, end = len(times), 1e3 * duration
    if max(times) > duration:
        raise ValueError(f"times reach to {max(times):g} s; the window ends at {duration:g} s.")
    most = max(100.0, 1.2 * float(np.abs(weights).max()))
    controls: dict[str, Any] = {
        "delta_t": step_slider("time step Δt", value=delta_t),
        "rule": choice("rule", list(RULES), rule),
        **time_slider(end),
        "tau_syn": slider("τₛ", 2.0, max(300.0, 1e3 * tau_syn), 1e3 * tau_syn, step=1.0, unit="ms"),
        "ratio": slider("τ/τₛ", min(0.2, ratio), max(8.0, ratio), ratio, step=0.1),
        "threshold": slider("threshold", 0.02, max(1.0, threshold), threshold, step=0.02),
    }
    for i, (time, weight) in enumerate(zip(times, weights, strict=True), 1):
        controls[f"time_{i}"] = slider(f"input {i}", 0.0, end, 1e3 * time, step=_STEP, unit="ms")
        controls[f"weight_{i}"] = slider(f"weight {i}", -most, most, float(weight), step=_STEP)
    for name, control in controls.items():
        if name != "rule":
            control.layout.width = "260px"
        if name.startswith(("time_", "weight_", "tau")):
            control.readout_format = ".1f"

    pair = [replace(first, delta_t=0.0), first]
    picture = Picture(potential_plots(pair, complete=True, width=_WIDTH, heights=_HEIGHTS), share_x=True, share=0.88)
    counts = ipywidgets.HTML()
    counts.add_class("bats-lab-words")
    dragging = False

    def draw(
        delta_t: float, rule: str, time: float, tau_syn: float, ratio: float, threshold: float, **inputs: float
    ) -> str:
        arrivals, strengths = (np.array([inputs[f"{kind}_{i + 1}"] for i in range(n)]) for kind in ("time", "weight"))
        given: dict[str, Any] = {"tau_syn": tau_syn / 1e3, "threshold": threshold, "duration": duration}
        given["tau_mem"] = ratio * given["tau_syn"]
        continuous = simulate_neuron(arrivals / 1e3, strengths, **given)
        by_rule = {}
        if delta_t:
            for name in RULES:
                by_rule[name] = simulate_neuron(arrivals / 1e3, strengths, delta_t=delta_t, rule=name, **given)
        neurons = [continuous, by_rule.get(rule, continuous)]
        seen = neurons if delta_t else neurons[:1]
        limits = [*potential_limits(seen)[:1], (-1.15 * most, 1.15 * most), potential_limits(neurons)[2]]
        for i, neuron in enumerate(neurons):
            columns_of = potential_columns(neuron, -i, hidden=i > 0 and not delta_t)
            for panel, series in zip(picture.panels, columns_of, strict=True):
                for name, columns in series.items():
                    if (name, i) == ("inputs", 0):
                        # In the order of the sliders; a point under the pointer is where it is.
                        columns = {"time": arrivals, "weight": strengths, "computed": arrivals}
                        if dragging:
                            continue
                    elif name not in ("inputs", "stems"):
                        seen_so_far = ~(columns["time"] > time)
                        columns = {key: values[seen_so_far] for key, values in columns.items()}
                    panel.set(f"{name}_{i}", columns)
                    if i and name not in ("unsent", "computed"):
                        panel.paint(f"{name}_{i}", style.delta_t_color(delta_t))
        for i, (panel, ends) in enumerate(zip(picture.panels, limits, strict=True)):
            panel.set("ticks", tick_columns(seen, i, ends))
            panel.y_limits(*ends)
        picture.panels[0].set("threshold", {"time": np.array([0, end]), "potential": np.full(2, threshold)})
        picture.panels[2].y_ticks(row_ticks(seen))
        counts.value = _table(continuous, by_rule, rule)
        return describe_neuron(continuous, by_rule.get(rule))

    def moved(columns: dict[str, Any]) -> None:
        nonlocal dragging
        points = [(float(t), float(w)) for t, w in zip(columns["time"], columns["weight"], strict=True)]
        inside = len(points) == n and all(0 <= t <= end and abs(w) <= most for t, w in points)
        wanted: dict[str, float] = {}
        for i, (time, weight) in enumerate(points if len(points) == n else (), 1):
            # Rounded as sliders do, which else would answer with a change of their own.
            wanted[f"time_{i}"] = _rounded(np.clip(time, 0, end))
            wanted[f"weight_{i}"] = _rounded(np.clip(weight, -most, most))
        if inside and all(explorer.values[name] == value for name, value in wanted.items()):
            return
        # A point that was deleted, or dragged out of the window, is put back.
        dragging = inside
        explorer.choose(wanted)
        dragging = False

    picture.drag_points(picture.panels[1], "inputs_0", moved)
    explorer = Explorer(
        [controls],
        draw,
        [picture],
        body=lambda: ipywidgets.VBox([counts, picture.widget]),
        beside=True,
        buttons={"play": player(controls["time"])},
        presets=_PRESETS,
    )
    return explorer


def _rounded(value: float) -> float:
    return round(float(value) / _STEP) * _STEP


def describe_neuron(continuous: Neuron, on_grid: Neuron | None) -> str:
    """Say what a time step and a collision rule did to a neuron.

    Parameters
    ----------
    continuous : Neuron
        The neuron in continuous time.
    on_grid : Neuron or None
        The same neuron with a time step; None: there is none.

    Examples
    --------
    >>> from bats_lab.network.neuron import simulate_neuron
    >>> inputs = {"times": [0.01, 0.03], "weights": [12, 24]}
    >>> print(describe_neuron(simulate_neuron(**inputs), simulate_neuron(**inputs, delta_t=0.008, rule="drop")))
    Spikes sent: 16 in continuous time, 1 with Δt = 8 ms and rule drop. A crossing before the neuron's last spike has
    left is ignored and does not reset the neuron. Ignored: 1. Above the threshold to the end, and silent, from: 39 ms.
    """
    sent = f"Spikes sent: {continuous.spike_count} in continuous time"
    if on_grid is None:
        return f"{sent}, each when it is computed."
    on_one_tick = on_grid.spike_count - len(np.unique(on_grid.discretized[np.isfinite(on_grid.discretized)]))
    facts: dict[str, Any] = {
        "Ignored": len(on_grid.ignored),
        "Reset the neuron and sent nothing": on_grid.unsent,
        "Waited for a free tick": on_grid.deferred,
        "On a tick with another one": on_one_tick,
    }
    if on_grid.silenced_from is not None:
        facts["Above the threshold to the end, and silent, from"] = f"{1e3 * on_grid.silenced_from:.0f} ms"
    step = style.delta_t_label(on_grid.delta_t)
    collision = f"A crossing before the neuron's last spike has left {RULES[on_grid.rule].collision}."
    listed = [f"{name}: {value}." for name, value in facts.items() if value]
    return " ".join([f"{sent}, {on_grid.spike_count} with Δt = {step} and rule {on_grid.rule}.", collision, *listed])


def _table(continuous: Neuron, by_rule: dict[str, Neuron], chosen: str) -> str:
    """Lay out what each rule makes of the same inputs; it is the picture's legend as well."""
    neurons = {"continuous": continuous, **by_rule}
    signs = {"continuous": dot(style.CONTINUOUS_COLOR)}
    if by_rule:
        signs[chosen] = dot(style.delta_t_color(by_rule[chosen].delta_t))
    rows = [
        ["spikes sent", *(str(neuron.spike_count) for neuron in neurons.values())],
        [
            f"{dot(style.ACCENT_COLOR, '◆')} unsent crossings",
            *(str(neuron.unsent + len(neuron.ignored)) for neuron in neurons.values()),
        ],
    ]
    head = ["", *(f"{signs.get(name, '')} {name}".strip() for name in neurons)]
    return html_table(head, rows, bold=1 + list(neurons).index(chosen) if by_rule else None)
