"""Why training collapses at a coarse time step: plots of the experiments in `collapse.study`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.runs import check_choice
from bats_lab.runs.metrics import last_epoch
from bats_lab.studies.collapse.experiments import agreement
from bats_lab.studies.collapse.law import collapse_step, observed_steps
from bats_lab.studies.collapse.trained import TRAINED_ON, with_continuous
from bats_lab.studies.counts import by_counts
from bats_lab.studies.panels import drawn_rules, level, panels_over_delta_t

__all__ = [
    "plot_collapse_law",
    "plot_counts_over_epochs",
    "plot_cross_test",
    "plot_crossed_training",
    "plot_drive_response",
    "plot_error_counts",
    "plot_every_clock",
    "plot_gradient_quality",
    "plot_highest_count",
    "plot_step_along_gradient",
]

_WIDTH, _HEIGHT = 300, 230
#: Where rules are compared at one time step, colour tells them apart; not the colours of time steps.
_RULE_COLORS = {"drop": "#c8102e", "merge": "#0072b2", "defer": "#e69f00", "graded": "#56b4e9"}
#: Targets, or kinds of counts, in their order.
_COLORS = ("#c8102e", "#0072b2", "#e69f00", "#56b4e9", "#555555")
_ACCURACY = hv.Dimension("accuracy", label="test accuracy", unit="%")


def plot_drive_response(
    dataset: xr.Dataset, *, delta_t: Sequence[float], target: float = 15.0, title: str = ""
) -> hv.Overlay | hv.Layout:
    """Plot what a steadily driven neuron sends on the grid against what it sends in continuous time.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`bats_lab.studies.collapse.experiments.drive_response` returns it.
    delta_t : sequence of float
        Time steps in seconds, one plot each; ValueError if one is not in the dataset.
    target : float
        The true class's target count, drawn as a line.
    title : str
        Title above the plots.

    Returns
    -------
    holoviews.Layout
        One curve a collision rule.
    """
    x = hv.Dimension("continuous", label="spikes in continuous time (drive)")
    y = hv.Dimension("sent", label="spikes sent")
    steady, known = dataset.isel(pattern=0), dataset["delta_t"].values
    drive = steady["continuous_count"].values
    top = float(max(drive.max(), steady["spike_count"].max()))
    # Drives between two counts differ in when the neuron spikes; their mean is what a count is worth.
    places = np.unique(drive)
    plots = []
    for step in delta_t:
        if not np.isclose(known, step).any():
            raise ValueError(f"delta_t is {step}; the results hold {', '.join(f'{v:g}' for v in known)}.")
        line = hv.Curve(((0, top), (target, target)), x, hv.Dimension("level"))
        elements: list[Any] = [style.line(line, style.ACCENT_COLOR, series=1, width=0.6)]
        for i, rule in enumerate(drawn_rules(dataset)):
            counts = steady["spike_count"].sel(rule=rule, delta_t=step).values
            mean = np.array([counts[drive == n].mean() for n in places])
            columns = {x.name: places, y.name: mean, "rule": [rule] * len(places)}
            tooltips = [("rule", "@rule"), (x.label, f"@{x.name}"), (y.label, f"@{y.name}{{0.0}}")]
            curve = hv.Curve(columns, x, [y, "rule"], label=rule)
            elements.append(style.line(curve, _RULE_COLORS[rule], series=i, tooltips=tooltips))
        legend = [style.LegendEntry(rule, _RULE_COLORS[rule], line=i) for i, rule in enumerate(drawn_rules(dataset))]
        plots.append(
            style.overlay(
                elements,
                width=_WIDTH,
                height=_HEIGHT,
                legend=legend if step == delta_t[-1] else (),
                legend_title="rule",
                title=f"Δt = {style.delta_t_label(step)}",
                xlabel=x.pprint_label,
                ylabel=y.pprint_label,
                ylim=style.limits(0, top),
                xlim=style.limits(0, top),
            )
        )
    return style.panels(plots, columns=len(plots), title=title, width=_WIDTH, height=_HEIGHT)


def plot_highest_count(dataset: xr.Dataset, *, target: float = 15.0, title: str = "") -> hv.Overlay:
    """Plot the highest number of spikes that a neuron was brought to send, against the time step.

    Parameters
    ----------
    dataset, target, title
        As in :func:`plot_drive_response`.

    Returns
    -------
    holoviews.Overlay
        One curve a rule: for each input pattern the highest count over all drives; mean over patterns with a band of ±1
        standard deviation.
    """
    highest = dataset["spike_count"].max("drive").rename(pattern="seed").astype(float)
    return panels_over_delta_t(
        {title: {rule: highest.sel(rule=rule) for rule in drawn_rules(dataset)}},
        hv.Dimension("highest", label="highest spike count"),
        size=(400, 280),
        marks=[level(target, dataset["delta_t"].values)],
        ylim=style.limits(0, highest),
    )


def plot_cross_test(dataset: xr.Dataset, *, title: str = "") -> hv.Overlay | hv.Layout:
    """Plot test accuracy of networks trained at one time step and tested at another, one matrix a rule.

    Parameters
    ----------
    dataset : xarray.Dataset
        `accuracy` as :func:`bats_lab.studies.collapse.experiments.cross_test` returns it, for one rule or several.
    title : str
        Title above the plots.

    Returns
    -------
    holoviews.Layout
        Accuracy in %, mean over seeds.
    """
    if "rule" not in dataset.dims:
        dataset = dataset.expand_dims("rule")
    x = hv.Dimension("tested_at", label="tested at Δt", unit="ms")
    y = hv.Dimension("trained_at", label="trained at Δt", unit="ms")
    ticks = [
        (i, "0" if step == 0 else style.delta_t_label(step).removesuffix(" ms"))
        for i, step in enumerate(dataset["tested_at"].values.tolist())
    ]
    n = len(ticks)
    size = max(200, 34 * n)
    plots = []
    for rule in drawn_rules(dataset):
        share = 100 * dataset["accuracy"].sel(rule=rule).mean("seed").transpose("trained_at", "tested_at").values
        last = rule == drawn_rules(dataset)[-1]
        image = hv.Image((np.arange(n), np.arange(n), share), [x, y], _ACCURACY)
        image = style.heatmap(image, cmap="Blues", limits=(0, 100), colorbar=last)
        plots.append(
            style.overlay(
                [image, *style.numbers(share, x, y, dark_from=55)],
                width=size,
                height=size,
                title=rule,
                xlabel=x.pprint_label,
                ylabel=y.pprint_label,
                xticks=ticks,
                yticks=ticks,
                xlim=(-0.5, n - 0.5),
                ylim=(n - 0.5, -0.5),
                grid=False,
                colorbar=_ACCURACY.pprint_label if last else "",
            )
        )
    return style.panels(plots, columns=len(plots), title=title, width=size, height=size)


#: Where the errors and the gradient of `experiments.train_crossed` come from, and what that is called.
_CELLS = {
    "both on the grid": {"errors": "grid", "gradient": "grid"},
    "errors on the grid, gradient exact": {"errors": "grid", "gradient": "continuous"},
    "errors exact, gradient on the grid": {"errors": "continuous", "gradient": "grid"},
    "both exact": {"errors": "continuous", "gradient": "continuous"},
}


def plot_crossed_training(dataset: xr.Dataset, *, tested: str = "grid", title: str = "") -> hv.Overlay | hv.Layout:
    """Plot test accuracy of networks whose errors, or whose gradients, are those of continuous time, one plot a rule.

    Parameters
    ----------
    dataset : xarray.Dataset
        `accuracy` over seed, rule, delta_t, errors, gradient and tested.
    tested : str
        Where the networks are tested: ``grid``, on the time step itself, or ``continuous``.
    title : str
        Title above the plots.
    """
    check_choice("tested", tested, ("grid", "continuous"))
    accuracy = 100 * dataset["accuracy"].sel(tested=tested)
    panels = {
        rule: {name: accuracy.sel({"rule": rule} | cell) for name, cell in _CELLS.items()}
        for rule in drawn_rules(dataset)
    }
    return panels_over_delta_t(panels, _ACCURACY, title=title, size=(_WIDTH, _HEIGHT), legend_title="training")


def plot_gradient_quality(dataset: xr.Dataset, *, weights: str = "continuous", title: str = "") -> hv.Layout:
    """Plot how well gradients predict the change of the loss, and how they differ, against the time step.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`bats_lab.studies.collapse.experiments.gradient_quality` returns it, over rule, delta_t and weights.
    weights : str
        Which networks: those trained in ``continuous`` time, or each trained on its ``own`` time step and rule.
    title : str
        Title above the plots.

    Returns
    -------
    holoviews.Layout
        Correlation with the true change of the loss on the grid, of the straight-through gradient and of the one that
        the same weights have in continuous time; and the cosine of the two. One curve a rule.
    """
    check_choice("weights", weights, ("continuous", "own"))
    own = dataset.sel(weights=weights).expand_dims("seed")
    agrees = agreement(own)
    values = {
        "straight-through gradient": agrees.sel(gradient="straight_through"),
        "gradient at Δt = 0": agrees.sel(gradient="continuous"),
        "both gradients": own["cosine_all"],
    }
    correlation = hv.Dimension("correlation", label="correlation with the change of the loss")
    return panels_over_delta_t(
        {name: {rule: part.sel(rule=rule) for rule in drawn_rules(dataset)} for name, part in values.items()},
        {name: hv.Dimension("cosine") if name == "both gradients" else correlation for name in values},
        title=title,
        size=(_WIDTH, _HEIGHT),
        ylim=style.limits(0, 1, agrees),
    )


def plot_step_along_gradient(
    dataset: xr.Dataset, *, weights: str = "continuous", gradient: str = "straight_through", title: str = ""
) -> hv.Overlay | hv.Layout:
    """Plot what a step along a gradient does to the loss on the grid, against the time step.

    Parameters
    ----------
    dataset, weights, title
        As in :func:`plot_gradient_quality`.
    gradient : str
        ``straight_through``, or ``continuous``: the gradient at Δt = 0.

    Returns
    -------
    holoviews.Layout
        Change of the loss in % of what it was, one plot a rule, one curve a size of the step in learning rates.
    """
    check_choice("weights", weights, ("continuous", "own"))
    check_choice("gradient", gradient, ("straight_through", "continuous"))
    own = dataset.sel(weights=weights).expand_dims("seed")
    change = 100 * own["step_change"].sel(gradient=gradient) / own["loss"]
    sizes = change["step"].values.tolist()
    return panels_over_delta_t(
        {rule: {f"{size:g}": change.sel(rule=rule, step=size) for size in sizes} for rule in drawn_rules(dataset)},
        hv.Dimension("change", label="change of the loss", unit="%"),
        title=title,
        size=(_WIDTH, _HEIGHT),
        legend_title="step (learning rates)",
    )


def plot_error_counts(dataset: xr.Dataset, *, title: str = "") -> hv.Overlay:
    """Plot test accuracy under ``drop`` against the time step, one curve for whose spikes the error counts.

    `dataset` are the runs of one data set, over `error_counts` and `error_layers`; networks trained with their own
    counts are drawn at the time steps at which others were, and in continuous time.
    """
    accuracy = {}
    for label, runs in by_counts(dataset).items():
        last = 100 * last_epoch(runs)["accuracy"].sel(split="test")
        last = last.sel(rule="drop") if "rule" in last.dims else last
        accuracy[label] = last.expand_dims([dim for dim in ("delta_t", "seed") if dim not in last.dims])
    steps = {step for label, values in accuracy.items() if label != "own" for step in values["delta_t"].values.tolist()}
    own = accuracy["own"]
    accuracy["own"] = own.sel(delta_t=[step for step in own["delta_t"].values.tolist() if step in steps | {0.0}])
    return panels_over_delta_t({title: accuracy}, _ACCURACY, size=(400, 280), legend_title="counts in the error")


def plot_every_clock(dataset: xr.Dataset, *, title: str = "") -> hv.Overlay | hv.Layout:
    """Plot test accuracy on each clock of networks trained on it, in continuous time, or on one drawn for each batch.

    `dataset` is of ``every_clock``, one panel a rule.
    """
    accuracy = 100 * with_continuous(dataset)
    return panels_over_delta_t(
        {
            rule: {TRAINED_ON[name]: accuracy.sel(rule=rule, training=name) for name in TRAINED_ON}
            for rule in drawn_rules(accuracy.dropna("rule", how="all"))
        },
        _ACCURACY,
        title=title,
        legend_title="trained on",
    )


def plot_counts_over_epochs(dataset: xr.Dataset, *, title: str = "") -> hv.Layout:
    """Plot test accuracy and spikes of the output layer over epochs, one curve for whose spikes the error counts."""
    epoch = hv.Dimension("epoch", label="epoch")
    spikes = hv.Dimension("spikes", label="output spikes a sample")
    colors = dict(zip(parts := by_counts(dataset), _COLORS, strict=False))
    legend = [style.LegendEntry(label, color, line=i) for i, (label, color) in enumerate(colors.items())]
    plots = []
    for y in (_ACCURACY, spikes):
        curves, seen = [], []
        for i, (label, runs) in enumerate(parts.items()):
            values = 100 * runs["accuracy"] if y is _ACCURACY else runs["spike_count"].sel(layer="output")
            values = values.sel(split="test").mean([d for d in values.dims if d not in ("epoch", "split")])
            seen.append(values.values)
            curve = hv.Curve((values["epoch"].values, values.values), epoch, y, label=label)
            curves.append(style.line(curve, colors[label], series=i))
        plots.append(
            style.overlay(
                curves,
                width=_WIDTH,
                height=_HEIGHT,
                legend=legend if y is spikes else (),
                legend_title="counts in the error",
                xlabel=epoch.pprint_label,
                ylabel=y.pprint_label,
                ylim=style.limits(0, *seen),
            )
        )
    return style.panels(plots, columns=2, title=title, width=_WIDTH, height=_HEIGHT)


def plot_collapse_law(dataset: xr.Dataset, *, title: str = "") -> hv.Layout:
    """Plot the accuracy that networks lost against Δt over the predicted step, and predicted against observed steps.

    `dataset` is as :func:`bats_lab.studies.collapse.law.collapse_law` returns it. Each curve on the left is one target,
    window and time constant; each point on the right is the time step at which one of them has lost 10 points.
    """
    ratio = hv.Dimension("ratio", label="Δt over the predicted Δt*")
    lost = hv.Dimension("lost", label="accuracy lost", unit="points")
    predicted = hv.Dimension("predicted", label="predicted Δt*", unit="ms")
    observed = hv.Dimension("observed", label="Δt at which 10 points are lost", unit="ms")
    losses = 100 * (dataset["accuracy"].sel(ratio=0.0) - dataset["accuracy"])
    losses = losses.where(losses["ratio"] > 0, drop=True)
    found, targets = observed_steps(dataset), dataset["target"].values.tolist()
    curves: list[Any] = []
    steps: list[Any] = []
    for i, target in enumerate(targets):
        color = _COLORS[i % len(_COLORS)]
        own = losses.sel(target=target)
        columns: dict[str, list[float]] = {"predicted": [], "observed": [], "duration": [], "tau_syn": []}
        for duration in own["duration"].values.tolist():
            for tau_syn in own["tau_syn"].values.tolist():
                values = own.sel(duration=duration, tau_syn=tau_syn)
                curves.append(
                    style.line(hv.Curve((values["ratio"].values, values.values), ratio, lost), color, width=0.6)
                )
                step = 1e3 * collapse_step(target, duration, tau_syn)
                seen = step * float(found.sel(target=target, duration=duration, tau_syn=tau_syn))
                for name, value in zip(columns, (step, seen, 1e3 * duration, 1e3 * tau_syn), strict=True):
                    columns[name].append(value)
        tooltips = [("T (ms)", "@duration"), ("τ_s (ms)", "@tau_syn"), ("Δt* (ms)", "@predicted{0.0}")]
        tooltips.append(("observed (ms)", "@observed{0.0}"))
        scatter = hv.Scatter(columns, predicted, [observed, "duration", "tau_syn"], label=f"{target:g}")
        steps.append(style.points(scatter, color, series=i, tooltips=tooltips))
    everything = [element.dimension_values(d) for element in steps for d in (0, 1)]
    ends = np.nanmin(np.concatenate(everything)) / 1.2, np.nanmax(np.concatenate(everything)) * 1.2
    diagonal = style.line(hv.Curve((ends, ends), predicted, observed), style.NEUTRAL_COLOR, series=1, width=0.6)
    level_at = style.line(hv.Curve((ratio_ends := (0.45, 3.3), (10, 10)), ratio, lost), style.ACCENT_COLOR, series=1)
    legend = [style.LegendEntry(f"{t:g}", _COLORS[i % len(_COLORS)], marker=i) for i, t in enumerate(targets)]
    ticks = [(value, f"{value:g}") for value in (1, 2, 5, 10, 20, 50) if ends[0] < value < ends[1]]
    own_ticks: dict[str, Any] = {"xticks": ticks, "yticks": ticks} if ticks else {}
    both: dict[str, Any] = {"width": 360, "height": 280}
    left = style.overlay(
        [*curves, level_at], xlabel=ratio.pprint_label, ylabel=lost.pprint_label, logx=True, xlim=ratio_ends,
        xticks=[(value, f"{value:g}") for value in (0.5, 0.7, 1, 1.5, 2, 3)], **both,
    )  # fmt: skip
    right = style.overlay(
        [diagonal, *steps], legend=legend, legend_title="target", xlabel=predicted.pprint_label,
        ylabel=observed.pprint_label, logx=True, logy=True, xlim=ends, ylim=ends,
        **own_ticks, **both,
    )  # fmt: skip
    return style.panels([left, right], columns=2, title=title, **both)
