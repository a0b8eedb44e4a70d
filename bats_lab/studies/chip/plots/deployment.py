"""The same trained networks on clocks: what becomes of them over the time step, under each collision rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import over_delta_t, statistics
from bats_lab.studies.chip.plots.quantities import measured, narrowed, rules_of, title_of, with_word, word_text
from bats_lab.studies.chip.quantization import TRAINED

__all__ = ["plot_deployment"]

_WIDTH, _HEIGHT = 330, 240


def plot_deployment(
    deployment: xr.Dataset,
    *,
    quantity: str | Sequence[str] = "accuracy",
    bits: int | Sequence[int] = TRAINED,
    rules: Sequence[str] | None = None,
    split: str = "test",
    hardware: str = "Loihi",
    pace: str = "real_time",
    top: float | None = None,
    title: str = "",
) -> hv.Overlay | hv.Layout:
    """Plot what becomes of the same trained networks over the time step, one curve a collision rule.

    Further parameters and errors are those of :func:`bats_lab.chip.plot_clock_and_word`.

    Parameters
    ----------
    quantity, bits : sequence
        What is drawn, and word lengths of the weights; several stand beside each other.
    rules : sequence of str or None
        Collision rules; None: all.
    top : float or None
        For ``accuracy``: draw it once more, from so many points below the highest value on, so that small losses are
        seen beside a collapse.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Mean over seeds with a band of ±1 standard deviation; of two seeds, each is a dot.
    """
    whole = narrowed(deployment, split)
    shown = [name for given in (rules_of(whole) if rules is None else rules) for name in rules_of(whole, given)]
    quantities = [quantity] if isinstance(quantity, str) else list(quantity)
    words = [bits] if isinstance(bits, int) else list(bits)
    if not (shown and quantities and words):
        raise ValueError("rules, quantity and bits must each name at least one.")
    panels = [
        (word, name, reach)
        for word in words
        for name in quantities
        for reach in ((None, top) if name == "accuracy" and top is not None else (None,))
    ]
    plots = []
    for i, (word, name, reach) in enumerate(panels):
        values, axis = measured(with_word(whole, word), name, hardware=hardware, pace=pace)
        values = values.sel(rule=shown)
        options: dict[str, Any] = {} if reach is None else {"ylim": _below(values, reach)}
        plots.append(
            over_delta_t(
                {rule: values.sel(rule=rule).transpose("delta_t", "seed") for rule in shown},
                axis,
                title=word_text(word) + ("" if reach is None else f", the upper {reach:g} points"),
                show_legend=i == len(panels) - 1,
                width=_WIDTH,
                height=_HEIGHT,
                **options,
            )
        )
    return style.panels(plots, columns=3, title=title or title_of(whole), width=_WIDTH, height=_HEIGHT, gap=90)


def _below(values: xr.DataArray, reach: float) -> tuple[float, float]:
    """Return the ends of an axis from so far below the highest mean, so that its line is seen however wide its band."""
    mean, std, _ = statistics(values)
    best = np.unravel_index(np.nanargmax(mean), mean.shape)
    highest = float(mean[best])
    return style.limits(highest - reach, highest + min(float(np.nan_to_num(std[best])), reach / 4))
