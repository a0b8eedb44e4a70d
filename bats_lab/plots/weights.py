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
from bats_lab.runs.kept import weights_of

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
    dataset, delta_t, seed, rule, epoch, title
        As in all plots (:mod:`bats_lab.plots`).
    layer : str
        Layer, as ``hidden_1`` or ``output``.
    neuron : int or None
        Neuron of the layer; None: all of them.
    shape : (int, int) or None
        Rows and columns of the images that the first layer sees; None: square, if that is possible.
    limit : float or None
        Weight at the ends of the colour scale; None: that which one weight in 200 exceeds.

    Returns
    -------
    holoviews.Overlay
        A heatmap (post × pre); for a neuron of the first layer an image with a weight a pixel; for a neuron further on
        a stem a weight.

    Raises
    ------
    ValueError
        If there is no such neuron, or its weights do not fill `shape`, and as all plots do.
    """
    variable = "weights" if epoch is None else "weights_by_epoch"
    run = one_run(dataset, variable, delta_t=delta_t, seed=seed, rule=rule)
    spiking = run["spike_count"].isel(split=0) if "spike_count" in run else run[variable]
    layers_of(spiking, layer)
    first, *others = layers_of(spiking, None)
    values = weights_of(run, epoch=epoch).get(layer)
    if values is None:
        raise ValueError(f"This run did not keep its weights of {layer!r}.")
    limit = color_limit(values) if limit is None else limit
    what = style.layer_label(layer, len(others))
    if neuron is None:
        return layer_image(values, limit, f"{what}\n{run_title(run)}" if title is None else title)
    if not 0 <= neuron < len(values):
        raise ValueError(f"neuron is {neuron}; {layer!r} has neurons 0 to {len(values) - 1}.")
    title = f"{what}, neuron {neuron}\n{run_title(run)}" if title is None else title
    n_pre = values.shape[1]
    side = math.isqrt(n_pre)
    if shape is None and layer == first and side**2 == n_pre:
        shape = (side, side)
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
_PRE = hv.Dimension("pre", label="neuron of the layer below")


def layer_image(
    values: np.ndarray, limit: float, title: str, *, width: int = 460, height: int = 340, marks: Sequence[Any] = ()
) -> hv.Overlay:
    """Draw the weights of a layer (post, pre) as a heatmap, an element of group ``weights``, below other elements."""
    x, y = _PRE, hv.Dimension("post", label="neuron")
    return _image(values, limit, (x, y), marks, width=width, height=height, title=title)


def neuron_image(
    values: np.ndarray, limit: float, title: str, *, width: int = 280, marks: Sequence[Any] = ()
) -> hv.Overlay:
    """Draw the weights of a neuron of the first layer (row, column) as an image, an element of group ``weights``."""
    rows, columns = values.shape
    axes = (hv.Dimension("column"), hv.Dimension("row"))
    height = max(60, round(width * rows / columns))
    return _image(values, limit, axes, marks, width=width, height=height, title=title)


def _image(
    values: np.ndarray, limit: float, axes: tuple[hv.Dimension, hv.Dimension], marks: Sequence[Any] = (), **both: Any
) -> hv.Overlay:
    rows, columns = values.shape
    image = hv.Image((np.arange(columns), np.arange(rows), values), [*axes], _WEIGHT, group="weights")
    heatmap = style.heatmap(image, cmap="RdBu_r", limits=(-limit, limit))
    options = style.cells(rows, columns) | both
    return style.overlay([heatmap, *marks], axes=axes, colorbar=_WEIGHT.pprint_label, **options)


def stem_columns(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the points of a stem a weight: three each, the last of them NaN, so that one curve draws them all."""
    pre = np.repeat(np.arange(len(values), dtype=float), 3)
    heights = np.stack([np.zeros(len(values)), values, np.full(len(values), np.nan)], axis=1).ravel()
    return {"pre": pre, "weight": heights}


def neuron_stems(values: np.ndarray, title: str, *, width: int = 460, height: int = 240) -> hv.Overlay:
    """Draw the weights of a neuron (pre,) as stems, an element of group ``stems``."""
    curve = hv.Curve(stem_columns(values), _PRE, _WEIGHT, group="stems")
    return style.overlay(
        [style.line(curve, style.CONTINUOUS_COLOR, width=0.6)],
        width=width,
        height=height,
        title=title,
        axes=(_PRE, _WEIGHT),
        xlim=(-1, len(values)),
        ylim=style.limits(values, [0.0]),
    )
