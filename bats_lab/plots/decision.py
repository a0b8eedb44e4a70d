"""How a decision forms: what the network sees, and the spikes that its output neurons have sent so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.raster import kept_rasters
from bats_lab.plots.runs import check_sample, one_run, run_title
from bats_lab.runs.experiment import config_of
from bats_lab.runs.kept import image_of

__all__ = ["plot_decision"]

_SIZE = 240


def plot_decision(
    dataset: xr.Dataset,
    *,
    sample: int = 0,
    time: float | None = None,
    delta_t: float | None = None,
    seed: int | None = None,
    rule: str | None = None,
    title: str | None = None,
) -> hv.Layout:
    """Plot what the network sees of one test sample, and how many spikes speak for each class at a time.

    Parameters
    ----------
    dataset, sample, delta_t, seed, rule, title
        As in all plots (:mod:`bats_lab.plots`).
    time : float or None
        Spikes sent up to this time count, in seconds; None: all.

    Returns
    -------
    holoviews.Layout
        The image that the input spikes stand for, and a bar a class; the class decided for is red, the dotted line is
        the target of the true class.
    """
    run = one_run(dataset, "spike_times", "sent_times", delta_t=delta_t, seed=seed, rule=rule)
    check_sample(run, sample)
    *_, output = kept_rasters(run, sample)
    counts = spikes_until(output.sent, np.inf if time is None else time)
    plots = decision_plots(image_of(run, sample), counts, output.labels, target=config_of(run).target_true)
    if title is None:
        title = f"sample {sample}: {run['sample_label'].sel(sample=sample).item()}; {run_title(run)}"
    return style.panels(plots, columns=2, title=title, width=_SIZE, height=_SIZE)


def spikes_until(sent: np.ndarray, time: float) -> np.ndarray:
    """Count the spikes (neuron, spike) that each neuron has sent up to a time, in seconds."""
    return (np.isfinite(sent) & (sent <= time + 1e-9)).sum(axis=1)


def seen_image(image: np.ndarray, *, size: int = _SIZE, marks: Sequence[Any] = ()) -> hv.Overlay:
    """Draw an image (row, column; 0 to 255), an element of group ``image``, below other elements."""
    rows, columns = image.shape
    x, y = hv.Dimension("column"), hv.Dimension("row")
    z = hv.Dimension("brightness")
    # By its bounds, since coordinates of a single row would have no distance. The last row of the array is at y = 0.
    bounds = (-0.5, -0.5, columns - 0.5, rows - 0.5)
    seen = hv.Image(np.asarray(image, dtype=float)[::-1], [x, y], z, bounds=bounds, group="image")
    return style.overlay(
        [style.styled(seen, cmap="Greys", clim=(0, 255), paper={"interpolation": "nearest"}), *marks],
        width=size,
        height=max(60, round(size * rows / columns)),
        title="what the network sees",
        xaxis=None,
        yaxis=None,
        **style.cells(rows, columns),
    )


def decision_plots(
    image: np.ndarray,
    counts: np.ndarray,
    labels: Sequence[str],
    *,
    target: float,
    size: int = _SIZE,
    highest: float = 0,
) -> list[hv.Overlay]:
    """Draw an image (row, column; 0 to 255), an element of group ``image``, and a bar for the spikes of each class.

    The second plot's axis reaches to `highest` at least; a line marks the `target` of the true class's neuron. Its
    elements are of the groups ``leader`` and ``others`` (:func:`bar_columns`).
    """
    picture = seen_image(image, size=size)
    count, label = hv.Dimension("count", label="spikes so far"), hv.Dimension("label", label="class")
    elements: list[Any] = []
    for name, color in (("others", style.NEUTRAL_COLOR), ("leader", style.ACCENT_COLOR)):
        columns_of = bar_columns(counts)[name]
        bars = hv.Segments(tuple(columns_of.values()), [count, label, "end", "label_end"], group=name)
        thick = max(2.0, 0.6 * size / max(len(counts), 1))
        elements.append(style.styled(bars, color=color, screen={"line_width": thick}, paper={"linewidth": 0.7 * thick}))
    goal = hv.Curve(([target, target], [-0.5, len(counts) - 0.5]), count, label, group="target")
    elements.append(style.line(goal, style.NEUTRAL_COLOR, series=2, width=0.8))
    ticks = [(i, str(name)) for i, name in enumerate(labels)]
    bars = style.overlay(
        elements,
        width=size,
        height=size,
        title=" ",
        axes=(count, label),
        xlim=(0, 1.05 * max(target, highest, counts.max(initial=0))),
        ylim=(-0.6, len(counts) - 0.4),
        yticks=ticks if len(ticks) <= 12 else ticks[::4],
    )
    return [picture, bars]


def bar_columns(counts: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Return where the bars begin and end: of the class decided for (``leader``) and of the ``others``."""
    classes = np.arange(len(counts))
    leads = (classes == counts.argmax()) & (counts > 0) if len(counts) else np.zeros(0, bool)

    def bars(which: np.ndarray) -> dict[str, np.ndarray]:
        rows = classes[which]
        return {"count": np.zeros(len(rows)), "label": rows, "end": counts[which], "label_end": rows}

    return {"leader": bars(leads), "others": bars(~leads & (counts > 0))}
