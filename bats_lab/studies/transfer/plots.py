"""Accuracy over the clock of training and that of the test, as tables in colour."""

from __future__ import annotations

from collections.abc import Mapping

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots import style
from bats_lab.studies.transfer.report import clock_label

__all__ = ["plot_transfer"]

_CELL = (62, 30)


def plot_transfer(results: Mapping[str, xr.Dataset], *, title: str = "") -> hv.Overlay | hv.Layout:
    """Plot test accuracy, the mean over seeds, with a table for each data set and method of training.

    Parameters
    ----------
    results : mapping of str to Dataset
        What :func:`bats_lab.studies.transfer.study.open_transfer` returns.
    title : str
        Title.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        A row a data set; in a table a row for each time step of training and a column for each of the test, in %.
    """
    x, y = hv.Dimension("tested", label="tested at"), hv.Dimension("trained", label="trained at")
    z = hv.Dimension("accuracy", label="test accuracy", unit="%")
    plots, shape = [], (1, 1)
    for name, part in results.items():
        mean = 100 * part["accuracy"].mean("seed").sortby("trained_at").sortby("tested_at")
        low, high = float(mean.min()), float(mean.max())
        limits = (low - 0.3 * (high - low) - 1e-9, high + 0.7 * (high - low) + 1e-9)
        for method in part["trained_by"].values.tolist():
            values = mean.sel(trained_by=method).transpose("trained_at", "tested_at").values
            rows, columns = shape = values.shape
            bounds = (-0.5, -0.5, columns - 0.5, rows - 0.5)
            image = hv.Image(values[::-1], [x, y], z, bounds=bounds)
            plots.append(
                style.overlay(
                    [
                        style.heatmap(image, cmap="Greys", limits=limits, colorbar=False),
                        *style.numbers(values, x, y, dark_from=float(np.mean(limits)), digits=1),
                    ],
                    width=_CELL[0] * columns,
                    height=_CELL[1] * rows,
                    axes=(x, y),
                    title=f"{name}, {method}",
                    xticks=[(k, clock_label(v)) for k, v in enumerate(mean["tested_at"].values)],
                    yticks=[(k, clock_label(v)) for k, v in enumerate(mean["trained_at"].values)],
                    **style.cells(rows, columns),
                )
            )
    return style.panels(plots, columns=2, title=title, width=_CELL[0] * shape[1], height=_CELL[1] * shape[0])
