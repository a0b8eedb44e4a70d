from . import report, style
from .confusion import plot_confusion
from .decision import plot_decision
from .discretization import plot_discretization
from .figures import save_figure, show_figure
from .histograms import plot_gradient_histogram, plot_weight_histogram
from .importance import plot_importance, search_table
from .measures import (
    plot_accuracy_over_delta_t,
    plot_accuracy_over_epochs,
    plot_collisions,
    plot_confidence,
    plot_confidence_over_delta_t,
    plot_measures,
    plot_spike_count_over_delta_t,
    plot_spike_count_over_epochs,
    plot_stopping,
)
from .platforms import plot_autopsy, plot_causes, plot_platforms
from .potential import draw_potential, plot_potential
from .raster import plot_raster
from .runs import split_results
from .sensitivity import plot_sensitivity
from .style import delta_t_color
from .tradeoff import plot_tradeoff
from .weights import plot_weights

__all__ = [
    "delta_t_color",
    "draw_potential",
    "plot_accuracy_over_delta_t",
    "plot_accuracy_over_epochs",
    "plot_autopsy",
    "plot_causes",
    "plot_collisions",
    "plot_confidence",
    "plot_confidence_over_delta_t",
    "plot_confusion",
    "plot_decision",
    "plot_discretization",
    "plot_gradient_histogram",
    "plot_importance",
    "plot_measures",
    "plot_platforms",
    "plot_potential",
    "plot_raster",
    "plot_sensitivity",
    "plot_spike_count_over_delta_t",
    "plot_spike_count_over_epochs",
    "plot_stopping",
    "plot_tradeoff",
    "plot_weight_histogram",
    "plot_weights",
    "report",
    "save_figure",
    "search_table",
    "show_figure",
    "split_results",
    "style",
]
