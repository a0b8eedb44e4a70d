from .autopsy import explore_autopsy
from .chip import explore_chip
from .digit import explore_digit
from .gradient import GradientCheck, explore_gradient
from .latency import explore_latency, measure_stopping
from .live import LiveNetwork, Samples, runs_with_spikes, runs_with_weights
from .neuron import explore_neuron
from .picture import Panel, Picture, load_bokeh
from .rasters import explore_rasters
from .sweeping import SweepControl, explore_sweep
from .tabs import dashboard
from .tradeoff import explore_tradeoff
from .weights import explore_weights
from .widgets import Explorer, Sentence

__all__ = [
    "Explorer",
    "GradientCheck",
    "LiveNetwork",
    "Panel",
    "Picture",
    "Samples",
    "Sentence",
    "SweepControl",
    "dashboard",
    "explore_autopsy",
    "explore_chip",
    "explore_digit",
    "explore_gradient",
    "explore_latency",
    "explore_neuron",
    "explore_rasters",
    "explore_sweep",
    "explore_tradeoff",
    "explore_weights",
    "load_bokeh",
    "measure_stopping",
    "runs_with_spikes",
    "runs_with_weights",
]
