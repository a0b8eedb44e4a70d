"""Spikes per sample in each layer, over the time step and over epochs."""

from __future__ import annotations

from collections.abc import Sequence

import holoviews as hv
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import EPOCH, common_limits, curves_by_delta_t, epoch_options, over_delta_t
from bats_lab.plots.runs import after_epoch, check_choice, layers_of, runs_title, runs_to_draw

__all__ = ["plot_spike_count_over_delta_t", "plot_spike_count_over_epochs"]

_WIDTH, _HEIGHT = 340, 250


def plot_spike_count_over_delta_t(
    dataset: xr.Dataset,
    *,
    layers: str | Sequence[str] | None = None,
    per_neuron: bool = False,
    split: str = "test",
    epoch: int | None = None,
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot spikes per sample against the time step, one plot a layer.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many; collision rules are told apart by dash and marker.
    layers : str, sequence of str or None
        Layers to draw, as ``hidden_1`` and ``output``; None: all.
    per_neuron : bool
        Whether to divide by the size of the layer.
    split : str
        ``test``, ``train``, or ``validation`` where runs hold out training samples.
    epoch : int or None
        After which epoch; None: each run's last.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Mean over seeds with a band of ±1 standard deviation, against Δt in ms; a Layout if there are several layers.

    Raises
    ------
    ValueError
        If there is no finished run or no such layer, or if the results have to be narrowed to one data set or other
        parameter first.
    """
    check_choice("split", split, tuple(map(str, dataset["split"].values)))
    name, y = _quantity(per_neuron)
    runs = runs_to_draw(dataset, name)
    counts = after_epoch(runs, epoch)[name].sel(split=split)
    wanted = layers_of(counts, layers)
    n_hidden = len(layers_of(counts, None)) - 1
    plots = [
        over_delta_t(
            {str(rule): counts.sel(layer=layer, rule=rule) for rule in counts["rule"].values},
            y,
            title=style.layer_label(layer, n_hidden),
            show_legend=layer == wanted[-1],
            width=_WIDTH,
            height=_HEIGHT,
        )
        for layer in wanted
    ]
    title = runs_title(runs) if title is None else title
    return style.panels(plots, columns=2, title=title, width=_WIDTH, height=_HEIGHT)


def plot_spike_count_over_epochs(
    dataset: xr.Dataset,
    *,
    layers: str | Sequence[str] | None = None,
    per_neuron: bool = False,
    split: str = "test",
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot spikes per sample against epochs: one plot a layer (and rule), one curve a time step.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many.
    layers : str, sequence of str or None
        Layers to draw, as ``hidden_1`` and ``output``; None: all.
    per_neuron : bool
        Whether to divide by the size of the layer.
    split : str
        ``test``, ``train``, or ``validation`` where runs hold out training samples.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Mean over seeds with a band of ±1 standard deviation; a Layout if there are several layers or rules.

    Raises
    ------
    ValueError
        If there is no finished run or no such layer, or if the results have to be narrowed to one data set or other
        parameter first.
    """
    check_choice("split", split, tuple(map(str, dataset["split"].values)))
    name, y = _quantity(per_neuron)
    runs = runs_to_draw(dataset, name)
    counts = runs[name].sel(split=split)
    wanted = layers_of(counts, layers)
    n_hidden = len(layers_of(counts, None)) - 1
    rules = [str(rule) for rule in counts["rule"].values]
    plots = []
    for rule in rules:
        for layer in wanted:
            values = counts.sel(layer=layer)
            label = style.layer_label(layer, n_hidden)
            plots.append(
                curves_by_delta_t(
                    values.sel(rule=rule).transpose("delta_t", "seed", "epoch"),
                    EPOCH,
                    y,
                    title=label if len(rules) == 1 else f"{label}, {rule}",
                    show_legend=layer == wanted[-1],
                    width=_WIDTH,
                    height=_HEIGHT,
                    **epoch_options(runs),
                    **common_limits(values),
                )
            )
    title = runs_title(runs) if title is None else title
    return style.panels(plots, columns=len(wanted), title=title, width=_WIDTH, height=_HEIGHT)


def _quantity(per_neuron: bool) -> tuple[str, hv.Dimension]:
    if per_neuron:
        return "spikes_per_neuron", hv.Dimension("spikes_per_neuron", label="spikes per sample and neuron")
    return "spike_count", hv.Dimension("spike_count", label="spikes per sample")
