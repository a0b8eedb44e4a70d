"""One neuron whose inputs are dragged about: where a class sees why a coarse clock breaks a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ipywidgets
import numpy as np

from bats_lab.explore.picture import Picture
from bats_lab.explore.widgets import Explorer, choice, in_words, slider, step_slider
from bats_lab.network.neuron import Neuron, simulate_neuron
from bats_lab.plots import style
from bats_lab.plots.potential import (
    potential_columns,
    potential_limits,
    potential_plots,
    row_ticks,
    tick_columns,
)
from bats_lab.spikes.rules import RULES, rule_on

__all__ = ["describe_neuron", "explore_neuron"]

_MAX_INPUTS = 8
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
        Synaptic time constant in seconds; the membrane's is twice as long.
    threshold : float
        Threshold, which is also what a reset takes away.
    duration : float
        Length of the window in seconds.

    Returns
    -------
    Explorer
        With the controls `delta_t`, `rule`, `tau_syn` (ms) and `threshold`, and for each input `time_1` (ms) and
        `weight_1`, and so on; or a :class:`Sentence` where a value is not allowed.
    """
    # Whatever cannot be simulated is refused here, in words.
    first = simulate_neuron(
        np.asarray(times, float),
        np.asarray(weights, float),
        delta_t=delta_t,
        rule=rule_on(rule, delta_t),
        tau_syn=tau_syn,
        threshold=threshold,
        duration=duration,
    )
    if not 1 <= len(times) <= _MAX_INPUTS:
        raise ValueError(f"times holds {len(times)} inputs; there must be 1 to {_MAX_INPUTS}.")
    end = 1e3 * duration
    if max(times) > duration:
        raise ValueError(f"times reach to {max(times):g} s; the window ends at {duration:g} s.")
    most = max(100.0, 1.2 * float(np.abs(weights).max()))
    controls: dict[str, Any] = {
        "delta_t": step_slider("time step Δt", value=delta_t),
        "rule": choice("rule", list(RULES), rule),
        "tau_syn": slider("τₛ", 2.0, max(300.0, 1e3 * tau_syn), 1e3 * tau_syn, step=1.0, unit="ms"),
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
    n = len(times)

    pair = [replace(first, delta_t=0.0), first]
    picture = Picture(potential_plots(pair, complete=True, width=_WIDTH, heights=_HEIGHTS), share_x=True)
    counts = ipywidgets.HTML()
    dragging = False

    def draw(delta_t: float, rule: str, tau_syn: float, threshold: float, **inputs: float) -> str:
        places = np.array([inputs[f"time_{i}"] for i in range(1, n + 1)])
        strengths = np.array([inputs[f"weight_{i}"] for i in range(1, n + 1)])

        def simulated(delta_t: float, rule: str) -> Neuron:
            return simulate_neuron(
                places / 1e3,
                strengths,
                delta_t=delta_t,
                rule=rule,
                tau_syn=tau_syn / 1e3,
                threshold=threshold,
                duration=duration,
            )

        continuous = simulated(0.0, "drop")
        by_rule = {name: simulated(delta_t, name) for name in RULES} if delta_t else {}
        neurons = [continuous, by_rule.get(rule, continuous)]
        seen = neurons if delta_t else neurons[:1]
        limits = [*potential_limits(seen)[:1], (-1.15 * most, 1.15 * most), potential_limits(neurons)[2]]
        for i, neuron in enumerate(neurons):
            for panel, series in zip(
                picture.panels, potential_columns(neuron, -i, hidden=i > 0 and not delta_t), strict=True
            ):
                for name, columns in series.items():
                    if (name, i) == ("inputs", 0):
                        # In the order of the sliders; a point under the pointer is where it is.
                        columns = {"time": places, "weight": strengths, "computed": places}
                        if dragging:
                            continue
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
        found = [(float(t), float(w)) for t, w in zip(columns["time"], columns["weight"], strict=True)]
        inside = len(found) == n and all(0 <= t <= end and abs(w) <= most for t, w in found)
        wanted: dict[str, float] = {}
        for i, (time, weight) in enumerate(found, 1):
            # Rounded as sliders do, which else would answer with a change of their own.
            wanted |= {
                f"time_{i}": _rounded(np.clip(time, 0, end)),
                f"weight_{i}": _rounded(np.clip(weight, -most, most)),
            }
        if inside and all(explorer.values[name] == value for name, value in wanted.items()):
            return
        # A point that was deleted, or dragged out of the window, is put back.
        dragging = inside
        with explorer.together():
            for name, value in wanted.items() if len(found) == n else ():
                explorer.controls[name].value = value
        dragging = False

    picture.drag_points(picture.panels[1], "inputs_0", moved)
    explorer = Explorer(
        controls,
        draw,
        [picture],
        body=lambda: ipywidgets.VBox([counts, picture.widget]),
        rows=[[name] for name in controls],
        beside=True,
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
    In continuous time the neuron sends 16 spikes; with Δt = 8 ms and rule drop it sends 1. 1 crossing came before
    the neuron's last spike had left and was ignored, without a reset: from 39 ms on the potential stays above the
    threshold to the end, and the neuron is silent.
    """
    sent = f"In continuous time the neuron sends {_count(continuous.spike_count, 'spike')}"
    if continuous.truncated:
        sent += " and then has used up what it may send"
    if on_grid is None:
        return sent + "; each leaves when it is computed."
    step = style.delta_t_label(on_grid.delta_t)
    sent += f"; with Δt = {step} and rule {on_grid.rule} it sends {on_grid.spike_count}."
    if on_grid.rule == "clocked":
        return sent + " The potential is read, and reset, at ticks only, so it is above the threshold when it is reset."
    if on_grid.rule == "graded":
        together = len(on_grid.discretized) - len(np.unique(on_grid.discretized))
        if not together:
            return sent + " No two of them leave on one tick."
        return sent + f" Every crossing resets the neuron and is sent, {together} of them on a tick with another one."
    if on_grid.rule == "defer":
        told = f" {_count(on_grid.deferred, 'spike')} had to wait for a free tick"
        lost = f", and {on_grid.unsent} would have left after the window and {_were(on_grid.unsent)} lost"
        return sent + told + (lost if on_grid.unsent else "") + "."
    if on_grid.rule == "merge":
        n = on_grid.unsent
        if not n:
            return sent + " No crossing met a spike that had not left yet."
        return (
            sent + f" {_count(n, 'crossing')} reset the neuron while its last spike had not left yet, and sent nothing."
        )
    n = len(on_grid.ignored)
    if not n:
        return sent + " No crossing met a spike that had not left yet, so none was ignored."
    told = (
        f" {_count(n, 'crossing')} came before the neuron's last spike had left and {_were(n)} ignored, without a reset"
    )
    if on_grid.silenced_from is None:
        return sent + told + "; then the potential stayed above the threshold until the input pulled it down."
    return (
        sent
        + told
        + (
            f": from {1e3 * on_grid.silenced_from:.0f} ms on the potential stays above the threshold to the end, and "
            "the neuron is silent."
        )
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _were(n: int) -> str:
    return "was" if n == 1 else "were"


def _table(continuous: Neuron, by_rule: dict[str, Neuron], chosen: str) -> str:
    """Lay out what each rule makes of the same inputs; it is the picture's legend as well."""
    columns = {"continuous": continuous, **by_rule}
    sign = f"<span style='color:{style.CONTINUOUS_COLOR}'>●</span> "
    step = (
        f"<span style='color:{style.delta_t_color(next(iter(by_rule.values())).delta_t)}'>●</span> " if by_rule else ""
    )
    lines = [
        ["", *((sign if name == "continuous" else step if name == chosen else "") + name for name in columns)],
        ["spikes sent", *(str(neuron.spike_count) for neuron in columns.values())],
        [
            f"<span style='color:{style.ACCENT_COLOR}'>◆</span> unsent crossings",
            *(str(neuron.unsent + len(neuron.ignored)) for neuron in columns.values()),
        ],
    ]
    rows = []
    for title, *cells in lines:
        bold = ["font-weight:bold;" if name == chosen and by_rule else "" for name in columns]
        row = "".join(f"<td style='padding-left:14px;{b}'>{cell}</td>" for b, cell in zip(bold, cells, strict=True))
        rows.append(f"<tr><td style='text-align:left'>{title}</td>{row}</tr>")
    return f"<table style='line-height:1.5;text-align:right;white-space:nowrap'>{''.join(rows)}</table>"
