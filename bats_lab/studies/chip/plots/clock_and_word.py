"""Time step against word length: what a clock and a weight of few bits cost together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import holoviews as hv
import matplotlib as mpl
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import statistics
from bats_lab.studies.chip.plots.quantities import (
    QUANTITIES,
    measured,
    narrowed,
    rules_of,
    short,
    title_of,
    value_texts,
    word_label,
)

__all__ = ["plot_clock_and_word"]


_CELL = 44
_PALE = 10.0
_X = hv.Dimension("delta_t", label="time step Δt", unit="ms")
_Y = hv.Dimension("bits", label="bits of a weight")
#: Columns of a cell after its corners.
_CELL_COLUMNS = ("value", "std", "runs", "spread", "shown", "step", "word", "darkness", "color")


def plot_clock_and_word(
    deployment: xr.Dataset,
    *,
    quantity: str = "accuracy",
    rule: str | None = None,
    split: str = "test",
    hardware: str = "Loihi",
    pace: str = "real_time",
    title: str = "",
) -> hv.Overlay | hv.Layout:
    """Plot one quantity for every time step and word length, in numbers and in colour.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`bats_lab.studies.chip.deployment.open_deployment` returns it, of one data set.
    quantity : str
        ``accuracy``, ``spikes``, ``synaptic_events``, ``active_share``, ``energy`` or ``decision_time``.
    rule : str or None
        Collision rule; None: one plot for each.
    split : str
        ``test`` or ``validation`` images.
    hardware, pace : str
        For ``energy``, of which there is some under rule ``clocked`` alone: a row of
        :data:`bats_lab.studies.chip.prices.HARDWARE`, and one of :data:`bats_lab.studies.chip.energy.PACES`.
    title : str
        Title above the plots; empty: what is drawn, data set, images and seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Means over the seeds, each with its standard deviation below it, or with both values of two seeds. All plots
        have one scale of colour.

    Raises
    ------
    ValueError
        If a value is not allowed, the deployment has several data sets, or nothing was measured.
    """
    points = narrowed(deployment, split)
    values, axis = measured(points, quantity, hardware=hardware, pace=pace)
    rules = rules_of(points, rule)
    scale = ColorScale.over(values.sel(rule=rules).mean("seed"), good=QUANTITIES[quantity].large_is_good)
    above = title or title_of(points, axis.pprint_label)
    if len(rules) == 1:
        above = title or f"{title_of(points, f'rule {rules[0]}')}\n{axis.pprint_label}"
        return draw_cells(values.sel(rule=rules[0]), axis, scale, title=above)
    plots = [draw_cells(values.sel(rule=name), axis, scale, title=f"rule {name}") for name in rules]
    width, height = _CELL * values.sizes["delta_t"], _row_height(values) * values.sizes["bits"]
    return style.panels(plots, columns=2, title=above, gap=90, width=width, height=height)


@dataclass(frozen=True)
class ColorScale:
    """Which colour a value has, from pale (`low`) to dark (`high`), linear or logarithmic.

    Of accuracies, which are `good` (blue) and not dear (orange), all that are 10 points below the best or more are
    palest, so that a loss of one point can be seen.
    """

    low: float
    high: float
    good: bool

    @classmethod
    def over(cls, values: xr.DataArray, *, good: bool) -> ColorScale:
        """Return the scale for values; what is not finite is passed over."""
        flat = values.values[np.isfinite(values.values)]
        if not flat.size:
            return cls(0.0, 1.0, good)
        low, high = float(flat.min()), float(flat.max())
        return cls(max(low, high - _PALE) if good else low, high, good)

    @property
    def logarithmic(self) -> bool:
        """Whether it is logarithmic, as where values differ by more than a factor of 20."""
        return not self.good and self.low > 0 and self.high / self.low > 20

    def places(self, values: np.ndarray) -> np.ndarray:
        """Return where values are on the scale, from 0 to 1."""
        f = np.log if self.logarithmic else np.asarray
        low, high = float(f(self.low)), float(f(self.high))
        if not high > low:
            return np.full(np.shape(values), 0.5)
        return np.asarray(np.clip((f(values) - low) / (high - low), 0, 1))

    def colors(self, places: np.ndarray) -> list[str]:
        """Return the colours at places."""
        cmap = mpl.colormaps["Blues" if self.good else "Oranges"]
        return [str(mpl.colors.to_hex(cmap(0.05 + 0.8 * place))) for place in places]


def cell_columns(values: xr.DataArray, axis: hv.Dimension, scale: ColorScale) -> dict[str, np.ndarray]:
    """Return what is shown of the cells of one rule, (seed, delta_t, bits): corners, then :data:`_CELL_COLUMNS`."""
    values = values.transpose("delta_t", "bits", "seed").sortby("bits")
    mean, std, runs = statistics(values)
    column, row = np.nonzero(np.isfinite(mean))
    darkness = scale.places(mean[column, row])
    spread = [_spread(v, s) for v, s in zip(values.values[column, row], std[column, row], strict=True)]
    steps, words = values["delta_t"].values, values["bits"].values
    return {
        "x0": column - 0.5,
        "y0": row - 0.5,
        "x1": column + 0.5,
        "y1": row + 0.5,
        "value": mean[column, row],
        "std": std[column, row],
        "runs": runs[column, row],
        "spread": np.array(spread, dtype=object),
        "shown": value_texts(mean[column, row], np.where(runs > 2, std, np.nan)[column, row], axis.unit),
        "step": np.array([style.delta_t_label(steps[i]) for i in column], dtype=object),
        "word": np.array([word_label(words[i]) for i in row], dtype=object),
        "darkness": darkness,
        "color": np.array(scale.colors(darkness), dtype=object),
    }


def _spread(values: np.ndarray, std: float) -> str:
    """Write what the seeds make of a cell's mean: the standard deviation, or both values of two seeds."""
    known = values[np.isfinite(values)]
    if len(known) == 2:
        return "\u2009/\u2009".join(map(short, known))
    return f"±{short(std, digits=1 if std < 0.095 else 2)}" if np.isfinite(std) else ""


def cell_texts(columns: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return the numbers in the cells: ``light`` ones on dark cells, ``dark`` ones, and the ``spread`` below either."""
    spread = columns["spread"] != ""
    x, y = columns["x0"] + 0.5, columns["y0"] + 0.5
    texts = {
        "": (y + 0.14 * spread, [short(v) for v in columns["value"]], np.full(len(y), True)),
        " spread": (y - 0.24, columns["spread"], spread),
    }
    dark_cell = columns["darkness"] > 0.62
    parts = {}
    for part, (height, text, shown) in texts.items():
        for shade, cells in (("light", dark_cell), ("dark", ~dark_cell)):
            which = cells & shown
            parts[shade + part] = {"delta_t": x[which], "bits": height[which], "text": np.array(text, object)[which]}
    return parts


def draw_cells(
    values: xr.DataArray,
    axis: hv.Dimension,
    scale: ColorScale,
    *,
    title: str,
    marks: Sequence[Any] = (),
    cell: int = _CELL,
) -> hv.Overlay:
    """Draw the cells of one rule, (seed, delta_t, bits), as elements of the groups ``cells`` and of :func:`cell_texts`.

    `marks` are drawn above the cells; `cell` is the width of one in pixels of the screen.
    """
    columns = cell_columns(values, axis, scale)
    steps, words = values["delta_t"].values, np.sort(values["bits"].values)
    tooltips = [
        ("Δt", "@step"),
        ("bits", "@word"),
        ("mean over seeds", "@shown"),
        ("seeds", "@runs @spread"),
    ]
    cells = hv.Rectangles(tuple(columns.values()), ["x0", "y0", "x1", "y1"], list(_CELL_COLUMNS), group="cells")
    cells = style.styled(
        cells,
        color="color",
        screen={"line_color": "white", "line_width": 1, "tools": ["hover", "tap"], "hover_tooltips": tooltips}
        | {"nonselection_alpha": 1},
        paper={"edgecolor": "white", "linewidth": 0.8},
    )
    texts = [
        style.text(
            hv.Labels(tuple(part.values()), [_X, _Y], "text", group=name),
            "white" if name.startswith("light") else "#333333",
            small=name.endswith("spread"),
        )
        for name, part in cell_texts(columns).items()
    ]
    ticks = ["0" if step == 0 else style.delta_t_label(step).removesuffix(" ms") for step in steps]
    return style.overlay(
        [cells, *texts, *marks],
        width=cell * len(steps),
        height=_row_height(values) * len(words),
        title=title,
        xlabel=_X.pprint_label,
        ylabel=_Y.pprint_label,
        xticks=list(enumerate(ticks)),
        yticks=[(i, str(word)) for i, word in enumerate(words)],
        xlim=(-0.5, len(steps) - 0.5),
        ylim=(-0.5, len(words) - 0.5),
        grid=False,
    )


def _row_height(values: xr.DataArray) -> int:
    """Return the height of a row of cells: one number or two fit in, and a frame of few has room for its label."""
    return max(34 if values.sizes["seed"] > 1 else 26, 120 // values.sizes["bits"])
