"""The plane of accuracy against what it costs, with its Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.measures import MEASURES
from bats_lab.plots.runs import after_epoch, check_choice, layers_of, runs_title, runs_to_draw
from bats_lab.runs.metrics import hypervolume, pareto_front

__all__ = ["plot_tradeoff"]


#: What accuracy may cost, of :data:`bats_lab.plots.measures.MEASURES`; where there are layers, they are added up.
COSTS = ("spike_count", "synaptic_events", "decision_time", "first_spike_time")


def plot_tradeoff(
    dataset: xr.Dataset,
    *,
    cost: str = "spike_count",
    layers: str | Sequence[str] | None = None,
    reference: tuple[float, float] | None = None,
    epoch: int | None = None,
    title: str | None = None,
) -> hv.Overlay:
    """Plot test accuracy against its cost: one point a run, and the Pareto front of all of them.

    Parameters
    ----------
    dataset, epoch, title
        As in all plots (:mod:`bats_lab.plots`).
    cost : str
        ``spike_count``, ``synaptic_events``, ``decision_time`` or ``first_spike_time``, all on the test set.
    layers : str, sequence of str or None
        Layers whose spikes or synaptic events are added up; None: all, hidden and output.
    reference : (float, float) or None
        Cost (in the unit of the axis) and accuracy (%) of the worst point that counts for the hypervolume; None: no
        accuracy at all, at the next of 1, 2, 5, 10, … above the highest cost.

    Returns
    -------
    holoviews.Overlay
        Points carry their run's time step, seed, rule and file, which the screen shows under the pointer. The front is
        the staircase of what is attained: at each cost, the best accuracy that costs no more.

    Notes
    -----
    The hypervolume (`metrics.hypervolume`) is stated as a share of the rectangle between the reference
    and the ideal point, which costs nothing and is always right; it can be compared between plots of equal reference.
    """
    table = tradeoff_table(dataset, cost, layers=layers, epoch=epoch)
    runs = runs_to_draw(dataset, cost, keep=["trial"])
    above = runs_title(runs, averaged=False)
    return draw_tradeoff(table, cost, reference=reference, title=above, whole_title=title, width=840, height=360)


def draw_tradeoff(
    table: dict[str, np.ndarray],
    cost: str,
    *,
    reference: tuple[float, float] | None = None,
    title: str = "",
    whole_title: str | None = None,
    marks: Sequence[Any] = (),
    **both: Any,
) -> hv.Overlay:
    """Draw runs, as :func:`tradeoff_table` lists them, in the plane of accuracy and cost.

    The title is that given and the hypervolume below, or `whole_title`; `marks` are elements above the runs, `both`
    options of the overlay.
    """
    x, y = axes_of(cost)
    steps, share, worst = front_of(table, cost, reference)
    elements, legend = _points(table, x, y)
    front = hv.Curve(steps, x, y, label="Pareto front", group="front")
    elements.insert(0, style.line(front, style.ACCENT_COLOR, width=0.8))
    legend.append(style.LegendEntry("Pareto front", style.ACCENT_COLOR, line=0))
    options: dict[str, Any] = {
        "width": 460,
        "height": 320,
        "xlim": style.limits(table["cost"], narrowest=0.1),
        "ylim": style.limits(table["accuracy"]),
    }
    return style.overlay(
        [*elements, *marks],
        legend=legend,
        legend_title="Δt" if len(set(table["rule"])) == 1 else "Δt, rule",
        title=f"{title}\n{hypervolume_text(share, worst, cost)}" if whole_title is None else whole_title,
        axes=(x, y),
        **options | both,
    )


def axes_of(cost: str) -> tuple[hv.Dimension, hv.Dimension]:
    """Return the axes of the plane."""
    measure = MEASURES[cost]
    x = hv.Dimension("cost", label=measure.label, unit=measure.unit)
    return x, hv.Dimension("accuracy", label="test accuracy", unit="%")


def front_of(
    table: dict[str, np.ndarray], cost: str, reference: tuple[float, float] | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], float, tuple[float, float]]:
    """Return the corners of the Pareto front, the hypervolume as a share, and the reference it is measured from."""
    if not len(table["cost"]):
        return (np.empty(0), np.empty(0)), 0.0, (1.0, 0.0)
    front = pareto_front(table["cost"], table["accuracy"])
    reference = _round_reference(table["cost"]) if reference is None else reference
    share = hypervolume(table["cost"], table["accuracy"], reference) / (reference[0] * (100 - reference[1]))
    return _staircase(table["cost"][front], table["accuracy"][front], table["cost"].max()), share, reference


def hypervolume_text(share: float, reference: tuple[float, float], cost: str) -> str:
    """Tell the hypervolume and what it is measured from."""
    worst = f"{reference[0]:,.6g} {MEASURES[cost].unit or MEASURES[cost].label}, {reference[1]:g} %"
    return f"hypervolume {share:.3f} (reference: {worst})"


def tradeoff_table(
    dataset: xr.Dataset, cost: str, *, layers: str | Sequence[str] | None = None, epoch: int | None = None
) -> dict[str, np.ndarray]:
    """List runs: their accuracy (%), cost in the unit of the axis, and what tells them apart.

    The arguments are those of :func:`plot_tradeoff`.
    """
    check_choice("cost", cost, COSTS)
    measure = MEASURES[cost]
    last = after_epoch(runs_to_draw(dataset, cost, keep=["trial"]), epoch)
    costs = measure.factor * last[cost]
    if "split" in costs.dims:
        costs = costs.sel(split="test")
    if measure.by_layer:
        costs = costs.sel(layer=layers_of(costs, layers)).sum("layer", min_count=1)
    elif layers is not None:
        raise ValueError(f"layers is {layers!r}; {measure.label} belongs to the whole network.")
    stacked = xr.Dataset({"cost": costs, "accuracy": 100 * last["accuracy"].sel(split="test")})
    if "path" in dataset:
        stacked["path"] = dataset["path"]
    stacked = stacked if "trial" in stacked.dims else stacked.expand_dims(trial=[-1])  # of no search
    flat = stacked.stack(run=("rule", "delta_t", "seed", "trial"))
    flat = flat.isel(run=np.flatnonzero((flat["cost"].notnull() & flat["accuracy"].notnull()).values))
    if not flat.sizes["run"]:
        raise ValueError(f"No run has both an accuracy and a {measure.label}; there is nothing to plot.")
    # Of a single run that was selected from many, the path has no dimension.
    paths = np.broadcast_to(flat["path"].values, flat.sizes["run"]) if "path" in flat else [""] * flat.sizes["run"]
    names = [PurePath(str(p)).name for p in paths]
    columns = {name: flat[name].values for name in ("cost", "accuracy", "delta_t", "seed", "rule", "trial")}
    return columns | {
        "file": np.array(names),
        "step": np.array([style.delta_t_label(v) for v in columns["delta_t"]]),
        "color": np.array([style.delta_t_color(v) for v in columns["delta_t"]]),
        "run": np.arange(len(names)),
        "drawn": _drawn(dataset, columns["trial"]),
        # An explorer may draw a point elsewhere; these say what it is.
        "right": columns["accuracy"],
        "spent": columns["cost"],
    }


#: Columns of a run's point; see :func:`point_columns`.
_COLUMNS = ("cost", "accuracy", "seed", "rule", "step", "drawn", "file", "color", "run", "right", "spent")


def _drawn(dataset: xr.Dataset, trials: np.ndarray) -> np.ndarray:
    """Tell the parameters that a search drew for each run; nothing where there was no search."""
    if "trial" not in dataset.dims:
        return np.full(len(trials), "")
    free = {str(name): coord.values for name, coord in dataset.coords.items() if coord.dims == ("trial",)}
    free.pop("trial", None)
    texts = [
        ", ".join(f"{n} {v[i]:g}" if v.dtype.kind == "f" else f"{n} {v[i]}" for n, v in free.items())
        for i in range(dataset.sizes["trial"])
    ]
    places = {int(trial): text for trial, text in zip(dataset["trial"].values, texts, strict=True)}
    return np.array([places[int(trial)] for trial in trials])


def point_columns(table: dict[str, np.ndarray], which: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of the points of some runs: what is drawn, and what is shown under the pointer."""
    return {name: table[name][which] for name in _COLUMNS}


def run_tooltips(table: dict[str, np.ndarray], x: hv.Dimension, y: hv.Dimension) -> list[tuple[str, str]]:
    """Return what is told of a run under the pointer; what was drawn, where runs of a search are among them."""
    return [
        ("Δt", "@step"),
        ("seed", "@seed"),
        ("rule", "@rule"),
        *([("drawn", "@drawn")] if table["drawn"].astype(bool).any() else []),
        (y.label, "@right{0.00} %"),
        (x.label, f"@spent{{0,0.[0]}} {x.unit or ''}"),
        ("file", "@file"),
    ]


def _points(
    table: dict[str, np.ndarray], x: hv.Dimension, y: hv.Dimension
) -> tuple[list[Any], list[style.LegendEntry]]:
    """Draw the runs, an element of group ``rule <rule>`` for each rule."""
    rules = list(dict.fromkeys(table["rule"].tolist()))
    steps = sorted(set(table["delta_t"].tolist()))
    tooltips = run_tooltips(table, x, y)
    elements = []
    for i, rule in enumerate(rules):
        columns = point_columns(table, table["rule"] == rule)
        scatter = hv.Scatter(columns, x, [y, *_COLUMNS[2:]], group=f"rule {rule}")
        scatter = style.points(scatter, "color", series=i, size=1.2, tooltips=tooltips)
        # A click on a point chooses it, which explorers listen to; the others stay as they are.
        elements.append(style.styled(scatter, screen={"tools": ["hover", "tap"], "nonselection_alpha": 1}))
    # The legend's entries: markers that are nowhere.
    legend = [style.LegendEntry(style.delta_t_label(v), style.delta_t_color(v), marker=0) for v in steps]
    if len(rules) > 1:
        legend += [style.LegendEntry(rule, style.NEUTRAL_COLOR, marker=i) for i, rule in enumerate(rules)]
    for entry in legend:
        nowhere = hv.Scatter({"cost": [np.nan], "accuracy": [np.nan]}, x, y, label=entry.label)
        elements.append(style.points(nowhere, entry.color, series=entry.marker or 0, size=1.2))
    return elements, legend


def _staircase(cost: np.ndarray, accuracy: np.ndarray, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the line that holds each accuracy until the next better one is paid for, up to `end`."""
    return np.append(np.repeat(cost, 2)[1:], end), np.repeat(accuracy, 2)


def _round_reference(cost: np.ndarray) -> tuple[float, float]:
    highest = float(np.max(cost))
    if highest <= 0:
        return (1.0, 0.0)
    decade = 10.0 ** math.floor(math.log10(highest))
    return (next(m * decade for m in (1, 2, 5, 10) if m * decade > highest), 0.0)
