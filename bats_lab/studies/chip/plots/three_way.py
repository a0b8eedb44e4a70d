"""Accuracy, energy and time to decision of every clock, word length and rule, and which of them nothing beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import holoviews as hv
import matplotlib as mpl
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.runs import check_choice
from bats_lab.runs.metrics import pareto_front
from bats_lab.spikes.rules import RULES
from bats_lab.studies.chip.plots.quantities import (
    measured,
    narrowed,
    not_priced,
    rules_of,
    title_of,
    value_texts,
    word_label,
)

__all__ = ["plot_three_way"]


_POINT_COLUMNS = (
    *("accuracy", "std", "test", "decision_time", "shown", "cost", "step", "word", "rule", "color"),
    "point",
)
#: Points that differ by less are one on the front: points of accuracy, fraction of the energy, and ms.
EQUAL = {"accuracy": 0.1, "energy": 0.01, "decision_time": 1.0}
#: Colours of decision times: early is dark. Not the scale of time steps.
_TIME_COLORS, _TIME_END = "plasma", 0.88


def plot_three_way(
    deployment: xr.Dataset,
    *,
    hardware: str = "Loihi",
    pace: str = "real_time",
    split: str = "test",
    top: float = 10.0,
    title: str = "",
) -> hv.Overlay:
    """Plot accuracy, energy and time to decision of every clock, word length and rule, and which of them nothing beats.

    Parameters and errors are those of :func:`bats_lab.chip.plot_clock_and_word`, and `top`: how many points of accuracy
    below the best the axis reaches; the title tells how many points are below it.

    Returns
    -------
    holoviews.Overlay
        One point a time step, word length and rule that has an energy, mean over seeds: energy (logarithmic; effective
        synaptic operations where no joules are published) against accuracy, colour for the time to decision, marker for
        the rule. Ringed are the points of the Pareto front of the three, with bars of ±1 standard deviation of accuracy
        over three seeds or more. Of points that are equal to 0.1 points of accuracy, 1 % of energy and 1 ms one stands
        on the front, that of the shortest word and the coarsest clock.
    """
    points = narrowed(deployment)
    check_choice("split", split, tuple(map(str, points["split"].values)))
    table, axis = three_way_table(points, hardware=hardware, pace=pace, split=split)
    if not len(table["energy"]):
        reason = not_priced(hardware, pace) or "Only rule clocked has a price, on a clock."
        raise ValueError(f"No point has an accuracy, an energy and a time to decision. {reason}")
    above = title or "\n".join([title_of(points.sel(split=split)), three_way_note(table, top)])
    return draw_three_way(table, axis, title=above, split=split, top=top)


def three_way_table(
    points: xr.Dataset, *, hardware: str, pace: str, split: str, costs: xr.Dataset | None = None
) -> tuple[dict[str, np.ndarray], hv.Dimension]:
    """List the points, their accuracy (%), energy and time to decision (ms); and the axis of energy.

    Beside ``energy`` and :data:`_POINT_COLUMNS` there are ``delta_t``, ``bits`` and ``front``, whether a point
    stands on the Pareto front.
    """
    energy, axis = measured(points, "energy", hardware=hardware, pace=pace, costs=costs)
    accuracy = 100 * points["accuracy"]
    columns = xr.Dataset(
        {
            "energy": energy.sel(split=split, drop=True).mean("seed"),
            "accuracy": accuracy.sel(split=split, drop=True).mean("seed"),
            "std": accuracy.sel(split=split, drop=True).std("seed", ddof=1) if points.sizes["seed"] > 2 else math.nan,
            "test": accuracy.sel(split="test" if "test" in points["split"].values else split, drop=True).mean("seed"),
            "decision_time": 1e3 * points["decision_time"].sel(split=split, drop=True).mean("seed"),
        }
    ).reset_coords(drop=True)
    columns = columns.broadcast_like(columns["accuracy"])
    flat = columns.sel(rule=rules_of(points)).stack(point=("rule", "delta_t", "bits"))
    known = np.isfinite([flat[name].values for name in ("energy", "accuracy", "decision_time")]).all(axis=0)
    # In continuous time all rules are one: the first stands for all.
    exact = flat["delta_t"].values == 0
    known &= ~exact | (flat["rule"].values == flat["rule"].values[exact][0] if exact.any() else False)
    flat = flat.isel(point=np.flatnonzero(known))
    table: dict[str, np.ndarray] = {str(name): flat[name].values for name in columns.data_vars}
    table |= {name: flat[name].values for name in ("rule", "delta_t", "bits")}
    front = np.zeros(len(table["delta_t"]), bool)
    front[_front_of(table)] = True
    low, high = _ends(table["decision_time"])
    colors = _time_colors((table["decision_time"] - low) / (high - low))
    shown = value_texts(table["accuracy"], table["std"], f"% of {split} images")
    return table | {
        "front": front,
        "shown": shown,
        "cost": value_texts(table["energy"], np.full(len(front), np.nan), axis.unit or "effective operations"),
        "step": np.array([style.delta_t_label(v) for v in table["delta_t"]], dtype=object),
        "word": np.array([word_label(v) for v in table["bits"]], dtype=object),
        "color": colors,
        "point": np.arange(len(front)),
    }, axis


def _front_of(table: dict[str, np.ndarray]) -> np.ndarray:
    """Return the places of the points of the front, by rising energy."""
    levels = np.stack(
        [
            np.rint(np.log(table["energy"]) / np.log1p(EQUAL["energy"])),
            np.rint(table["decision_time"] / EQUAL["decision_time"]),
            np.rint(table["accuracy"] / EQUAL["accuracy"]),
        ],
        axis=1,
    )
    rule = np.array([list(RULES).index(name) for name in table["rule"]], dtype=int)
    simplest_first = np.lexsort((rule, -table["delta_t"], table["bits"]))
    on_clock = simplest_first[table["delta_t"][simplest_first] > 0]
    alone = on_clock[np.unique(levels[on_clock], axis=0, return_index=True)[1]]
    return np.asarray(alone[pareto_front(levels[alone, :2], levels[alone, 2])])


def point_columns(table: dict[str, np.ndarray], which: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of some points."""
    return {name: table[name][which] for name in ("energy", *_POINT_COLUMNS)}


def series_of(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return which points belong to each series: one for each rule, and continuous time."""
    clock = table["delta_t"] > 0
    return {rule: clock & (table["rule"] == rule) for rule in RULES} | {"continuous time": ~clock}


def three_way_note(table: dict[str, np.ndarray], top: float) -> str:
    """Tell how many points there are, on the front and below the axis."""
    below = int((table["accuracy"] < table["accuracy"].max(initial=0.0) - top).sum())
    note = f"{len(table['front'])} points, {table['front'].sum()} on the front of accuracy, energy and time"
    return f"{note}; {below} below the axis" if below else note


def three_way_limits(table: dict[str, np.ndarray], top: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of both axes."""
    if not len(table["energy"]):
        return (1.0, 10.0), (0.0, 100.0)
    best = float(table["accuracy"].max())
    lowest = max(best - top, float(table["accuracy"].min()))
    return style.log_limits(table["energy"], least=0.003), style.limits(lowest, best + 0.5)


def time_legend(table: dict[str, np.ndarray]) -> list[tuple[float, str]]:
    """Return four decision times (ms) and their colours, from the earliest to the latest."""
    places = np.linspace(0, 1, 4)
    low, high = _ends(table["decision_time"])
    return list(zip((low + places * (high - low)).tolist(), _time_colors(places), strict=True))


def _ends(times: np.ndarray) -> tuple[float, float]:
    """Return the ends of the scale of decision times, at least 3 ms apart."""
    low = float(times.min()) if times.size else 0.0
    return low, max(float(times.max()) if times.size else 0.0, low + 3)


def _time_colors(places: np.ndarray) -> np.ndarray:
    cmap = mpl.colormaps[_TIME_COLORS]
    return np.array([str(mpl.colors.to_hex(cmap(_TIME_END * place))) for place in places], dtype=object)


def draw_three_way(
    table: dict[str, np.ndarray],
    axis: hv.Dimension,
    *,
    title: str,
    split: str,
    top: float = 10.0,
    marks: Sequence[Any] = (),
    every_rule: bool = False,
    **both: Any,
) -> hv.Overlay:
    """Draw the points of :func:`three_way_table`, in groups ``rule …``, ``front`` and ``spread``.

    `marks` are drawn above the points. With `every_rule`, rules without a point are there too: an explorer fills them
    later. Further keywords are options of the overlay.
    """
    y = hv.Dimension("accuracy", label=f"{split} accuracy", unit="%")
    tooltips = [
        ("Δt", "@step"),
        ("bits", "@word"),
        ("rule", "@rule"),
        ("accuracy, mean ± std", "@shown"),
        ("test accuracy", "@test{0.00} %"),
        ("energy", "@cost"),
        ("time to decision", "@decision_time{0.0} ms"),
    ]
    elements, legend = [], []
    for i, (name, which) in enumerate(series_of(table).items()):
        if not (which.any() or every_rule):
            continue
        exact = name == "continuous time"
        columns = point_columns(table, which)
        scatter = hv.Scatter(columns, axis, [y, *_POINT_COLUMNS[1:]], group=f"rule {name}")
        color = style.CONTINUOUS_COLOR if exact else "color"
        scatter = style.points(scatter, color, series=0 if exact else i, size=1.1, tooltips=tooltips)
        elements.append(style.styled(scatter, screen={"tools": ["hover", "tap"], "nonselection_alpha": 1}, paper={}))
        entry_color = style.CONTINUOUS_COLOR if exact else style.NEUTRAL_COLOR
        legend.append(style.LegendEntry(name, entry_color, marker=0 if exact else i))
    legend += [style.LegendEntry(f"{t:.0f} ms", color, marker=0) for t, color in time_legend(table)]
    for i, entry in enumerate(legend):
        nowhere = hv.Scatter(([np.nan], [np.nan]), axis, y, label=entry.label, group=f"legend {i}")
        elements.append(style.points(nowhere, entry.color, series=entry.marker or 0, size=1.1))
    legend.append(_Ring("Pareto front", style.ACCENT_COLOR, marker=0))
    elements += _front(table, axis, y, top)
    x_limits, y_limits = three_way_limits(table, top)
    options: dict[str, Any] = {
        "width": 560,
        "height": 400,
        "xlim": x_limits,
        "ylim": y_limits,
        "logx": True,
        "xticks": style.log_ticks(*x_limits),
    }
    return style.overlay(
        [*elements, *marks],
        legend=legend,
        legend_title="rule, time to decision",
        title=title,
        xlabel=axis.pprint_label,
        ylabel=y.pprint_label,
        **options | both,
    )


def front_columns(table: dict[str, np.ndarray], top: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the rings of the front that are on the axis, and the lines of ±1 standard deviation through them."""
    front = table["front"] & (table["accuracy"] >= table["accuracy"].max(initial=0.0) - top)
    x, y, std = table["energy"][front], table["accuracy"][front], np.nan_to_num(table["std"][front])
    return {"energy": x, "accuracy": y}, {"x0": x, "y0": y - std, "x1": x, "y1": y + std}


def _front(table: dict[str, np.ndarray], x: hv.Dimension, y: hv.Dimension, top: float) -> list[Any]:
    rings, spread = front_columns(table, top)
    lines = hv.Segments(tuple(spread.values()), ["x0", "y0", "x1", "y1"], group="spread")
    lines = style.styled(
        lines, color=style.ACCENT_COLOR, alpha=0.35, screen={"line_width": 1}, paper={"linewidth": 0.8}
    )
    return [lines, style.ring(hv.Scatter(tuple(rings.values()), x, y, group="front", label="Pareto front"), size=11)]


class _Ring(style.LegendEntry):
    """A legend's entry that is hollow."""

    def handle(self) -> mpl.lines.Line2D:
        drawn = super().handle()
        drawn.set(markerfacecolor="none", markeredgecolor=self.color, markersize=7, markeredgewidth=1.2)
        return drawn
