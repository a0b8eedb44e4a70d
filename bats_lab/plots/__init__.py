"""Plots of results: HoloViews elements that Bokeh draws on the screen and Matplotlib on paper."""

from bats_lab.plots.accuracy import plot_accuracy_over_delta_t, plot_accuracy_over_epochs
from bats_lab.plots.active_share import plot_active_share
from bats_lab.plots.clock_and_word import plot_clock_and_word
from bats_lab.plots.collapse import (
    plot_cross_test,
    plot_crossed_training,
    plot_drive_response,
    plot_gradient_quality,
    plot_highest_count,
    plot_step_along_gradient,
)
from bats_lab.plots.collisions import plot_collisions
from bats_lab.plots.confidence import plot_confidence, plot_confidence_over_delta_t
from bats_lab.plots.confusion import plot_confusion
from bats_lab.plots.decision import plot_decision
from bats_lab.plots.deployment import plot_deployment
from bats_lab.plots.discretization import plot_discretization
from bats_lab.plots.energy import plot_energy
from bats_lab.plots.estimators import (
    plot_estimator_agreement,
    plot_estimator_gain,
    plot_estimators,
    plot_smooth_grid,
)
from bats_lab.plots.histograms import plot_gradient_histogram, plot_weight_histogram
from bats_lab.plots.potential import draw_potential, plot_potential
from bats_lab.plots.raster import plot_raster
from bats_lab.plots.runs import split_results
from bats_lab.plots.sensitivity import plot_sensitivity
from bats_lab.plots.spike_count import plot_spike_count_over_delta_t, plot_spike_count_over_epochs
from bats_lab.plots.stopping import plot_stopping
from bats_lab.plots.style import delta_t_color, save_figure, show_figure
from bats_lab.plots.three_way import plot_three_way
from bats_lab.plots.tradeoff import plot_tradeoff
from bats_lab.plots.weights import plot_weights

__all__ = [
    "delta_t_color",
    "draw_potential",
    "plot_accuracy_over_delta_t",
    "plot_accuracy_over_epochs",
    "plot_active_share",
    "plot_clock_and_word",
    "plot_collisions",
    "plot_confidence",
    "plot_confidence_over_delta_t",
    "plot_confusion",
    "plot_cross_test",
    "plot_crossed_training",
    "plot_decision",
    "plot_deployment",
    "plot_discretization",
    "plot_drive_response",
    "plot_energy",
    "plot_estimator_agreement",
    "plot_estimator_gain",
    "plot_estimators",
    "plot_gradient_histogram",
    "plot_gradient_quality",
    "plot_highest_count",
    "plot_potential",
    "plot_raster",
    "plot_sensitivity",
    "plot_smooth_grid",
    "plot_spike_count_over_delta_t",
    "plot_spike_count_over_epochs",
    "plot_step_along_gradient",
    "plot_stopping",
    "plot_three_way",
    "plot_tradeoff",
    "plot_weight_histogram",
    "plot_weights",
    "save_figure",
    "show_figure",
    "split_results",
]
