"""Plots of results: HoloViews elements that Bokeh draws on the screen and Matplotlib on paper."""

from bats_lab.plots.accuracy import plot_accuracy_over_delta_t, plot_accuracy_over_epochs
from bats_lab.plots.collisions import plot_collisions
from bats_lab.plots.confidence import plot_confidence, plot_confidence_over_delta_t
from bats_lab.plots.confusion import plot_confusion
from bats_lab.plots.decision import plot_decision
from bats_lab.plots.discretization import plot_discretization
from bats_lab.plots.histograms import plot_gradient_histogram, plot_weight_histogram
from bats_lab.plots.potential import draw_potential, plot_potential
from bats_lab.plots.raster import plot_raster
from bats_lab.plots.runs import split_results
from bats_lab.plots.sensitivity import plot_sensitivity
from bats_lab.plots.spike_count import plot_spike_count_over_delta_t, plot_spike_count_over_epochs
from bats_lab.plots.stopping import plot_stopping
from bats_lab.plots.style import delta_t_color, save_figure, show_figure
from bats_lab.plots.tradeoff import plot_tradeoff
from bats_lab.plots.weights import plot_weights

__all__ = [
    "delta_t_color",
    "draw_potential",
    "plot_accuracy_over_delta_t",
    "plot_accuracy_over_epochs",
    "plot_collisions",
    "plot_confidence",
    "plot_confidence_over_delta_t",
    "plot_confusion",
    "plot_decision",
    "plot_discretization",
    "plot_gradient_histogram",
    "plot_potential",
    "plot_raster",
    "plot_sensitivity",
    "plot_spike_count_over_delta_t",
    "plot_spike_count_over_epochs",
    "plot_stopping",
    "plot_tradeoff",
    "plot_weight_histogram",
    "plot_weights",
    "save_figure",
    "show_figure",
    "split_results",
]
