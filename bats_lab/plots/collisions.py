"""What a coarse clock does to spikes: crossings that collide, spikes that come late, neurons that fall silent."""

from __future__ import annotations

from collections.abc import Sequence

import holoviews as hv
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import over_delta_t
from bats_lab.plots.runs import after_epoch, layers_of, runs_title, runs_to_draw

__all__ = ["plot_collisions"]

_MEASURES = {
    "collisions": (hv.Dimension("collisions", label="collisions per sample"), 1.0),
    "spike_delay": (hv.Dimension("spike_delay", label="mean delay of spikes", unit="ms"), 1e3),
    "silent_fraction": (hv.Dimension("silent_fraction", label="silent neurons", unit="%"), 100.0),
}
_WIDTH, _HEIGHT = 280, 210


def plot_collisions(
    dataset: xr.Dataset,
    *,
    layers: str | Sequence[str] | None = None,
    epoch: int | None = None,
    title: str | None = None,
) -> hv.Layout:
    """Plot collisions, the delay of spikes and silent neurons against the time step, one row of plots a layer.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many; collision rules are told apart by dash and marker.
    layers : str, sequence of str or None
        Layers to draw, as ``hidden_1`` and ``output``; None: all.
    epoch : int or None
        After which epoch; None: each run's last.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Layout
        Crossings dropped, merged or deferred per sample; mean time by which a spike leaves after its crossing, in ms;
        share of neurons silent over the whole test set, in %. Mean over seeds with a band of ±1 standard deviation.

    Raises
    ------
    ValueError
        If there is no finished run or no such layer, or if the results have to be narrowed to one data set or other
        parameter first.
    """
    runs = runs_to_draw(dataset, *_MEASURES)
    last = after_epoch(runs, epoch)
    wanted = layers_of(last["collisions"], layers)
    n_hidden = len(layers_of(last["collisions"], None)) - 1
    plots = []
    for layer in wanted:
        for name, (y, factor) in _MEASURES.items():
            values = factor * last[name].sel(layer=layer)
            plots.append(
                over_delta_t(
                    {str(rule): values.sel(rule=rule) for rule in values["rule"].values},
                    y,
                    title=style.layer_label(layer, n_hidden),
                    show_legend=layer == wanted[0] and name == list(_MEASURES)[-1],
                    width=_WIDTH,
                    height=_HEIGHT,
                )
            )
    title = runs_title(runs) if title is None else title
    return style.panels(plots, columns=len(_MEASURES), title=title, width=_WIDTH, height=_HEIGHT)
