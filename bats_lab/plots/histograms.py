"""How weights, and the gradients that move them, are distributed: one line a time step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.runs import layers_of, narrowed, one_run, runs_title
from bats_lab.runs.kept import weights_of

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
    dataset, layers, seed, rule, epoch, title
        As in all plots (:mod:`bats_lab.plots`); some of the runs kept their weights.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Share of the weights in % in each of 60 equal bins, from the smallest to the largest weight of all time steps.

    Raises
    ------
    ValueError
        If no run kept its weights, and as all plots do.
    """
    x = hv.Dimension("weight", label="weight")
    return _histograms(dataset, "weights", x, layers=layers, seed=seed, rule=rule, epoch=epoch, title=title)


def plot_gradient_histogram(
    dataset: xr.Dataset,
    *,
    layers: str | Sequence[str] | None = None,
    seed: int | None = None,
    rule: str | None = None,
    title: str | None = None,
) -> hv.Overlay | hv.Layout:
    """Plot how large the gradients of the trained weights are: one line a time step, one plot a layer.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results with their gradients, as :func:`bats_lab.runs.kept.measure_gradients` returns them.
    layers, seed, rule, title
        As in all plots (:mod:`bats_lab.plots`).

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Share of the weights in % in each of 60 equal bins of the magnitude's logarithm. What is missing to 100 % has
        no gradient at all: no spike went through it.
    """
    x = hv.Dimension("gradient", label="magnitude of the gradient")
    return _histograms(
        dataset, "gradients", x, layers=layers, seed=seed, rule=rule, epoch=None, title=title, logarithmic=True
    )


def _histograms(
    dataset: xr.Dataset,
    variable: str,
    x: hv.Dimension,
    *,
    layers: str | Sequence[str] | None,
    seed: int | None,
    rule: str | None,
    epoch: int | None,
    title: str | None,
    logarithmic: bool = False,
) -> hv.Overlay | hv.Layout:
    runs = narrowed(dataset, "spike_count", rule=rule, seed=seed)
    names = layers_of(runs["spike_count"], None)
    wanted = layers_of(runs["spike_count"], layers)
    needed = variable if epoch is None else f"{variable}_by_epoch"
    known = {}
    for delta_t in runs["delta_t"].values:
        run = one_run(dataset, needed, delta_t=delta_t, seed=seed, rule=rule)
        known[float(delta_t)] = weights_of(run, epoch=epoch, variable=variable)
    known = {delta_t: arrays for delta_t, arrays in known.items() if arrays}
    if not known:
        raise ValueError("None of these runs kept its weights; runs keep them with keep_weights='last' or 'each'.")
    plots = []
    for name in wanted:
        values = {delta_t: arrays[name].ravel() for delta_t, arrays in known.items()}
        edges = bin_edges(list(values.values()), logarithmic=logarithmic)
        label = style.layer_label(name, len(names) - 1)
        options: dict[str, Any] = {"title": label, "show_legend": name == wanted[-1], "logx": logarithmic}
        plots.append(draw_histograms(values, edges, x, **options))
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
        axes=(x, y),
        xlim=(float(edges[0]), float(edges[-1])),
        ylim=(0.0, 1.06 * max(tops) or 1.0),
        **both,
    )
