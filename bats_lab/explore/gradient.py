"""A gradient held against a difference quotient: what backpropagation through spikes says, and what is so."""

from __future__ import annotations

import functools
from typing import Any

import ipywidgets
import numpy as np

from bats_lab.explore.picture import Picture
from bats_lab.explore.widgets import Explorer, choice, dot, in_words, slider, step_slider
from bats_lab.network.gradient_check import GradientCheck, Slope
from bats_lab.network.sensitivity import SpikeTimeSweep
from bats_lab.plots import style
from bats_lab.plots.sensitivity import sensitivity_columns, sensitivity_limits, sensitivity_plots
from bats_lab.spikes.rules import RULES, rule_on

__all__ = ["GradientCheck", "describe_slope", "explore_gradient"]

# Rules under which spike times depend on weights by the closed form.
_RULES = [name for name, rule in RULES.items() if not rule.clocked]

#: How far the weight is moved to either side of where it is, and over how many values.
_REACH, _VALUES = 4.0, 241
_PRESETS: dict[str, dict[str, Any]] = {
    "a staircase, and a slope that is not flat": {"delta_t": 0.008, "step": 0.02},
    "a coarser quotient sees the slope": {"delta_t": 0.008, "step": 1.0},
    "both agree without a clock": {"delta_t": 0.0, "step": 0.01},
}
_WIDTH, _HEIGHTS = 460, (250, 120)


@in_words
def explore_gradient(*, delta_t: float = 0.0, rule: str = "graded", step: float = 0.2) -> Explorer:
    """Explore the gradient of a spike time: its curve over a weight, the tangent, and the difference quotient.

    Parameters
    ----------
    delta_t : float
        Time step in seconds; 0 is continuous time.
    rule : str
        Collision rule.
    step : float
        How far the weight is moved to either side for the difference quotient.

    Returns
    -------
    Explorer
        With the controls `delta_t`, `rule`, `connection` (the weight), `change` (how far it is from its value at the
        start) and `step`.
    """
    if rule not in _RULES:
        raise ValueError(f"rule is {rule!r}; it must be one of {', '.join(_RULES)}.")
    if not 0.01 <= step <= 1:
        raise ValueError(f"step is {step}; it must be from 0.01 to 1.")
    connections = [(f"input {i + 1} → hidden {j + 1}", (0, j, i)) for j in range(2) for i in range(3)]
    connections += [(f"hidden {j + 1} → output", (1, 0, j)) for j in range(2)]
    controls: dict[str, Any] = {
        "delta_t": step_slider("time step Δt", value=delta_t),
        "rule": choice("rule", _RULES, rule),
        "connection": choice("weight", connections),
        "change": slider("moved by", -_REACH, _REACH, 0.0, step=0.02),
        "step": slider("step h of the quotient", 0.01, 1.0, step, step=0.01),
    }
    for name in ("delta_t", "change", "step"):
        controls[name].layout.width = "300px"

    @functools.lru_cache(maxsize=64)
    def swept(delta_t: float, rule: str, place: tuple[int, int, int]) -> tuple[GradientCheck, SpikeTimeSweep]:
        layer, post, pre = place
        check = GradientCheck(delta_t=delta_t, rule=rule, layer=layer, post=post, pre=pre)
        return check, check.sweep(np.linspace(check.weight - _REACH, check.weight + _REACH, _VALUES))

    swept(delta_t, rule, connections[0][1])  # a time step that is not allowed is refused here, in words
    check, continuous = swept(0.0, rule, connections[0][1])
    target = check.target
    first = check.slope(check.weight, step)
    size: dict[str, Any] = {"width": _WIDTH, "heights": _HEIGHTS}
    plots = sensitivity_plots(continuous, None, first, delta_t=delta_t, target=target, complete=True, **size)
    picture = Picture(plots, share_x=True, share=0.93)
    legend = ipywidgets.HTML()
    legend.add_class("bats-lab-words")

    def draw(delta_t: float, rule: str, connection: tuple[int, int, int], change: float, step: float) -> str:
        _, continuous = swept(0.0, "drop", connection)
        check, sweep = swept(delta_t, rule_on(rule, delta_t), connection)
        on_grid = sweep if delta_t else None
        slope = check.slope(check.weight + change, step)
        columns_of = sensitivity_columns(continuous, on_grid, slope, target=target)
        limits = sensitivity_limits(continuous, on_grid, target=target)
        for panel, series, ends in zip(picture.panels, columns_of, limits, strict=True):
            for name, columns in series.items():
                panel.set(name, columns)
            for name in ("computed", "sent"):
                if name in panel:
                    panel.paint(name, style.delta_t_color(delta_t))
            panel.x_limits(*style.limits(continuous.weight))
            panel.y_limits(*ends)
        legend.value = _legend(delta_t)
        return describe_slope(slope)

    return Explorer(
        [controls],
        draw,
        [picture],
        body=lambda: ipywidgets.VBox([legend, picture.widget]),
        beside=True,
        presets=_PRESETS,
    )


def describe_slope(slope: Slope) -> str:
    """Say how the derivative by backpropagation and the difference quotient compare.

    Examples
    --------
    >>> check = GradientCheck()
    >>> print(describe_slope(check.slope(check.weight, 0.01)))
    At a weight of 5.00 (ms per unit of weight): -3.532 by backpropagation, -3.532 by the quotient with h = 0.01.
    """
    where = f"At a weight of {slope.weight:.2f}"
    if not np.isfinite(slope.time):
        return f"{where} the output neuron does not spike."
    by_quotient = f"{1e3 * slope.quotient:.3f}" if np.isfinite(slope.quotient) else "unknown (silent on one side)"
    gradient = f"{1e3 * slope.gradient:.3f} by backpropagation"
    return f"{where} (ms per unit of weight): {gradient}, {by_quotient} by the quotient with h = {slope.step:g}."


def _legend(delta_t: float) -> str:
    """Say what the lines of the picture are."""
    step = style.delta_t_color(delta_t)
    entries = [(style.CONTINUOUS_COLOR, "━", "continuous")]
    if delta_t:
        entries += [(step, "━", "computed"), (step, "╍", "sent")]
    entries += [(style.ACCENT_COLOR, "━", "backpropagation"), (style.NEUTRAL_COLOR, "━", "difference quotient")]
    return " &nbsp; ".join(f"<b>{dot(color, sign)}</b> {text}" for color, sign, text in entries)
