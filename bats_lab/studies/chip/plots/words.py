"""What words of few bits cost in accuracy: rounded after training, and trained with them."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.engine.quantization import TRAINED
from bats_lab.plots import style
from bats_lab.plots.curves import statistics
from bats_lab.plots.runs import check_choice, dataset_name, seeds_text
from bats_lab.studies.chip.plots.quantities import value_texts, word_label
from bats_lab.studies.chip.training import METHODS

__all__ = ["plot_words"]

_WIDTH, _HEIGHT = 330, 280


def plot_words(training: xr.Dataset, *, split: str = "test", title: str = "") -> hv.Overlay | hv.Layout:
    """Plot accuracy under ``clocked`` against the word length: weights rounded after training, and trained as words.

    Parameters
    ----------
    training : xarray.Dataset
        Of one data set, as :func:`bats_lab.studies.chip.training.open_training` returns it.
    split : str
        ``test`` or ``validation`` images.
    title : str
        Title above the panels; empty: data set, images and seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        A panel a time step; mean over the seeds that there are, with bars of ±1 standard deviation. What was not
        measured is left out.

    Raises
    ------
    ValueError
        If there is no such split, or nothing was measured.
    """
    check_choice("split", split, tuple(map(str, training["split"].values)))
    accuracy = 100 * training["accuracy"].sel(split=split)
    if not bool(accuracy.notnull().any()):
        raise ValueError("Nothing was measured of these networks yet; there is nothing to plot.")
    words = sorted(accuracy["bits"].values.tolist())
    x, y = (
        hv.Dimension("place", label="bits of a weight"),
        hv.Dimension("accuracy", label=f"{split} accuracy", unit="%"),
    )
    limits = style.limits(float(accuracy.min()), float(accuracy.max()))
    plots: list[Any] = []
    for step in accuracy["delta_t"].values.tolist():
        elements, legend = [], []
        for i, (name, text) in enumerate(METHODS.items()):
            values = accuracy.sel(training=name, delta_t=step, bits=words).transpose("bits", "seed")
            known = np.flatnonzero(values.notnull().any("seed").values)
            if not len(known):
                continue
            mean, std, n = (statistic[known] for statistic in statistics(values))
            color, place = style.SERIES_COLORS[i], known + 0.08 * (i - 1)
            spread = np.nan_to_num(std)
            elements.append(style.bars(hv.ErrorBars((place, mean, spread), x, [y, "std"]), color))
            shown = value_texts(mean, std, "%")
            columns = {"place": place, "accuracy": mean, "shown": shown, "seeds": n}
            dots = hv.Scatter(columns, x, [y, "shown", "seeds"], label=text)
            tooltips = [("accuracy", "@shown"), ("seeds", "@seeds")]
            elements.append(style.points(dots, color, series=i, size=1.2, tooltips=tooltips))
            apart = np.array([words[k] != TRAINED for k in known])  # weights as trained are no word
            elements.append(style.line(hv.Curve((place[apart], mean[apart]), x, y), color, series=i))
            legend.append(style.LegendEntry(text, color, i, i))
        plots.append(
            style.overlay(
                elements,
                legend=legend if step == accuracy["delta_t"].values[-1] else (),
                legend_title="weights",
                title=f"Δt = {style.delta_t_label(step)}",
                xlabel=x.pprint_label,
                ylabel=y.pprint_label,
                xticks=[(k, word_label(word).replace(", ", "\n")) for k, word in enumerate(words)],
                xlim=(-0.5, len(words) - 0.5),
                ylim=limits,
                width=_WIDTH,
                height=_HEIGHT,
            )
        )
    seeds = int(accuracy.notnull().any([d for d in accuracy.dims if d != "seed"]).sum())
    above = title or f"{dataset_name(training)}, rule clocked, {split} images, {seeds_text(seeds)}"
    return style.panels(plots, columns=2, title=above, width=_WIDTH, height=_HEIGHT)
