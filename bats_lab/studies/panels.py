"""The pattern of most plots of a study: a quantity over the time step, a panel for each rule, word or the like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import holoviews as hv
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import common_limits, over_delta_t
from bats_lab.spikes.rules import RULES

__all__ = ["drawn_rules", "level", "panels_over_delta_t"]

#: The axis of time steps, as :func:`bats_lab.plots.curves.over_delta_t` has it.
DELTA_T = hv.Dimension("delta_t", label="time step Δt", unit="ms")


def drawn_rules(values: xr.Dataset | xr.DataArray) -> list[str]:
    """Return the collision rules there are, in the order of the table; files have them in that of the alphabet."""
    return [rule for rule in RULES if rule in values["rule"].values]


def level(y: float, steps: Iterable[float], *, width: float = 0.6) -> Any:
    """Draw a horizontal line at a value, all along the axis of these time steps (s)."""
    ends = style.DeltaTAxis.over(steps).limits
    line = hv.Curve((ends, (y, y)), DELTA_T, hv.Dimension("level"))
    return style.line(line, style.ACCENT_COLOR, series=1, width=width)


def panels_over_delta_t(
    panels: Mapping[str, Mapping[str, xr.DataArray]],
    y: hv.Dimension | Mapping[str, hv.Dimension],
    *,
    title: str = "",
    columns: int = 0,
    legend_at: int = -1,
    size: tuple[int, int] = (320, 240),
    gap: int = 80,
    **both: Any,
) -> hv.Overlay | hv.Layout:
    """Draw means over seeds against the time step, one panel for each of several groups of series.

    Parameters
    ----------
    panels : mapping of str to mapping of str to DataArray, (delta_t, seed)
        Title of each panel, and its series by their labels.
    y : holoviews.Dimension, or mapping of str to holoviews.Dimension
        Name, label and unit of the values, of all panels or by their titles. Panels of one quantity share the axis.
    title : str
        Title above the panels.
    columns, gap, size : int, int, (int, int)
        Panels in a row (0: all), height between rows, and width and height of a panel.
    legend_at : int
        Which panel has the legend.
    **both
        Options of all of them, as `legend_title` and `marks`.
    """
    if isinstance(y, hv.Dimension) and "ylim" not in both:
        values = [v.drop_vars(set(v.coords) - set(v.dims)) for series in panels.values() for v in series.values()]
        both |= common_limits(xr.concat(values, "series", join="outer"))
    names: Sequence[str] = list(panels)
    plots = [
        over_delta_t(
            series,
            y if isinstance(y, hv.Dimension) else y[name],
            title=name,
            show_legend=name == names[legend_at],
            **{"width": size[0], "height": size[1]} | both,
        )
        for name, series in panels.items()
    ]
    return style.panels(plots, columns=columns or len(plots), title=title, width=size[0], height=size[1], gap=gap)
