"""Which class is taken for which."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.runs import one_time_step, run_title

__all__ = ["plot_confusion"]

#: Up to this many classes, cells carry their number.
_NUMBERED = 12


def plot_confusion(
    dataset: xr.Dataset,
    *,
    delta_t: float | None = None,
    rule: str | None = None,
    seed: int | None = None,
    title: str | None = None,
) -> hv.Overlay:
    """Plot the confusion matrix of the test set after the last epoch.

    Parameters
    ----------
    dataset, delta_t, rule, title
        As in all plots (:mod:`bats_lab.plots`).
    seed : int or None
        Seed; None: all runs together.

    Returns
    -------
    holoviews.Overlay
        Share in % of each true class's samples; the last column is samples without an output spike.
    """
    runs = one_time_step(dataset, "confusion", delta_t=delta_t, rule=rule, seed=seed)
    n_runs = int(runs["accuracy"].isel(epoch=0, split=0).notnull().sum())
    counts = runs["confusion"]
    counts = counts.sum("seed") if "seed" in counts.dims else counts
    counts = counts.transpose("true_class", "predicted_class")
    # Classes of other data sets are NaN here, and stay out.
    counts = counts.isel(true_class=(counts.sum("predicted_class") > 0).values)
    known = [*counts["true_class"].values.tolist(), counts["predicted_class"].values.tolist()[-1]]
    share = (100 * counts / counts.sum("predicted_class")).sel(predicted_class=known).values
    n = len(share)

    x = hv.Dimension("predicted", label="predicted class")
    y = hv.Dimension("true", label="true class")
    z = hv.Dimension("share", label="share of the true class", unit="%")
    if title is None:
        title = run_title(runs) + ("" if n_runs == 1 else f", {n_runs} seeds together")
    columns, rows = np.arange(n + 1), np.arange(n)
    image = style.heatmap(hv.Image((columns, rows, share), [x, y], z), cmap="Blues", limits=(0, 100))
    elements: list[Any] = [image]
    if n <= _NUMBERED:
        elements += style.numbers(share, x, y, dark_from=50, hidden_below=0.5)
    ticks = [(int(i), str(name)) for i, name in zip(columns, known, strict=True)]
    short = n <= _NUMBERED and max(len(str(name)) for name in known) <= 4
    return style.overlay(
        elements,
        width=430,
        height=390,
        title=title,
        axes=(x, y),
        xticks=ticks,
        yticks=ticks[:-1],
        colorbar=z.pprint_label,
        xrotation=0 if short else 90,
        **style.cells(n, n + 1),
    )
