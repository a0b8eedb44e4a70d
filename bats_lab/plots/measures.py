"""What runs measure, over the time step, epochs or time: one table of measures, and one function that draws any.

To draw another variable of the results is to add its row to :data:`MEASURES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import common_limits, curves_by_delta_t, epoch_options, over_delta_t
from bats_lab.plots.runs import after_epoch, check_choice, layers_of, runs_title, runs_to_draw
from bats_lab.runs.metrics import VARIABLES

__all__ = [
    "MEASURES",
    "OVER",
    "Measure",
    "measured",
    "plot_accuracy_over_delta_t",
    "plot_accuracy_over_epochs",
    "plot_collisions",
    "plot_confidence",
    "plot_confidence_over_delta_t",
    "plot_measures",
    "plot_spike_count_over_delta_t",
    "plot_spike_count_over_epochs",
    "plot_stopping",
]


@dataclass(frozen=True)
class Measure:
    """How a variable of the results is drawn: one row of :data:`MEASURES`.

    Attributes
    ----------
    variable : str
        Its name in :data:`bats_lab.runs.metrics.VARIABLES`.
    label : str
        What stands on its axis; ``{split}`` is the part of the data.
    unit : str or None
        Unit on the axis.
    factor : float
        By what values are multiplied to be in that unit.
    total : bool
        Whether layers are added up, and not drawn one by one.
    name : str
        Name of the axis; empty: that of the variable.
    """

    variable: str
    label: str
    unit: str | None = None
    factor: float = 1.0
    total: bool = False
    name: str = ""

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of the variable in one run."""
        return VARIABLES[self.variable].dims

    @property
    def over(self) -> tuple[str, ...]:
        """What it can be drawn over: its own time where it has one, else the time step and, where known, epochs."""
        times = [dim for dim in self.dims if dim in ("time", "stop_time")]
        return tuple(times or ["delta_t", *(dim for dim in self.dims if dim == "epoch")])

    @property
    def by_layer(self) -> bool:
        """Whether there is a value for each layer."""
        return "layer" in self.dims

    def axis(self, split: str = "test") -> hv.Dimension:
        """Return its axis."""
        return hv.Dimension(self.name or self.variable, label=self.label.format(split=split), unit=self.unit)


#: Every measure that can be drawn, by the name of its variable.
MEASURES: dict[str, Measure] = {
    measure.variable: measure
    for measure in (
        Measure("accuracy", "{split} accuracy", "%", 100),
        Measure("loss", "{split} loss"),
        Measure("spike_count", "spikes per sample"),
        Measure("spikes_per_neuron", "spikes per sample and neuron"),
        Measure("silent_fraction", "silent neurons", "%", 100),
        Measure("synaptic_events", "synaptic events per sample"),
        Measure("confidence", "prediction confidence"),
        Measure("decision_time", "time to decision", "ms", 1e3),
        Measure("first_spike_time", "time to first output spike", "ms", 1e3),
        Measure("collisions", "collisions per sample"),
        Measure("dropped", "crossings dropped per sample"),
        Measure("merged", "crossings merged per sample"),
        Measure("deferred", "crossings deferred per sample"),
        Measure("lost_spikes", "spikes lost past the window per sample"),
        Measure("truncated_neurons", "neurons stopped at the spike limit per sample"),
        Measure("spike_delay", "mean delay of spikes", "ms", 1e3),
        Measure("weight_norm", "Frobenius norm of the weights"),
        Measure("stopped_accuracy", "test accuracy", "%", 100, name="accuracy"),
        Measure("stopped_spike_count", "spikes per sample", total=True, name="spikes"),
    )
}

#: What measures are drawn over, but for the time step: the axis of each dimension.
OVER: dict[str, hv.Dimension] = {
    "epoch": hv.Dimension("epoch", label="epoch"),
    "time": hv.Dimension("time", label="time", unit="ms"),
    "stop_time": hv.Dimension("time", label="time of the decision", unit="ms"),
}


def measured(
    runs: xr.Dataset,
    measure: Measure,
    *,
    split: str = "test",
    epoch: int | None = None,
    every_epoch: bool = False,
) -> xr.DataArray:
    """Return a measure in the unit of its axis, over `rule`, `delta_t` and `seed`; coordinates of time are in ms.

    Parameters
    ----------
    runs : xarray.Dataset
        As :func:`bats_lab.plots.runs.runs_to_draw` returns them.
    measure : Measure
    split : str
        Part of the data, where the measure is taken of several.
    epoch : int or None
        After which epoch; None: each run's last.
    every_epoch : bool
        Whether all epochs are returned, along `epoch`.
    """
    known = runs if every_epoch or "epoch" not in measure.dims else after_epoch(runs, epoch)
    values = measure.factor * known[measure.variable]
    values = values.sel(split=split) if "split" in values.dims else values
    values = values.sum("layer", min_count=1) if measure.total else values
    times = [dim for dim in ("time", "stop_time") if dim in values.dims]
    return values.assign_coords({dim: np.round(values[dim].values * 1e3, 6) for dim in times})


def plot_measures(
    dataset: xr.Dataset,
    measures: str | Sequence[str],
    *,
    over: str = "delta_t",
    rule: str | None = None,
    layers: str | Sequence[str] | None = None,
    split: str = "test",
    epoch: int | None = None,
    title: str | None = None,
    size: tuple[int, int] | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot any measure over the time step, epochs or time: mean over seeds with a band of ±1 standard deviation.

    Parameters
    ----------
    dataset, rule, layers, split, epoch, title
        As in all plots (:mod:`bats_lab.plots`).
    measures : str or sequence of str
        What is drawn, of :data:`MEASURES`; several stand side by side.
    over : str
        ``delta_t``: one line a collision rule, against Δt in ms on a logarithmic axis; continuous time stands left of
        it. Or a dimension of the measures (``epoch``, ``time``, ``stop_time``): one curve a time step, one plot a rule.
    size : (int, int) or None
        Width and height of each frame, in pixels; None: all are together as wide as a page.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        A Layout where there are several measures, layers or, but over the time step, rules.

    Raises
    ------
    ValueError
        If a measure is unknown, was not measured or cannot be drawn `over` that, and as all plots do.
    """
    names = [measures] if isinstance(measures, str) else list(measures)
    for name in names:
        check_choice("measures", name, tuple(MEASURES))
        check_choice("over", over, MEASURES[name].over)
    chosen = [MEASURES[name] for name in names]
    if any("split" in measure.dims for measure in chosen):
        check_choice("split", split, tuple(map(str, dataset["split"].values)))
    runs = runs_to_draw(dataset, *names)
    rules = [str(name) for name in runs["rule"].values]
    if rule is not None:
        check_choice("rule", rule, tuple(rules))
        rules = [rule]
    values = [measured(runs, m, split=split, epoch=epoch, every_epoch=over == "epoch") for m in chosen]
    if not any(bool(v.notnull().any()) for v in values):
        raise ValueError(f"No run has measured {', '.join(names)}; there is nothing to plot.")
    by_layer = [v for v in values if "layer" in v.dims]
    if layers is not None and not by_layer:
        raise ValueError(f"layers is {layers!r}; {chosen[0].axis(split).label} belongs to the whole network.")
    wanted: list[str | None] = [*layers_of(by_layer[0], layers)] if by_layer else [None]
    cells = [
        (own_rule, layer, measure, v)
        for own_rule in ([None] if over == "delta_t" else rules)
        for layer in wanted
        for measure, v in zip(chosen, values, strict=True)
    ]
    columns = max(len(chosen) if len(chosen) > 1 else len(wanted), 1)
    columns = 2 if columns == 1 else columns
    width, height = size or {1: (1080, 330), 2: (400, 270)}.get(min(columns, len(cells)), (260, 210))
    end = min(columns, len(cells)) - 1
    plots = []
    for i, (own_rule, layer, measure, v) in enumerate(cells):
        v = v.sel(layer=layer) if "layer" in v.dims else v
        label = "" if layer is None else style.layer_label(layer, len(layers_of(by_layer[0], None)) - 1)
        options: dict[str, Any] = {
            "title": ", ".join(part for part in (label, own_rule if own_rule and len(rules) > 1 else "") if part),
            # At the end of each row; over the time step, where all rows have the same, of the first.
            "show_legend": i == end if over == "delta_t" else i % columns == columns - 1 or i == len(cells) - 1,
            "width": width,
            "height": height,
        }
        y = measure.axis(split)
        if over == "delta_t":
            plots.append(over_delta_t({name: v.sel(rule=name) for name in rules}, y, **options))
        else:
            options |= epoch_options(runs) if over == "epoch" else {"xlim": (0, 1.02 * float(v[over].max()))}
            curves = v.sel(rule=own_rule).transpose("delta_t", "seed", over)
            plots.append(curves_by_delta_t(curves, OVER[over], y, direct=True, **options, **common_limits(v)))
    title = runs_title(runs, rule) if title is None else title
    drawn = style.panels(plots, columns=columns, title=title, width=width, height=height)
    # Of a figure on paper the frame is a part; on the screen there is a legend beside it.
    return style.styled(drawn, screen={"frame_width": 860}) if len(cells) == 1 and size is None else drawn


def plot_accuracy_over_delta_t(
    dataset: xr.Dataset, *, split: str = "test", epoch: int | None = None, title: str | None = None
) -> hv.Overlay:
    """Plot accuracy in % against the time step; see :func:`plot_measures`."""
    return plot_measures(dataset, "accuracy", split=split, epoch=epoch, title=title)


def plot_accuracy_over_epochs(
    dataset: xr.Dataset, *, split: str = "test", title: str | None = None
) -> hv.Overlay | hv.Layout:
    """Plot accuracy in % against epochs; see :func:`plot_measures`."""
    return plot_measures(dataset, "accuracy", over="epoch", split=split, title=title)


def plot_spike_count_over_delta_t(
    dataset: xr.Dataset,
    *,
    layers: str | Sequence[str] | None = None,
    per_neuron: bool = False,
    split: str = "test",
    epoch: int | None = None,
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot each layer's spikes per sample, or these `per_neuron`, against the time step; see :func:`plot_measures`."""
    measure = "spikes_per_neuron" if per_neuron else "spike_count"
    return plot_measures(dataset, measure, layers=layers, split=split, epoch=epoch, title=title)


def plot_spike_count_over_epochs(
    dataset: xr.Dataset,
    *,
    layers: str | Sequence[str] | None = None,
    per_neuron: bool = False,
    split: str = "test",
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot each layer's spikes per sample, or these `per_neuron`, against epochs; see :func:`plot_measures`."""
    measure = "spikes_per_neuron" if per_neuron else "spike_count"
    return plot_measures(dataset, measure, over="epoch", layers=layers, split=split, title=title)


def plot_collisions(
    dataset: xr.Dataset,
    *,
    layers: str | Sequence[str] | None = None,
    epoch: int | None = None,
    title: str | None = None,
) -> hv.Layout:
    """Plot collisions per sample, mean delay of spikes (ms) and silent neurons (%) of each layer against the time step.

    See :func:`plot_measures`.
    """
    measures = ("collisions", "spike_delay", "silent_fraction")
    return plot_measures(dataset, measures, layers=layers, epoch=epoch, title=title)


def plot_stopping(dataset: xr.Dataset, *, rule: str | None = None, title: str | None = None) -> hv.Layout:
    """Plot test accuracy (%), and the spikes of all layers it costs, against the time of the decision (ms).

    See :func:`plot_measures`; both are of the last epoch.
    """
    measures = ("stopped_accuracy", "stopped_spike_count")
    return plot_measures(dataset, measures, over="stop_time", rule=rule, title=title)


def plot_confidence(
    dataset: xr.Dataset, *, epoch: int | None = None, title: str | None = None
) -> hv.Overlay | hv.Layout:
    """Plot prediction confidence over time (ms); see :func:`plot_measures`.

    It is the number of spikes that the true class's neuron has sent so far, over its target, mean over test samples.
    """
    return plot_measures(dataset, "confidence", over="time", epoch=epoch, title=title)


def plot_confidence_over_delta_t(
    dataset: xr.Dataset,
    *,
    times: Sequence[float] = (0.08, 0.1, 0.13, 0.2),
    epoch: int | None = None,
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot prediction confidence at a few times against the time step, one line a time and one plot a rule.

    Parameters
    ----------
    dataset, epoch, title
        As in all plots (:mod:`bats_lab.plots`).
    times : sequence of float, at most five
        Times in seconds, among those at which confidence is measured.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout

    Raises
    ------
    ValueError
        If confidence was not measured at one of the times, and as all plots do.
    """
    measure = MEASURES["confidence"]
    runs = runs_to_draw(dataset, "confidence")
    confidence = measured(runs, measure, epoch=epoch)
    known = confidence["time"].values / 1e3
    if not 0 < len(times) <= len(style.MARKERS):
        raise ValueError(f"times has {len(times)} entries; it must have 1 to {len(style.MARKERS)}.")
    for time in times:
        if not np.isclose(known, time).any():
            raise ValueError(
                f"times holds {time:g} s; confidence is measured at {', '.join(f'{t:g}' for t in known)} s."
            )
    confidence = confidence.sel(time=[1e3 * time for time in times], method="nearest")
    rules = [str(name) for name in confidence["rule"].values]
    width, height = (400, 270) if len(rules) > 1 else (840, 320)
    plots = [
        over_delta_t(
            {f"{time:g} ms": confidence.sel(rule=rule, time=time) for time in confidence["time"].values},
            measure.axis(),
            title=rule if len(rules) > 1 else "",
            legend_title="until",
            show_legend=rule == rules[-1],
            width=width,
            height=height,
            **common_limits(confidence),
        )
        for rule in rules
    ]
    title = runs_title(runs) if title is None else title
    return style.panels(plots, columns=2, title=title, width=width, height=height)
