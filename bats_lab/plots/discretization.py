"""The discretization function: when a spike leaves, over when it was computed."""

from __future__ import annotations

from collections.abc import Sequence

import holoviews as hv
import numpy as np

from bats_lab.plots import style
from bats_lab.spikes.grid import discretize

__all__ = ["plot_discretization"]


def plot_discretization(
    delta_t: float | Sequence[float], *, until: float | None = None, title: str | None = None
) -> hv.Overlay:
    r"""Plot the time at which a spike is sent over the time at which it is computed.

    .. math:: d(t) = t + (\Delta t - t \bmod \Delta t)

    Parameters
    ----------
    delta_t : float or sequence of float
        Time steps in seconds, above 0.
    until : float or None
        End of the time axis in seconds; None: five of the largest time step.
    title : str or None
        Title; None: the formula.

    Returns
    -------
    holoviews.Overlay
        A staircase a time step, in ms. A filled end belongs to its stair, an empty one does not: a time on the grid
        moves a full step. The dashed diagonal is continuous time.

    Raises
    ------
    ValueError
        If a time step or `until` is not above 0, or if the stairs were too many to be seen.

    Notes
    -----
    Thesis eq. 14 and Fig. 16.
    """
    steps = sorted({float(v) for v in np.atleast_1d(np.asarray(delta_t, dtype=float))})
    if not steps or not all(np.isfinite(v) and v > 0 for v in steps):
        raise ValueError(f"delta_t is {delta_t!r}; it must be one or more numbers above 0, in seconds.")
    end = 5 * steps[-1] if until is None else float(until)
    if not end > 0:
        raise ValueError(f"until is {until!r}; it must be above 0.")
    if end / steps[0] > 500:
        raise ValueError(f"until is {end:g} s, which is {end / steps[0]:.0f} time steps; at most 500 can be seen.")
    x = hv.Dimension("time", label="time t of the crossing", unit="ms")
    y = hv.Dimension("sent", label="time d(t) of the spike", unit="ms")
    diagonal = hv.Curve(([0, 1e3 * end], [0, 1e3 * end]), x, y, label="continuous")
    elements = [style.line(diagonal, style.CONTINUOUS_COLOR, series=1, width=0.7)]
    legend = [style.LegendEntry("continuous", style.CONTINUOUS_COLOR, line=1)]
    for step in steps:
        color, label = style.delta_t_color(step), style.delta_t_label(step)
        starts = step * np.arange(int(np.ceil(end / step - 1e-9)))
        ends = np.minimum(starts + step, end)
        sent = discretize(starts, step)
        # A gap after each stair: three points a stair, the last of them NaN.
        stair_x = 1e3 * np.stack([starts, ends, np.full(len(starts), np.nan)], axis=1).ravel()
        stair_y = 1e3 * np.stack([sent, sent, np.full(len(starts), np.nan)], axis=1).ravel()
        elements.append(style.line(hv.Curve((stair_x, stair_y), x, y, label=label), color))
        whole = np.isclose(ends, starts + step)
        open_ends = hv.Scatter((1e3 * ends[whole], 1e3 * sent[whole]), x, y)
        elements.append(
            style.styled(
                open_ends,
                marker="o",
                screen={"size": 6, "fill_color": "white", "line_color": color, "line_width": 1.5},
                paper={"s": 18, "facecolors": "white", "edgecolors": color, "linewidth": 1.1},
            )
        )
        elements.append(style.points(hv.Scatter((1e3 * starts, 1e3 * sent), x, y), color))
        legend.append(style.LegendEntry(label, color, line=0))
    return style.overlay(
        elements,
        width=340,
        height=340,
        legend=legend,
        legend_title="Δt",
        title="d(t) = t + (Δt − t mod Δt)" if title is None else title,
        axes=(x, y),
        xlim=style.limits([0, 1e3 * end]),
        ylim=style.limits([0, 1e3 * (end + steps[-1])]),
    )
