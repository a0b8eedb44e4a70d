"""Explorers: plots with controls, for JupyterLab and Voilà.

Each ``explore_`` function returns an :class:`Explorer`, a widget whose controls can be set from Python as well::

    from bats_lab import explore

    explore.load_bokeh()
    explorer = explore.explore_rasters("results/mnist_study")
    explorer                                        # shows it in a notebook
    explorer.controls["delta_t"].value = 0.004      # the same as moving the slider
"""

from bats_lab.explore.chip import explore_chip
from bats_lab.explore.digit import explore_digit
from bats_lab.explore.gradient import GradientCheck, explore_gradient
from bats_lab.explore.latency import explore_latency, measure_stopping
from bats_lab.explore.live import LiveNetwork, Samples, runs_with_spikes, runs_with_weights
from bats_lab.explore.neuron import explore_neuron
from bats_lab.explore.picture import Panel, Picture, load_bokeh
from bats_lab.explore.rasters import explore_rasters
from bats_lab.explore.tabs import dashboard
from bats_lab.explore.tradeoff import explore_tradeoff
from bats_lab.explore.weights import explore_weights
from bats_lab.explore.widgets import Explorer, Sentence

__all__ = [
    "Explorer",
    "GradientCheck",
    "LiveNetwork",
    "Panel",
    "Picture",
    "Samples",
    "Sentence",
    "dashboard",
    "explore_chip",
    "explore_digit",
    "explore_gradient",
    "explore_latency",
    "explore_neuron",
    "explore_rasters",
    "explore_tradeoff",
    "explore_weights",
    "load_bokeh",
    "measure_stopping",
    "runs_with_spikes",
    "runs_with_weights",
]
