"""Where a spiking network takes less energy than a dense one of the same shape and words."""

from __future__ import annotations

from collections.abc import Sequence

import holoviews as hv
import xarray as xr

from bats_lab.plots import style
from bats_lab.studies.chip.energy import deployment_costs
from bats_lab.studies.chip.plots.quantities import narrowed, rules_of, title_of, with_word, word_text
from bats_lab.studies.chip.prices import HARDWARE
from bats_lab.studies.panels import panels_over_delta_t

__all__ = ["plot_crossover"]

_CMOS = "45 nm CMOS"


def plot_crossover(
    deployment: xr.Dataset, *, bits: Sequence[int] = (8, 4, 2), split: str = "test", title: str = ""
) -> hv.Overlay | hv.Layout:
    """Plot how busy connections are, and how busy they may be, before a dense network takes less energy.

    Parameters and errors are those of :func:`bats_lab.chip.plot_deployment`.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        A panel a word length; mean over seeds of rule ``clocked`` against the time step: synaptic events per connection
        and tick, and the crossover below which a spiking network wins, both networks in 45 nm CMOS and without leakage
        (:func:`bats_lab.studies.chip.energy.costs`).
    """
    whole = narrowed(deployment, split)
    rules_of(whole, "clocked")
    panels = {}
    for word in bits:
        points = with_word(whole, word).sel(rule=["clocked"])
        points = points.sel(delta_t=points["delta_t"] > 0)
        costs = deployment_costs(points, hardware={_CMOS: HARDWARE[_CMOS]}).squeeze("rule")
        panels[word_text(word)] = {
            text: 100 * costs[name].transpose("delta_t", "seed")
            for name, text in (("event_share", "counted"), ("crossover", "crossover"))
        }
    if not panels:
        raise ValueError("bits is empty; it must name at least one word length.")
    values = [v.values for series in panels.values() for v in series.values()]
    limits = style.log_limits(*values, least=1e-4)
    return panels_over_delta_t(
        panels,
        hv.Dimension("event_share", label="synaptic events per connection and tick", unit="%"),
        title=title or title_of(whole, "rule clocked"),
        columns=3,
        legend_title="share",
        size=(320, 260),
        logy=True,
        ylim=limits,
        yticks=style.log_ticks(*limits),
    )
