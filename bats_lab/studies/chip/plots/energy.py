"""What an inference costs on a clock: neurons updated on events, and on every tick."""

from __future__ import annotations

import math
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import over_delta_t
from bats_lab.studies.chip.deploy import deployment_costs
from bats_lab.studies.chip.plots.quantities import (
    TRAINED,
    UPDATES,
    energies,
    hardware_of,
    narrowed,
    rules_of,
    short,
    title_of,
    with_word,
    word_text,
)

__all__ = ["plot_energy"]

#: The hardware of the dense network's multiply-adds.
_CMOS = "45 nm CMOS"


def plot_energy(
    deployment: xr.Dataset,
    *,
    hardware: str = "Loihi",
    rule: str | None = None,
    bits: int = TRAINED,
    split: str = "test",
    title: str = "",
) -> hv.Overlay | hv.Layout:
    """Plot what an inference costs against the time step: neurons updated on events, and on every tick of the clock.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`bats_lab.studies.chip.deploy.open_deployment` returns it, of one data set.
    hardware : str
        A row of `energy.HARDWARE`. Where no joules are published, effective synaptic operations are
        drawn.
    rule : str or None
        Collision rule; None: one plot for each.
    bits : int
        Word length of the weights.
    split : str
        ``test`` or ``validation`` images.
    title : str
        Title above the plots; empty: data set, word length, images and seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Mean over seeds with a band of ±1 standard deviation, on a logarithmic axis. On 45 nm CMOS a line marks the
        multiply-adds of a dense network of the same shape, the only other thing that is known there.

    Raises
    ------
    ValueError
        If a value is not allowed, the deployment has several data sets, or nothing was measured.

    Notes
    -----
    The two curves cross where there are as many synaptic events as (neuron, tick) pairs; see
    :func:`bats_lab.studies.chip.energy.energy`.
    """
    here = with_word(narrowed(deployment, split), bits)
    costs = deployment_costs(here, hardware={hardware: hardware_of(hardware)})
    both, axis = energies(here, hardware, costs)
    rules = rules_of(here, rule)
    marks, levels = [], [both[name].sel(rule=rules).values for name in UPDATES]
    if hardware == _CMOS:
        dense = 1e6 * float(costs["dense"].mean())
        marks = _dense_line(dense, here["delta_t"].values, axis)
        levels.append(np.array([dense]))
    alone, limits = len(rules) == 1, style.log_limits(*levels)
    above = title or title_of(here, hardware, word_text(bits))
    axis = axis.clone(label=axis.label.removesuffix(f", {hardware}"))
    plots = [
        over_delta_t(
            {text: both[name].sel(rule=each).transpose("delta_t", "seed") for name, text in UPDATES.items()},
            axis,
            title=f"{above}\nrule {each}" if alone else f"rule {each}",
            legend_title="updates",
            show_legend=i == min(2, len(rules) - 1),  # in the first row
            marks=marks,
            logy=True,
            ylim=limits,
            yticks=style.log_ticks(*limits),
            **({} if alone else {"width": 240, "height": 220}),
        )
        for i, each in enumerate(rules)
    ]
    return plots[0] if alone else style.panels(plots, columns=3, title=above, width=240, height=220, gap=90)


def _dense_line(dense: float, steps: np.ndarray, axis: hv.Dimension) -> list[Any]:
    """Draw the level of the dense network and what it is."""
    ends = style.DeltaTAxis.over(steps).limits
    x, y = hv.Dimension("delta_t", label="time step Δt", unit="ms"), hv.Dimension("level")
    level = style.line(hv.Curve((ends, (dense, dense)), x, y), style.ACCENT_COLOR, series=1, width=0.7)
    words = hv.Labels(
        ([math.sqrt(ends[0] * ends[1])], [dense * 1.06], [f"dense network: {short(dense)} µJ"]), [x, y], "text"
    )
    words = style.text(words, style.ACCENT_COLOR)
    return [level, style.styled(words, screen={"text_baseline": "bottom"}, paper={"verticalalignment": "bottom"})]
