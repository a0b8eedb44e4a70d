"""How weights, and the gradients that move them, are distributed: one line a time step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.runs import layers_of, narrowed, one_run, runs_title
from bats_lab.runs.experiment import config_of, first_samples, network_of
from bats_lab.runs.training import input_spikes

__all__ = ["plot_gradient_histogram", "plot_weight_histogram"]

_WIDTH, _HEIGHT = 340, 250
_N_BINS = 60


def plot_weight_histogram(
    dataset: xr.Dataset,
    *,
    layers: str | Sequence[str] | None = None,
    seed: int | None = None,
    rule: str | None = None,
    epoch: int | None = None,
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot how the weights of each layer are distributed: one line a time step, one plot a layer.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many, some of which kept their weights.
    layers : str, sequence of str or None
        Layers to draw, as ``hidden_1`` and ``output``; None: all.
    seed, rule : int, str or None
        The runs; each is needed where there are several.
    epoch : int or None
        After which epoch, for runs that keep the weights of each; None: after the last.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Share of the weights in % in each of 60 equal bins, from the smallest to the largest weight of all time steps.

    Raises
    ------
    ValueError
        If no run kept its weights, or there is no such run, layer or epoch.
    """
    networks = _by_delta_t(dataset, seed, rule, lambda run: network_of(run, epoch=epoch).weights)
    x = hv.Dimension("weight", label="weight")
    return _histograms(dataset, networks, x, layers, seed, rule, title, logarithmic=False)


def plot_gradient_histogram(
    dataset: xr.Dataset,
    *,
    layers: str | Sequence[str] | None = None,
    n_samples: int = 50,
    seed: int | None = None,
    rule: str | None = None,
    epoch: int | None = None,
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot how large the gradients of the trained weights are: one line a time step, one plot a layer.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many, some of which kept their weights.
    layers : str, sequence of str or None
        Layers to draw, as ``hidden_1`` and ``output``; None: all.
    n_samples : int
        Training images, from the first on, over which the gradient is taken: a batch.
    seed, rule : int, str or None
        The runs; each is needed where there are several.
    epoch : int or None
        After which epoch, for runs that keep the weights of each; None: after the last.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Share of the weights in % in each of 60 equal bins of the magnitude's logarithm. What is missing to 100 % has
        no gradient at all: no spike went through it.

    Raises
    ------
    ValueError
        If no run kept its weights, or there is no such run, layer or epoch.
    DataError
        If the images are not there.

    Notes
    -----
    Gradients are not stored: the networks are run, on the time grid and by the rule of their training (eq. 11-16).
    """
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; it must be at least 1.")

    def gradients(run: xr.Dataset) -> list[np.ndarray]:
        config = config_of(run)
        data = first_samples(config, n_samples, split="train")
        network = network_of(run, epoch=epoch)
        inputs = input_spikes(data.x_train[:n_samples], config)
        counts = network.simulate(inputs, rule=config.rule)[-1].spike_count
        true = np.arange(counts.shape[1]) == data.y_train[:n_samples, None]
        errors = np.where(true, config.target_true, config.target_false) - counts
        return [np.abs(g) for g in network.gradients(inputs, errors, rule=config.rule)]

    networks = _by_delta_t(dataset, seed, rule, gradients)
    x = hv.Dimension("gradient", label="magnitude of the gradient")
    return _histograms(dataset, networks, x, layers, seed, rule, title, logarithmic=True)


def _by_delta_t(
    dataset: xr.Dataset, seed: int | None, rule: str | None, measure: Callable[[xr.Dataset], list[np.ndarray]]
) -> dict[float, list[np.ndarray]]:
    """Measure every run that kept its weights, one a time step."""
    found: dict[float, list[np.ndarray]] = {}
    reason = None
    for delta_t in np.atleast_1d(dataset["delta_t"].values) if "delta_t" in dataset.coords else [None]:
        try:
            run = one_run(dataset, delta_t=delta_t, seed=seed, rule=rule)
            found[float(run["delta_t"])] = measure(run)
        except ValueError as error:
            reason = error
    if not found:
        raise reason or ValueError("The results hold no run; there is nothing to plot.")
    return found


def _histograms(
    dataset: xr.Dataset,
    networks: dict[float, list[np.ndarray]],
    x: hv.Dimension,
    layers: str | Sequence[str] | None,
    seed: int | None,
    rule: str | None,
    title: str | None,
    *,
    logarithmic: bool,
) -> hv.Overlay | hv.Layout:
    runs = narrowed(dataset, "spike_count", rule=rule, seed=seed)
    names = layers_of(runs["spike_count"], None)
    wanted = layers_of(runs["spike_count"], layers)
    plots = []
    for name in wanted:
        values = {delta_t: arrays[names.index(name)].ravel() for delta_t, arrays in networks.items()}
        edges = bin_edges(list(values.values()), logarithmic=logarithmic)
        plots.append(
            draw_histograms(
                values,
                edges,
                x,
                title=style.layer_label(name, len(names) - 1),
                show_legend=name == wanted[-1],
                logx=logarithmic,
            )
        )
    title = runs_title(runs, averaged=False) if title is None else title
    return style.panels(plots, columns=2, title=title, width=_WIDTH, height=_HEIGHT)


def bin_edges(values: Sequence[np.ndarray], *, logarithmic: bool = False) -> np.ndarray:
    """Return the edges of bins that hold all the values; with `logarithmic`, all that are above 0."""
    kept = [v[np.isfinite(v) & (v > 0 if logarithmic else True)] for v in values]
    flat = [v for v in kept if len(v)]
    low, high = (min(v.min() for v in flat), max(v.max() for v in flat)) if flat else (1.0, 10.0)
    if logarithmic:
        return np.geomspace(low, max(high, 1.01 * low), _N_BINS + 1)
    return np.linspace(low, high if high > low else low + 1, _N_BINS + 1)


def histogram_columns(values: np.ndarray, edges: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """Return the corners of a histogram's outline: share of the values in each bin, in %."""
    values = values.ravel()
    counts, _ = np.histogram(values[np.isfinite(values)], edges)
    share = 100 * counts / max(values.size, 1)
    return {name: np.repeat(edges, 2), "share": np.concatenate([[0], np.repeat(share, 2), [0]])}


def draw_histograms(
    values: dict[float, np.ndarray],
    edges: np.ndarray,
    x: hv.Dimension,
    *,
    title: str,
    show_legend: bool = True,
    width: int = _WIDTH,
    height: int = _HEIGHT,
    **both: Any,
) -> hv.Overlay:
    """Draw the outline of a histogram for each time step; each is an element of a group of its name (``0.004``)."""
    y = hv.Dimension("share", label="share of the weights", unit="%")
    elements, legend, tops = [], [], [0.0]
    for delta_t, numbers in values.items():
        columns = histogram_columns(numbers, edges, x.name)
        label, color = style.delta_t_label(delta_t), style.delta_t_color(delta_t)
        elements.append(style.line(hv.Curve(columns, x, y, label=label, group=f"step {delta_t:g}"), color, width=0.8))
        legend.append(style.LegendEntry(label, color, line=0))
        tops.append(float(columns["share"].max()))
    return style.overlay(
        elements,
        width=width,
        height=height,
        legend=legend if show_legend else (),
        legend_title="Δt",
        title=title,
        xlabel=x.pprint_label,
        ylabel=y.pprint_label,
        xlim=(float(edges[0]), float(edges[-1])),
        ylim=(0.0, 1.06 * max(tops) or 1.0),
        **both,
    )
