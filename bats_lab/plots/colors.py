"""Which colour, marker and dash stands for what: time steps, collision rules, and other series."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np

from bats_lab.spikes.estimators import ESTIMATORS
from bats_lab.spikes.rules import RULES

__all__ = [
    "ACCENT_COLOR",
    "BOKEH_DASHES",
    "BOKEH_MARKERS",
    "CONTINUOUS_COLOR",
    "DASHES",
    "MARKERS",
    "NEUTRAL_COLOR",
    "SERIES_COLORS",
    "delta_t_color",
    "series_of",
]

#: Colour of continuous time, the limit that the scale of time steps starts from.
CONTINUOUS_COLOR = "#1a1a1a"
#: Lines that stand for no time step: means over time steps, fronts, references.
NEUTRAL_COLOR = "#7f7f7f"
#: What a plot points out: the Pareto front, the true label. Not on the scale of time steps.
ACCENT_COLOR = "#c8102e"

#: Markers, dashes and colours (after Okabe and Ito) that tell series apart, in this order: that of the table of rules.
MARKERS = ("o", "s", "^", "d", "v")
#: The same markers by Bokeh's own names: of others its legends leave out how they are turned.
BOKEH_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle")
DASHES: tuple[Any, ...] = ("solid", "dashed", "dotted", "dashdot", (0, (8, 2, 2, 2, 2, 2)))
BOKEH_DASHES = ("solid", "dashed", "dotted", "dashdot", (8, 2, 2, 2, 2, 2))
SERIES_COLORS = ("#d55e00", "#b6569a", "#009e73", "#0072b2", "#8c7300")

#: Time steps in ms and their colours; those between are mixed, along the logarithm.
_STEPS = {
    0.25: "#35064f",
    0.5: "#45127a",
    1: "#5b35b0",
    2: "#4560d2",
    4: "#2b93d6",
    6: "#00a08a",
    8: "#4c8a14",
    10: "#cfa300",
    12: "#d9660f",
    15: "#a8500f",
    20: "#7a3408",
    30: "#4d1d02",
}


def delta_t_color(delta_t: float) -> str:
    r"""Return the colour of a time step: the same in every plot, whatever else is drawn.

    The scale goes from violet over blue, green and ochre to brown, and is spread where time steps matter here (0.5 to
    15 ms): neighbours differ clearly, to colour-blind readers as well, and all stand out from white. Continuous time is
    almost black.

    Parameters
    ----------
    delta_t : float
        Time step in seconds, 0 for continuous time.

    Returns
    -------
    str
        Colour as ``#rrggbb``.

    Examples
    --------
    >>> delta_t_color(0.0), delta_t_color(0.004)
    ('#1a1a1a', '#2b93d6')
    """
    if delta_t == 0:
        return CONTINUOUS_COLOR
    place, places = math.log(1e3 * delta_t), np.log(list(_STEPS))
    channels = np.array([mpl.colors.to_rgb(color) for color in _STEPS.values()]).T
    red, green, blue = (float(np.interp(place, places, channel)) for channel in channels)
    return str(mpl.colors.to_hex((red, green, blue)))


def series_of(label: str, i: int) -> int:
    """Return which series stands for a label, the `i`-th of a plot: of a rule or an estimator always the same.

    Examples
    --------
    >>> series_of("graded", 0), series_of("until 80 ms", 1)
    (3, 1)
    """
    return next((list(table).index(label) for table in (RULES, ESTIMATORS) if label in table), i)
