"""What an inference costs on a clock: with and without leakage, and what it is charged for."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import over_delta_t
from bats_lab.studies.chip.energy import PACES, TERMS, deployment_costs
from bats_lab.studies.chip.plots.quantities import (
    energies,
    hardware_of,
    narrowed,
    rules_of,
    short,
    title_of,
    with_word,
    word_text,
)
from bats_lab.studies.chip.prices import Hardware
from bats_lab.studies.chip.quantization import TRAINED
from bats_lab.studies.panels import DELTA_T, level

__all__ = ["plot_energy"]

#: The hardware of the dense network's multiply-adds.
_CMOS = "45 nm CMOS"
_WIDTH, _HEIGHT = 400, 280


def plot_energy(
    deployment: xr.Dataset,
    *,
    hardware: str = "Loihi",
    bits: int | None = None,
    split: str = "test",
    title: str = "",
) -> hv.Overlay | hv.Layout:
    """Plot what an inference under rule ``clocked`` costs against the time step, and what it is charged for.

    Parameters and errors are those of :func:`bats_lab.chip.plot_clock_and_word`, and `bits`, the word length; None: the
    longest that the hardware has. Where no joules are published, effective synaptic operations are drawn.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Mean over seeds with a band of ±1 standard deviation, on a logarithmic axis: the sums of
        :data:`bats_lab.studies.chip.energy.PACES`, and the :data:`bats_lab.studies.chip.energy.TERMS` that they have in
        common. On 45 nm CMOS a line marks a dense network of the same shape and words, without leakage.
    """
    whole = narrowed(deployment, split)
    chosen = hardware_of(hardware)
    rules_of(whole, "clocked")  # which refuses a deployment without it
    points = with_word(whole, _longest(whole, chosen) if bits is None else bits).sel(rule=["clocked"])
    costs = deployment_costs(points, hardware={hardware: chosen})
    spent, axis = energies(points, hardware, costs)
    spent = spent.squeeze("rule").transpose("delta_t", "seed", ...)
    spent = spent.sel(delta_t=spent["delta_t"] > 0)
    axis = axis.clone(label=axis.label.removesuffix(f", {hardware}"))
    known = {text: spent[name] for name, text in PACES.items() if bool(spent[name].notnull().any())}
    if not known:
        raise ValueError(f"{hardware} has no {word_text(int(points['bits']))}; it must have {chosen.max_bits} at most.")
    above = title or title_of(points, hardware, word_text(int(points["bits"])))
    if not chosen.published:
        return _panel({"": spent["dynamic"]}, axis, title=f"{above}\nrule clocked")
    terms = {text: spent[name] for name, text in TERMS.items() if bool((spent[name] > 0).any())}
    marks = _dense_line(1e6 * float(costs["dense"].mean()), points["delta_t"].values) if hardware == _CMOS else []
    plots = [
        _panel(known, axis, title="rule clocked", marks=marks, legend_title="sum"),
        _panel(terms, axis, title="what is in all sums", legend_title="charged for"),
    ]
    return style.panels(plots, columns=1, title=above, width=_WIDTH, height=_HEIGHT, gap=90)


def _longest(points: xr.Dataset, hardware: Hardware) -> int:
    words = [word for word in points["bits"].values.tolist() if word <= hardware.max_bits or hardware.as_trained]
    return max((word for word in words if word != TRAINED), default=TRAINED)


def _panel(series: dict[str, xr.DataArray], y: hv.Dimension, *, title: str, **options: Any) -> hv.Overlay:
    limits = style.log_limits(*(values.values for values in series.values()), *_levels(options.get("marks", ())))
    ticks = style.log_ticks(*limits)
    return over_delta_t(
        series, y, title=title, logy=True, ylim=limits, yticks=ticks, width=_WIDTH, height=_HEIGHT, **options
    )


def _levels(marks: Any) -> list[np.ndarray]:
    return [np.asarray(mark.dimension_values(1), float) for mark in marks if isinstance(mark, hv.Curve)]


def _dense_line(dense: float, steps: np.ndarray) -> list[Any]:
    """Draw the level of the dense network and what it is."""
    low, high = style.DeltaTAxis.over(steps).limits
    place = high / (high / low) ** 0.02
    text = ([place], [dense * 1.06], [f"dense network, without leakage: {short(dense)} µJ"])
    words = style.text(hv.Labels(text, [DELTA_T, hv.Dimension("level")], "text"), style.ACCENT_COLOR, align="right")
    words = style.styled(words, screen={"text_baseline": "bottom"}, paper={"verticalalignment": "bottom"})
    return [level(dense, steps, width=0.7), words]
