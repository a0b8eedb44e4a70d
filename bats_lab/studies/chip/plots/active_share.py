"""Why the share of active (neuron, tick) pairs cannot compare clocks: the very same spikes on two of them."""

from __future__ import annotations

import json
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import over_delta_t
from bats_lab.spikes.grid import discretize, ticks_within
from bats_lab.studies.chip.energy import active_share

__all__ = ["plot_active_share"]

_WIDTH, _HEIGHT = 470, 200
#: Up to so many neurons each has its tick.
_NAMED = 12
#: Time steps over which the share of the same spikes is drawn, in s; all divide the usual window of 0.2 s.
_STEPS = (0.0005, 0.001, 0.002, 0.004, 0.005, 0.008, 0.01, 0.02)


def plot_active_share(
    dataset: xr.Dataset,
    *,
    delta_t: tuple[float, float] = (0.002, 0.01),
    sample: int = 0,
    layer: str = "hidden_1",
    neurons: int = 12,
    title: str = "",
) -> hv.Layout:
    """Plot why the share of active (neuron, tick) pairs cannot compare clocks: the very same spikes on two of them.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many, as :func:`bats_lab.open_results` gives them, some of which kept spikes.
    delta_t : (float, float)
        A fine and a coarse time step in seconds.
    sample, layer : int and str
        Which of the kept samples, and of which layer.
    neurons : int
        How many of its neurons: the first that spike.
    title : str
        Title above the plots.

    Returns
    -------
    holoviews.Layout
        Above, the spikes as computed, with the cells of either clock in which there is one; below, the share of such
        cells and the number of spikes for the very same spikes over all time steps.

    Raises
    ------
    ValueError
        If no run kept spikes of this layer and sample, or a value is not allowed.
    """
    times, duration = kept_times(dataset, sample=sample, layer=layer)
    times = times[np.isfinite(times).any(axis=1)][:neurons]
    if not len(times):
        raise ValueError(f"No neuron of {layer} spiked on sample {sample}; there is nothing to plot.")
    return draw_active_share(times, delta_t, duration, title=title)


def kept_times(dataset: xr.Dataset, *, sample: int, layer: str) -> tuple[np.ndarray, float]:
    """Return the times (neuron, spike) at which a layer's neurons crossed on a kept sample, and the window, in s.

    Of the runs that kept spikes the first of the smallest time step is taken.
    """
    missing = [name for name in ("spike_times", "sample_label", "config") if name not in dataset]
    if missing:
        raise ValueError(f"The results have no variable {missing[0]!r}, which runs keep with keep_samples above 0.")
    dims = [str(d) for d in dataset["config"].dims]
    known = (dataset["sample_label"] != "").any("sample")
    runs = np.argwhere(known.transpose(*dims).values)
    if not len(runs):
        raise ValueError("None of these runs kept spikes; runs keep them with keep_samples above 0.")
    steps = dataset["delta_t"].values.reshape(-1)
    finest = min(runs, key=lambda run: steps[run[dims.index("delta_t")]] if "delta_t" in dims else 0.0)
    run = dataset.isel(dict(zip(dims, map(int, finest), strict=True)))
    for name, value in (("sample", sample), ("layer", layer)):
        labels = run[name].values.tolist()
        if value not in labels:
            raise ValueError(f"{name} is {value!r}; the results hold {', '.join(map(str, labels))}.")
    kept = run["spike_times"].sel(sample=sample, layer=layer).transpose("neuron", "spike")
    return kept.values.astype(float), float(json.loads(str(run["config"].values))["duration"])


def draw_active_share(
    times: np.ndarray, delta_t: tuple[float, float], duration: float, *, title: str = ""
) -> hv.Layout:
    """Draw it for spike times in s, (neuron, spike), not finite where there is none, and a window of `duration` s."""
    if not 0 < delta_t[0] < delta_t[1] <= duration:
        raise ValueError(f"delta_t is {delta_t}; it must be a fine and a coarse time step, above 0 and in the window.")
    plots: list[Any] = [_grid_of_cells(times, step, duration) for step in delta_t]
    n_neurons, n_spikes = len(times), int(np.isfinite(times).sum())
    steps = sorted({*delta_t, *(s for s in _STEPS if s <= duration / 4)})
    share = [100 * float(active_share(n_spikes, n_neurons, duration, step)) for step in steps]
    constant = [float(n_spikes)] * len(steps)
    for name, label, unit, values in (
        ("share", "active (neuron, tick) pairs", "%", share),
        ("spikes", "spikes", "", constant),
    ):
        y = hv.Dimension(name, label=label, unit=unit or None)
        one = xr.DataArray(np.array(values)[:, None], {"delta_t": steps, "seed": [0]}, ("delta_t", "seed"))
        plots.append(
            over_delta_t(
                {"": one},
                y,
                title="the same spikes: " + ("the share moves" if name == "share" else "their number does not"),
                width=_WIDTH,
                height=_HEIGHT,
                ylim=style.limits(0, *values),
            )
        )
    return style.panels(plots, columns=2, title=title, width=_WIDTH, height=_HEIGHT, gap=95)


def _grid_of_cells(times: np.ndarray, step: float, duration: float) -> hv.Overlay:
    """Draw the cells in which a neuron spikes, and its spikes within them."""
    x, y = hv.Dimension("time", label="time", unit="ms"), hv.Dimension("neuron", label="neuron")
    neuron, spike = np.nonzero(np.isfinite(times))
    crossings = times[neuron, spike]
    # The tick on which it is sent ends the cell in which it was computed.
    tick = np.rint(discretize(crossings, step) / step).astype(int)
    cells, counts = np.unique(np.stack([neuron, tick], axis=1), axis=0, return_counts=True)
    start, end = 1e3 * step * (cells[:, 1] - 1), 1e3 * step * cells[:, 1]
    color = style.delta_t_color(step)
    filled = hv.Rectangles(
        (start, cells[:, 0] - 0.45, end, cells[:, 0] + 0.45, counts), vdims=["spikes"], group="cells"
    )
    tooltips = [("spikes in this cell", "@spikes")]
    filled = style.styled(
        filled,
        color=color,
        alpha=0.45,
        screen={"line_color": None, "tools": ["hover"], "hover_tooltips": tooltips},
        paper={"linewidth": 0},
    )
    spikes = style.points(
        hv.Scatter((1e3 * crossings, neuron), x, y, group="spikes"), style.CONTINUOUS_COLOR, size=0.45
    )
    share = 100 * float(active_share(len(crossings), len(times), duration, step))
    pairs = f"{len(times)} × {ticks_within(duration, step):,} (neuron, tick) pairs"
    title = f"Δt = {style.delta_t_label(step)}: {len(crossings)} spikes on {pairs}, share {share:.3g} %"
    return style.overlay(
        [filled, spikes],
        width=_WIDTH,
        height=_HEIGHT,
        title=title,
        xlabel=x.pprint_label,
        ylabel=y.pprint_label,
        xlim=(0, 1e3 * duration),
        ylim=(-0.8, len(times) - 0.2),
        yticks=[(i, str(i + 1)) for i in range(len(times))] if len(times) <= _NAMED else [(0, "1")],
    )
