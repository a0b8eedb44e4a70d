"""Accuracy over the time step and over epochs."""

from __future__ import annotations

import holoviews as hv
import xarray as xr

from bats_lab.plots import style
from bats_lab.plots.curves import EPOCH, common_limits, curves_by_delta_t, epoch_options, over_delta_t
from bats_lab.plots.runs import after_epoch, check_choice, runs_title, runs_to_draw

__all__ = ["plot_accuracy_over_delta_t", "plot_accuracy_over_epochs"]


def plot_accuracy_over_delta_t(
    dataset: xr.Dataset, *, split: str = "test", epoch: int | None = None, title: str | None = None
) -> hv.Overlay:
    """Plot accuracy against the time step: mean over seeds with a band of ±1 standard deviation.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many; collision rules are told apart by dash and marker.
    split : str
        ``test``, ``train``, or ``validation`` where runs hold out training samples.
    epoch : int or None
        After which epoch; None: each run's last.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Overlay
        Accuracy in %, against Δt in ms on a logarithmic axis; continuous time stands left of it.

    Raises
    ------
    ValueError
        If there is no finished run, or if the results have to be narrowed to one data set or other parameter first.
    """
    check_choice("split", split, tuple(map(str, dataset["split"].values)))
    runs = runs_to_draw(dataset, "accuracy")
    accuracy = 100 * after_epoch(runs, epoch)["accuracy"].sel(split=split)
    series = {str(rule): accuracy.sel(rule=rule) for rule in accuracy["rule"].values}
    return over_delta_t(series, _accuracy(split), title=runs_title(runs) if title is None else title)


def plot_accuracy_over_epochs(
    dataset: xr.Dataset, *, split: str = "test", title: str | None = None
) -> hv.Overlay | hv.Layout:
    """Plot accuracy against epochs: one curve a time step, with a band of ±1 standard deviation over seeds.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many.
    split : str
        ``test``, ``train``, or ``validation`` where runs hold out training samples.
    title : str or None
        Title; None: data set, rule and number of seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Accuracy in %; a Layout of one plot a rule where there are several rules.

    Raises
    ------
    ValueError
        If there is no finished run, or if the results have to be narrowed to one data set or other parameter first.
    """
    check_choice("split", split, tuple(map(str, dataset["split"].values)))
    runs = runs_to_draw(dataset, "accuracy")
    accuracy = 100 * runs["accuracy"].sel(split=split)
    rules = [str(rule) for rule in accuracy["rule"].values]
    plots = [
        curves_by_delta_t(
            accuracy.sel(rule=rule).transpose("delta_t", "seed", "epoch"),
            EPOCH,
            _accuracy(split),
            title=runs_title(runs, rule) if title is None else title,
            show_legend=rule == rules[-1],
            **epoch_options(runs),
            **common_limits(accuracy),
        )
        for rule in rules
    ]
    return style.panels(plots, columns=2)


def _accuracy(split: str) -> hv.Dimension:
    return hv.Dimension("accuracy", label=f"{split} accuracy", unit="%")
