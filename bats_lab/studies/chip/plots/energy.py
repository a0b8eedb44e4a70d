"""What an inference costs on a clock: neurons updated on events, and on every tick."""

from __future__ import annotations

import math
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.studies.chip.energy import deployment_costs
from bats_lab.studies.chip.plots.quantities import (
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
from bats_lab.studies.chip.quantization import TRAINED
from bats_lab.studies.panels import DELTA_T, level, panels_over_delta_t

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

    Parameters and errors are those of :func:`bats_lab.chip.plot_clock_and_word`, and `bits`, the word length. Where no
    joules are published, effective synaptic operations are drawn.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Mean over seeds with a band of ±1 standard deviation, on a logarithmic axis. On 45 nm CMOS a line marks the
        multiply-adds of a dense network of the same shape, the only other thing that is known there.

    Notes
    -----
    The two curves cross where there are as many synaptic events as (neuron, tick) pairs; see
    :func:`bats_lab.studies.chip.energy.energy`.
    """
    points = with_word(narrowed(deployment, split), bits)
    costs = deployment_costs(points, hardware={hardware: hardware_of(hardware)})
    both, axis = energies(points, hardware, costs)
    rules = rules_of(points, rule)
    marks, levels = [], [both[name].sel(rule=rules).values for name in UPDATES]
    if hardware == _CMOS:
        dense = 1e6 * float(costs["dense"].mean())
        marks = _dense_line(dense, points["delta_t"].values)
        levels.append(np.array([dense]))
    limits = style.log_limits(*levels)
    above = title or title_of(points, hardware, word_text(bits))
    alone = f"{above}\n" if len(rules) == 1 else ""
    return panels_over_delta_t(
        {
            f"{alone}rule {each}": {
                text: both[name].sel(rule=each).transpose("delta_t", "seed") for name, text in UPDATES.items()
            }
            for each in rules
        },
        axis.clone(label=axis.label.removesuffix(f", {hardware}")),
        title="" if alone else above,
        columns=3,
        legend_at=min(2, len(rules) - 1),  # in the first row
        size=(400, 280) if alone else (240, 220),
        gap=90,
        legend_title="updates",
        marks=marks,
        logy=True,
        ylim=limits,
        yticks=style.log_ticks(*limits),
    )


def _dense_line(dense: float, steps: np.ndarray) -> list[Any]:
    """Draw the level of the dense network and what it is."""
    low, high = style.DeltaTAxis.over(steps).limits
    text = ([math.sqrt(low * high)], [dense * 1.06], [f"dense network: {short(dense)} µJ"])
    words = style.text(hv.Labels(text, [DELTA_T, hv.Dimension("level")], "text"), style.ACCENT_COLOR)
    words = style.styled(words, screen={"text_baseline": "bottom"}, paper={"verticalalignment": "bottom"})
    return [level(dense, steps, width=0.7), words]
