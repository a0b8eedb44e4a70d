"""Weights: of a layer as a heatmap, of a neuron as the image it looks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.runs import layers_of, one_run, run_title

__all__ = ["plot_weights"]


def plot_weights(
    dataset: xr.Dataset,
    *,
    layer: str = "hidden_1",
    neuron: int | None = None,
    delta_t: float | None = None,
    seed: int | None = None,
    rule: str | None = None,
    epoch: int | None = None,
    shape: tuple[int, int] | None = None,
    limit: float | None = None,
    title: str | None = None,
) -> hv.Overlay:
    """Plot the weights of a layer, or of one of its neurons.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many.
    layer : str
        Layer, as ``hidden_1`` or ``output``.
    neuron : int or None
        Neuron of the layer; None: all of them.
    delta_t, seed, rule : float (s), int, str or None
        The run; each is needed where there are several.
    epoch : int or None
        After which epoch, for runs that keep the weights of each; None: after the last.
    shape : (int, int) or None
        Rows and columns of the images that the first layer sees; None: square, if that is possible.
    limit : float or None
        Weight at the ends of the colour scale; None: that which one weight in 200 exceeds.
    title : str or None
        Title; None: layer, data set, time step, rule and seed.

    Returns
    -------
    holoviews.Overlay
        A heatmap (post × pre); for a neuron of the first layer an image with a weight a pixel; for a neuron further on
        a stem a weight.

    Raises
    ------
    ValueError
        If there is no such run, layer, neuron or epoch, if its weights were not kept, or if the weights of a neuron
        do not fill `shape`.
    """
    name = "weights" if epoch is None else "weights_by_epoch"
    run = one_run(dataset, name, delta_t=delta_t, seed=seed, rule=rule)
    spiking = run["spike_count"].isel(split=0) if "spike_count" in run else run[name]
    layers_of(spiking, layer)
    if epoch is not None:
        if epoch not in run["epoch"].values:
            raise ValueError(
                f"epoch is {epoch}; the results hold {run['epoch'].values.min()} to {run['epoch'].values.max()}."
            )
        run = run.sel(epoch=epoch)
    values = run[name].sel(layer=layer).transpose("post", "pre").values
    values = values[np.isfinite(values).any(axis=1)][:, np.isfinite(values).any(axis=0)]
    if not values.size:
        raise ValueError(f"This run did not keep its weights of {layer!r}.")
    if limit is None:
        limit = color_limit(values)
    n_hidden = len(layers_of(spiking, None)) - 1
    what = style.layer_label(layer, n_hidden)
    if neuron is None:
        return layer_image(values, limit, f"{what}\n{run_title(run)}" if title is None else title)
    if not 0 <= neuron < len(values):
        raise ValueError(f"neuron is {neuron}; {layer!r} has neurons 0 to {len(values) - 1}.")
    title = f"{what}, neuron {neuron}\n{run_title(run)}" if title is None else title
    is_first = layer == layers_of(spiking, None)[0]
    n_pre = values.shape[1]
    if shape is None and is_first and math.isqrt(n_pre) ** 2 == n_pre:
        shape = (math.isqrt(n_pre), math.isqrt(n_pre))
    if shape is None:
        return neuron_stems(values[neuron], title)
    if shape[0] * shape[1] != n_pre:
        raise ValueError(f"shape is {shape}, which is {shape[0] * shape[1]} pixels; the neuron has {n_pre} weights.")
    return neuron_image(values[neuron].reshape(shape), limit, title)


def color_limit(values: np.ndarray) -> float:
    """Return the weight at the ends of a colour scale: one weight in 200 exceeds it."""
    # Of very many weights some fifty thousand tell it as well, and explorers ask with each change.
    some = values.ravel()[:: max(1, values.size // 50_000)]
    return float(np.quantile(np.abs(some), 0.995)) or 1.0


_WEIGHT = hv.Dimension("weight", label="weight")


def layer_image(
    values: np.ndarray,
    limit: float,
    title: str,
    *,
    width: int = 460,
    height: int = 340,
    marks: Sequence[Any] = (),
) -> hv.Overlay:
    """Draw the weights of a layer (post, pre) as a heatmap, an element of group ``weights``, below other elements."""
    x = hv.Dimension("pre", label="neuron of the layer below")
    y = hv.Dimension("post", label="neuron")
    image = hv.Image((np.arange(values.shape[1]), np.arange(values.shape[0]), values), [x, y], _WEIGHT, group="weights")
    return style.overlay(
        [style.heatmap(image, cmap="RdBu_r", limits=(-limit, limit)), *marks],
        width=width,
        height=height,
        title=title,
        xlabel=x.pprint_label,
        ylabel=y.pprint_label,
        xlim=(-0.5, values.shape[1] - 0.5),
        ylim=(values.shape[0] - 0.5, -0.5),
        grid=False,
        colorbar=_WEIGHT.pprint_label,
    )


def neuron_image(values: np.ndarray, limit: float, title: str, *, width: int = 280) -> hv.Overlay:
    """Draw the weights of a neuron of the first layer (row, column) as an image, an element of group ``weights``."""
    rows, columns = values.shape
    x, y = hv.Dimension("column"), hv.Dimension("row")
    image = hv.Image((np.arange(columns), np.arange(rows), values), [x, y], _WEIGHT, group="weights")
    return style.overlay(
        [style.heatmap(image, cmap="RdBu_r", limits=(-limit, limit))],
        width=width,
        height=max(60, round(width * rows / columns)),
        title=title,
        xlabel=x.pprint_label,
        ylabel=y.pprint_label,
        xlim=(-0.5, columns - 0.5),
        ylim=(rows - 0.5, -0.5),
        grid=False,
        colorbar=_WEIGHT.pprint_label,
    )


def stem_columns(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the points of a stem a weight: three each, the last of them NaN, so that one curve draws them all."""
    pre = np.repeat(np.arange(len(values), dtype=float), 3)
    heights = np.stack([np.zeros(len(values)), values, np.full(len(values), np.nan)], axis=1).ravel()
    return {"pre": pre, "weight": heights}


def neuron_stems(values: np.ndarray, title: str, *, width: int = 460, height: int = 240) -> hv.Overlay:
    """Draw the weights of a neuron (pre,) as stems, an element of group ``stems``."""
    x = hv.Dimension("pre", label="neuron of the layer below")
    curve = hv.Curve(stem_columns(values), x, _WEIGHT, group="stems")
    return style.overlay(
        [style.line(curve, style.CONTINUOUS_COLOR, width=0.6)],
        width=width,
        height=height,
        title=title,
        xlabel=x.pprint_label,
        ylabel=_WEIGHT.pprint_label,
        xlim=(-1, len(values)),
        ylim=style.limits(values, [0.0]),
    )
